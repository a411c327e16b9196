"""The benchmark of the circuit breaker scores what it says it scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.breaker import SCENARIOS, came, scored

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"


def test_a_forecast_step_holds_the_bins_that_come_after() -> None:
    rows = np.arange(12.0).reshape(12, 1)
    found = came(rows, np.array([0, 3]), horizon=2, ratio=3)
    np.testing.assert_array_equal(found[..., 0], [[1 + 2 + 3, 4 + 5 + 6], [4 + 5 + 6, 7 + 8 + 9]])


@pytest.mark.parametrize("name", ["requests", "demand"])
def test_the_breaker_is_scored_beside_the_model_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    rows, times = rng.gamma(20.0, 40.0, (900, 3)), 10.0 * np.arange(900)
    kind = "load" if name == "demand" else "requests"
    scenario = next(one for one in SCENARIOS if one.name == "model 100x off")
    found = scored(scenario, ARTIFACTS / name, times, rows, kind)
    wql = found["wql"]
    assert wql["changed"]["model"] > 10 * wql["changed"]["breaker"]
    assert wql["while open"]["breaker"] == pytest.approx(wql["while open"]["recent_quantiles"])
    assert len(found["opened_after"]) == 1
    assert any("model wQL" in source for source in found["sources"])
