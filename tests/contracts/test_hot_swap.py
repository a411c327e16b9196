"""The benchmark of swaps counts what it says, and loses no forecast on the tiny artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hot_swap import measure, two_versions

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"


@pytest.mark.parametrize("name", ["requests", "demand"])
def test_no_forecast_is_lost_while_versions_are_swapped(tmp_path: Path, name: str) -> None:
    found = measure(two_versions(ARTIFACTS / name, tmp_path), swaps=5, rounds=2)
    assert (found["swaps"], found["lost"]) == (6, 0)
    assert found["settings"].keys() == {"alone", "hashing", "bare sessions", "swaps"}
    for row in found["settings"].values():
        assert row["median"] <= row["p99"] <= row["worst"]
        assert 0 < row["latest"] <= row["worst"]
