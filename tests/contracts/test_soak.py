"""The soak benchmark goes through all that it says, and finds nothing on the tiny artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hot_swap import two_versions
from benchmarks.soak import BURST, soak

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"


@pytest.mark.parametrize("name", ["requests", "load", "demand"])
def test_a_life_with_swaps_snapshots_and_faults_loses_nothing(tmp_path: Path, name: str) -> None:
    found = soak(two_versions(ARTIFACTS / name, tmp_path), turns=40, streams=20)
    assert {key: found[key] for key in ("lost", "wrong", "restored otherwise", "raised")} == dict.fromkeys(
        ("lost", "wrong", "restored otherwise", "raised"), 0
    )
    assert found["observations"] == 40 * 21 * BURST
    assert (found["refused"], found["gaps"], found["snapshots"], found["bad versions"]) == (40 * 3 * 5, 40, 4, 1)
    assert found["swaps"] >= 1
    assert found["compared"] > 0
    assert found["sources"]["model"] > 300
    assert found["rss"]["most_mb"] >= found["rss"]["first_mb"] > 0
