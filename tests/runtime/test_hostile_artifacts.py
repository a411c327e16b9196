"""No artifact, however it was damaged or built, does more than be refused in one line that says what and where.

Each case of the corpus runs in a child process with 5 seconds of its own and 1 GiB. It passes when every call of the
runtime raises an ArtifactError or none, nothing outside the folder is opened, nothing in it is executed, and what
`verify` lets through forecasts what its golden windows say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime import Predictor
from tests.runtime import hostile_files, hostile_golden, hostile_graphs, hostile_manifests, hostile_swaps
from tests.runtime.conftest import ARTIFACTS, replace_file
from tests.runtime.hostile import judge_all
from tests.runtime.hostile_cases import cuts, flips
from tests.runtime.watching import watching

HARMLESS = {
    "graph: the handmade one as it is",
    "graph: a choice",
    "graph: a weight twice",  # onnxruntime takes the last, and it is the same
    "version: a link out",
    "golden: bytes before",
    "config.pbtxt: not UTF-8, sealed",  # Triton's, not read here
}
SLOW = {"graph: 2^40 numbers from a constant"}
VALUES = list(hostile_manifests.CASES)


_VERDICTS: dict[str, dict[str, str | None]] = {}


def judged(cases: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """The verdicts by case, none of them a bug; each case is judged once."""
    for verdict in judge_all([case for case in cases if case not in _VERDICTS]):
        _VERDICTS[verdict["case"]] = verdict
    found = {case: _VERDICTS[case] for case in cases}
    assert {case: verdict["bug"] for case, verdict in found.items() if "bug" in verdict} == {}
    return found


def harmless(found: dict[str, dict[str, str | None]]) -> set[str]:
    """The cases that fcast-verify lets through: they forecast what they should."""
    passed = {case: verdict for case, verdict in found.items() if verdict["verify"] is None}
    assert {case: v for case, v in passed.items() if v.get("predict", "not opened") is not None} == {}
    return set(passed)


@pytest.mark.parametrize(
    "cases",
    [hostile_files.CASES, hostile_golden.CASES, hostile_graphs.CASES.keys() - SLOW],
    ids=["files", "golden", "graphs"],
)
def test_what_was_built_to_harm_is_refused(cases: Sequence[str]) -> None:
    assert harmless(judged(sorted(cases))) == HARMLESS.intersection(cases)


@pytest.mark.slow
def test_a_graph_that_asks_for_more_memory_than_there_is_is_refused() -> None:
    assert harmless(judged(sorted(SLOW))) == set()


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_a_sealed_manifest_of_any_value_is_refused_or_makes_no_difference(part: int) -> None:
    harmless(judged(VALUES[part::4]))


@pytest.mark.parametrize("artifact", ["load", pytest.param("demand", marks=pytest.mark.slow)])
def test_a_file_cut_anywhere_is_refused(artifact: str) -> None:
    found = judged(cuts(artifact))
    # A configuration is not read, and cut to nothing it is one too; what is sealed says so itself.
    assert {case for case in harmless(found) if not re.fullmatch(r".*:config.pbtxt:\d+:sealed", case)} == set()


@pytest.mark.parametrize(
    ("artifact", "seed", "count"),
    [
        ("load", 1, 120),
        ("demand", 2, 120),
        pytest.param("requests", 3, 1000, marks=pytest.mark.slow),
        pytest.param("load", 4, 1000, marks=pytest.mark.slow),
    ],
)
def test_a_flipped_bit_is_found_or_makes_no_difference(artifact: str, seed: int, count: int) -> None:
    found = judged(flips(artifact, seed=seed, count=count))
    unsealed = {case for case in harmless(found) if not case.endswith(":sealed")}
    # A space of a manifest may become another blank: the hash is of what it says.
    assert {case for case in unsealed if ":manifest.json:" not in case} == set()


def test_an_artifact_that_changes_while_it_is_read_is_refused_or_read_as_one() -> None:
    for verdict in judged(hostile_swaps.CASES).values():
        assert verdict["open"] or verdict["predict"] is None or "another shape" in verdict["predict"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("graph: a loop of 2^40 rounds", "model.onnx: expected operators that run once, found Loop; "),
        ("graph: a scan over 2^26 steps", "model.onnx: expected operators that run once, found Scan; "),
        ("graph: a loop in a branch", "model.onnx: expected operators that run once, found Loop; "),
        ("graph: functions that double 40 times", "model.onnx: expected a graph of operators alone, found functions"),
        ("graph: weights outside, function", "model.onnx: expected all weights inside the file, found a tensor with"),
        ("graph: an axis whose name is not UTF-8", "model.onnx: expected the names of the inputs in UTF-8"),
        ("graph: an output twice", "model.onnx: expected the outputs forecast, got forecast, forecast"),
        ("graph: a failure when run", r"model.onnx: expected a graph that runs, got .*ONNXRuntimeError"),
        ("graph: weights of nan", "golden.npz: expected 'forecast' to hold finite numbers from 0"),
        ("golden: a context of -1.0", "golden.npz: expected 'context' to hold finite numbers from 0"),
        ("golden: 300,000 members", "golden.npz: expected a zip's directory of at most 4096 bytes, got 13800000"),
        ("golden: 300,000 members behind zip64", "golden.npz: expected a zip's directory .* got one of 64 bits"),
        ("golden: packed with LZMA", "golden.npz: expected members that are stored or deflated"),
        ("golden: objects", r"golden.npz: expected 'context' as float32 .* got '\|O'"),
        ("golden: endless minuses", "golden.npz: expected 'context' as an .npy array of plain numbers"),
        (
            "manifest: nested 900 deep and sealed",
            "manifest.json: expected JSON, got lists or objects more than 64 deep",
        ),
        ("manifest: 40,000 files", "manifest.json: expected 'files' to be at most 64 files of 2147483648 bytes"),
        ("manifest: steps of 10^14 bins", "manifest.json: expected 'step_s' to be such that the forecast spans"),
        ("manifest: name is an escape", r"manifest.json: expected 'name' to be .* printable characters, got '\\x1b"),
        ("manifest: a file of 1099511627776 bytes", "manifest.json: expected 'files' to be at most 64 files"),
        ("unlisted: a line end and an escape", r"'a\\n\\x1b\[2Jb': expected the files of the manifest alone"),
        ("parity.json: NaN", "parity.json: expected JSON, got the number NaN"),
        ("parity.json: in UTF-16", "parity.json: expected JSON, got 'utf-8' codec"),
        ("golden.npz: a named pipe", "golden.npz: expected a plain file"),
        ("version: a link to itself", "expected an artifact's folder, found nothing there"),
    ],
)
def test_a_refusal_says_what_was_expected_and_found(case: str, said: str, refusals: dict[str, str]) -> None:
    assert re.search(said, refusals[case])


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    marks = test_a_refusal_says_what_was_expected_and_found.pytestmark  # type: ignore[attr-defined]
    return {case: str(v["verify"]) for case, v in judged([case for case, _ in marks[0].args[1]]).items()}


def test_a_model_that_gives_no_numbers_is_named_once_and_the_fallback_forecasts(
    copied: Callable[[str], Path],
) -> None:
    folder = copied("counts")
    replace_file(folder, "model.onnx", hostile_graphs.filled(np.nan))
    predictor = Predictor(folder, device="cpu")
    for i in range(10):
        predictor.observe_bin(10.0 * i, 3)
    with pytest.warns(RuntimeWarning, match="model.onnx: the model gave numbers that are negative, not finite"):
        forecast = predictor.forecast()
    assert forecast.source.startswith("fallback:")
    assert np.isfinite(forecast.values).all()
    # `predict` gives what the model says, as its documentation has it.
    assert np.isnan(predictor.predict(np.ones((4, 1), np.float32))).all()


@pytest.mark.parametrize(
    ("case", "signal"),
    [("control: crash", "SIGABRT"), pytest.param("control: hang", "SIGPROF", marks=pytest.mark.slow)],
)
def test_a_case_that_ends_its_process_is_named(case: str, signal: str) -> None:
    last = "graph: the handmade one as it is"
    ended, after = judge_all([case, last])
    assert ended == {"case": case, "bug": f"the process ended with {signal}"}
    assert (after["case"], after["verify"]) == (last, None)


def test_the_watch_sees_what_is_opened(tmp_path: Path) -> None:
    (tmp_path / "canary").write_bytes(b"x")
    with watching(tmp_path) as opened:
        assert not opened()
        (tmp_path / "canary").read_bytes()
        assert opened()


def test_the_corpus_has_what_it_promises() -> None:
    assert len(cuts("load")) == 5 * 16 * 2
    assert len(flips("load", seed=1, count=120)) + len(flips("demand", seed=2, count=120)) >= 200
    assert {case.split(":")[2] for case in flips("load", seed=1, count=120)} == {
        *(path.name for path in (ARTIFACTS / "load/1").iterdir()),
        "config.pbtxt",
    }
