"""A tuned baseline as a graph forecasts what the baseline itself does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.test_baselines import LEVELS, _series, _traffic
from training import kalman
from training.baseline_model import BaselineModel, PointBaseline, RecentQuantiles
from training.baseline_weights import to_model, window_steps
from training.baselines import NAMES, BaselineForecast, run_baselines
from training.series import Series

HORIZON, STEPS = 4, 2600
VALIDATION, TEST = np.arange(2100, 2350, 7), np.arange(2400, 2590, 9)
POINT = [name for name in NAMES if name != "recent_quantiles"]
KINDS = [("load", name) for name in POINT] + [("requests", "recent_quantiles")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda found: found[1])
def tuned(request: pytest.FixtureRequest) -> tuple[Series, BaselineForecast, BaselineModel]:
    """A series, a baseline tuned on it and that baseline's graph."""
    kind, name = request.param
    values = _traffic(STEPS, channels=2)
    values[::11] = 0.0
    series = _series(values, kind=kind, bin_s=3600.0, cut=10)
    (found,) = run_baselines(
        series, context=20, horizon=HORIZON, levels=LEVELS, validation=VALIDATION, test=TEST, only=(name,)
    )
    return series, found, _model(found)


def _model(found: BaselineForecast, *, steps: int | None = None, ratio: int = 1) -> BaselineModel:
    steps = window_steps(found.name, found.chosen, HORIZON) if steps is None else steps
    return to_model(found, horizon=HORIZON, levels=LEVELS, steps=steps, ratio=ratio)


def _windows(series: Series, found: BaselineForecast, origins: np.ndarray) -> torch.Tensor:
    steps = window_steps(found.name, found.chosen, HORIZON)
    return torch.from_numpy(series.values[origins[:, None] + np.arange(-steps, 0)])


def test_the_graph_forecasts_what_the_baseline_does(tuned: tuple[Series, BaselineForecast, BaselineModel]) -> None:
    series, found, model = tuned
    endless = found.name in ("exponential_smoothing", "damped_holt", "kalman", "kalman_log1p")
    scale = series.values.mean(axis=0)[:, None]
    for origins, expected in ((VALIDATION, found.validation), (TEST, found.test)):
        forecast = model(_windows(series, found, origins)).numpy()
        off = np.abs(forecast - expected) / np.maximum(expected, scale)
        assert off.max() < (2e-3 if endless else 1e-5)  # what lies before the window weighs less than 1e-4 in all


def test_the_graph_gives_ordered_finite_quantiles(tuned: tuple[Series, BaselineForecast, BaselineModel]) -> None:
    series, found, model = tuned
    context = _windows(series, found, TEST)
    extreme = torch.cat((context, context * 0, torch.full_like(context[:1], 3.4e38), context[:1].flip(1) * 1e30))
    forecast = model(extreme)
    assert forecast.shape == (len(extreme), HORIZON, 2, len(LEVELS))
    assert forecast.dtype == torch.float32
    assert torch.isfinite(forecast).all()
    assert (forecast >= 0).all()
    assert (forecast.diff(dim=-1) >= 0).all()


def test_a_row_of_a_batch_equals_a_batch_of_one(tuned: tuple[Series, BaselineForecast, BaselineModel]) -> None:
    series, found, model = tuned
    context = _windows(series, found, TEST)
    torch.testing.assert_close(model(context[3:4])[0], model(context)[3], rtol=1e-5, atol=1e-3)


def test_the_graph_needs_no_clock_and_trains_nothing(tuned: tuple[Series, BaselineForecast, BaselineModel]) -> None:
    model = tuned[2]
    assert not model.takes_time
    assert list(model.parameters()) == []
    assert model.state_dict()


@pytest.mark.parametrize("name", ["exponential_smoothing", "damped_holt", "mean_of_last"])
def test_a_window_that_is_too_short_forecasts_as_a_segment_that_begins_with_it(name: str) -> None:
    values = np.round(_traffic(STEPS, channels=1))
    series = _series(values, kind="load", cut=10)
    options = {"context": 2, "horizon": HORIZON, "levels": LEVELS, "only": (name,)}
    (found,) = run_baselines(series, **options, validation=VALIDATION, test=TEST)
    origin = TEST[:1]
    assert window_steps(name, found.chosen, HORIZON) > 3
    young = replace(series, segment=(np.arange(STEPS) >= origin[0] - 3).astype(np.int32))
    (cut,) = run_baselines(young, **options, validation=VALIDATION, test=origin)
    assert cut.chosen == found.chosen
    model = to_model(cut, horizon=HORIZON, levels=LEVELS, steps=3)
    context = torch.from_numpy(series.values[origin[0] - 3 : origin[0]])[None]
    np.testing.assert_allclose(model(context).numpy(), cut.test, rtol=1e-5)


def test_fine_bins_are_summed_to_the_steps_that_were_tuned() -> None:
    series = _series(_traffic(STEPS), kind="load", cut=10)
    (found,) = run_baselines(
        series, context=20, horizon=HORIZON, levels=LEVELS, validation=VALIDATION, test=TEST, only=("kalman_log1p",)
    )
    wide = _windows(series, found, TEST)
    fine = torch.repeat_interleave(wide / 3, 3, dim=1)
    torch.testing.assert_close(_model(found, ratio=3)(fine), _model(found)(wide), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("history", [2, 4, 5, 60])
def test_kalman_weights_equal_the_filter_started_at_the_window(history: int) -> None:
    values = np.random.default_rng(3).uniform(1.0, 50.0, history)
    level, trend = kalman.filter_states(values, np.array([0]), log1p=False)
    weights = kalman.state_weights(history)
    np.testing.assert_allclose(values @ weights, [level[-1], trend[-1]], rtol=1e-9, atol=1e-9)


def test_weights_of_a_point_add_up_to_one_so_that_a_constant_stays_itself() -> None:
    values = np.full((STEPS, 1), 7.0)
    found = run_baselines(
        _series(values, kind="load", cut=10),
        context=20,
        horizon=HORIZON,
        levels=LEVELS,
        validation=VALIDATION,
        test=TEST,
    )
    assert [baseline.name for baseline in found] == POINT
    for baseline in found:
        model = _model(baseline)
        assert isinstance(model, PointBaseline)
        np.testing.assert_allclose(model.weights.sum(1).numpy(), 1.0, rtol=1e-5, err_msg=baseline.name)


def test_recent_quantiles_are_those_of_numpy_with_a_count_per_channel() -> None:
    context = np.random.default_rng(0).gamma(2.0, 3.0, (5, 40, 2)).astype(np.float32)
    forecast = RecentQuantiles(counts=[40, 7], horizon=3, levels=LEVELS)(torch.from_numpy(context)).numpy()
    for c, count in enumerate((40, 7)):
        expected = np.quantile(context[:, -count:, c].astype(np.float64), LEVELS, axis=1).T
        for step in range(3):
            np.testing.assert_allclose(forecast[:, step, c], expected, rtol=1e-6)
