"""What docs/offline.md says of failures is what the commands print; `python -m benchmarks.failures` makes the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.failure_causes import FAILURES
from benchmarks.failure_kit import Kit
from benchmarks.failures import as_row, observe

PAGE = (Path(__file__).parents[2] / "docs" / "offline.md").read_text(encoding="utf-8")
QUICK = (
    "a cell of the trace is no number",
    "an empty trace",
    "a model that does not exist",
    "training without torch installed",
    "stdout goes to a full disk",
    "a byte of the model was altered",
    "an artifact of a newer fcast",
    "a bundle for a driver that is too old",
    "a file of the bundle was altered",
    "a bundle that was not finished",
)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("failures"))


@pytest.mark.parametrize("what", QUICK)
def test_the_page_shows_what_the_user_sees(what: str, kit: Kit) -> None:
    try:
        outcome = observe(what, kit)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert outcome.problem == ""
    assert as_row(outcome) in PAGE.splitlines()


def test_the_page_has_every_failure() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if line.startswith("| ")]
    assert [what for what in FAILURES if what not in rows] == []
    assert len(FAILURES) >= 15


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_an_error(kit: Kit) -> None:
    outcome = observe("training on CUDA where there is none", kit)
    assert outcome.problem == ""
    assert outcome.seen[0].startswith("Error: device cuda: expected a CUDA GPU, got torch ")
