"""Forecast steps of several context bins: the stream counts in bins, the forecast in steps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.cli_predict import main
from tests.runtime.conftest import ARTIFACTS, cli_runner

BIN_S, STEP_S, L, H = 10.0, 30.0, 10, 4
ROWS = np.random.default_rng(5).integers(0, 90, (40, 3)).astype(np.float32)


def served(p: Predictor, last: int) -> dict[str, np.ndarray]:
    """What the graph gives for the bins up to `last`."""
    return p.predict_outputs(ROWS[last - L + 1 : last + 1])


def test_each_finished_bin_moves_the_forecast_by_a_bin_not_by_a_step(demand: Predictor) -> None:
    for i, row in enumerate(ROWS):
        demand.observe_bin(1000.0 + i * BIN_S, *row)
        forecast = demand.forecast()
        assert forecast.start_s == 1000.0 + (i + 1) * BIN_S
        assert forecast.step_s == STEP_S
        assert (forecast.source == "model") == (i >= L - 1)
        if i >= L - 1:
            found = served(demand, i)
            np.testing.assert_array_equal(forecast.values, found["forecast"])
            np.testing.assert_array_equal(forecast.aggregates, found["demand"])


def test_single_requests_fill_the_bins_of_the_context(demand: Predictor) -> None:
    rng = np.random.default_rng(6)
    time_s = 503.0 + np.cumsum(rng.exponential(2.0, 200))
    for t in time_s:
        demand.observe(t, 7, 3)
    last = int(time_s[-1] // BIN_S)
    counts = np.bincount((time_s // BIN_S).astype(int), minlength=last + 1)[last - L : last]
    forecast = demand.forecast()
    assert forecast.start_s == last * BIN_S
    rows = (counts[:, None] * np.array([1, 7, 3])).astype(np.float32)
    np.testing.assert_array_equal(forecast.values, demand.predict(rows))


def test_time_that_passes_finishes_bins_one_by_one(demand: Predictor) -> None:
    for i in range(L + 1):
        demand.observe(i * BIN_S, 5, 5)
    standing = demand.forecast(now_s=(L + 1) * BIN_S)
    assert (standing.source, standing.start_s) == ("model", (L + 1) * BIN_S)
    assert demand.forecast(now_s=(L + 2) * BIN_S - 0.01) is standing
    later = demand.forecast(now_s=(L + 2) * BIN_S)
    assert later.start_s == (L + 2) * BIN_S
    rows = np.array([[1, 5, 5]] * (L - 1) + [[0, 0, 0]], np.float32)
    np.testing.assert_array_equal(later.values, demand.predict(rows))


def test_lead_times_count_in_steps(demand: Predictor) -> None:
    for i, row in enumerate(ROWS):
        demand.observe_bin(i * BIN_S, *row)
    forecast, found = demand.forecast(), served(demand, len(ROWS) - 1)["demand"]
    np.testing.assert_allclose(forecast.demand(STEP_S, level=0.9), found[0, :3, 4], rtol=1e-6)
    np.testing.assert_allclose(forecast.demand(BIN_S, level=0.9), found[0, :3, 4] / 3, rtol=1e-6)
    np.testing.assert_allclose(forecast.demand(H * STEP_S, level=0.5), found[-1, :3, 2], rtol=1e-6)
    np.testing.assert_allclose(forecast.peak(BIN_S), found[0, 3:, 4], rtol=1e-6)
    with pytest.raises(InputError, match=r"lead_time_s: expected 0 to 120 \(4 steps of 30 s\), got 121"):
        forecast.demand(121)


def test_both_fallbacks_are_per_step_and_have_no_aggregates(demand: Predictor) -> None:
    prior = 3 * np.array(demand.manifest["prior"])
    np.testing.assert_allclose(demand.forecast().values, np.broadcast_to(prior, (H, 3, 7)), rtol=1e-6)
    for i, row in enumerate(ROWS[:9]):
        demand.observe_bin(i * BIN_S, *row)
    forecast = demand.forecast()
    assert (forecast.source, forecast.aggregates, forecast.start_s) == ("fallback:empirical", None, 90.0)
    np.testing.assert_allclose(forecast.at(0.5)[0], 3 * np.median(ROWS[:9], axis=0), rtol=1e-6)
    np.testing.assert_allclose(forecast.demand(45, level=0.5), 1.5 * forecast.at(0.5)[0], rtol=1e-6)
    np.testing.assert_allclose(forecast.peak(45, level=0.5), forecast.at(0.5)[0], rtol=1e-6)


def test_the_pipe_writes_steps_and_aggregates() -> None:
    lines = "time_s,requests,request_tokens,response_tokens\n"
    lines += "".join(f"{i * BIN_S},{a},{b},{c}\n" for i, (a, b, c) in enumerate(ROWS[:12].tolist()))
    done = cli_runner().invoke(main, [str(ARTIFACTS / "demand"), "--device", "cpu"], input=lines)
    assert done.exit_code == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["time_s"], line["start_s"], line["step_s"]) for line in found[-2:]] == [
        (100, 110, 30),
        (110, 120, 30),
    ]
    assert np.shape(found[-1]["aggregates"]) == (H, 6, 7)
    assert "aggregates" not in found[0]  # a fallback has none
