from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from training.errors import ConfigError
from training.metrics import (
    capacity_ratio,
    coverage,
    median,
    pinball,
    planner_loss,
    scores,
    wape,
    wql,
    wql_steps,
)

LEVELS = (0.1, 0.5, 0.9)
LOAD = ("requests", "request_tokens", "response_tokens")


def _target(n: int = 50, horizon: int = 3, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.gamma(2.0, 10.0, (n, horizon, channels)).astype(np.float32)


def _perfect(target: np.ndarray, levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    return np.repeat(target[..., None], len(levels), axis=-1)


def test_a_perfect_forecast_scores_zero_and_covers_everything() -> None:
    target = _target()
    forecast = _perfect(target)
    assert wql(forecast, target, LEVELS).tolist() == [0.0, 0.0]
    assert wape(forecast, target, LEVELS).tolist() == [0.0, 0.0]
    assert wql_steps(forecast, target, LEVELS).shape == (3, 2)
    assert (coverage(forecast, target, LEVELS) == 1.0).all()


def test_pinball_is_level_times_the_miss_above_and_its_complement_below() -> None:
    loss = pinball(np.array([[6.0, 6.0], [14.0, 14.0]]), np.array([10.0, 10.0]), [0.1, 0.9])
    np.testing.assert_allclose(loss, [[0.4, 3.6], [3.6, 0.4]])


@pytest.mark.parametrize(("shift", "expected"), [(2.0, 0.2), (-2.0, 0.2)])
def test_wql_of_a_constant_shift_is_the_shift_over_the_mean(shift: float, expected: float) -> None:
    # 2 * |shift| * mean(level or 1 - level) / 10, and the levels 0.1, 0.5, 0.9 average to 0.5.
    target = np.full((7, 4, 1), 10.0)
    np.testing.assert_allclose(wql(_perfect(target) + shift, target, LEVELS), expected)


def test_wql_of_one_level_is_asymmetric() -> None:
    target = np.full((5, 2, 1), 10.0)
    np.testing.assert_allclose(wql(_perfect(target, (0.9,)) - 1.0, target, (0.9,)), 2 * 0.9 / 10)
    np.testing.assert_allclose(wql(_perfect(target, (0.9,)) + 1.0, target, (0.9,)), 2 * 0.1 / 10)


def test_wql_does_not_depend_on_the_unit() -> None:
    target = _target()
    forecast = np.sort(np.random.default_rng(1).gamma(2.0, 10.0, (*target.shape, 3)), axis=-1)
    for metric in (wql, wape, coverage, wql_steps):
        np.testing.assert_allclose(
            metric(forecast * 1000, target * 1000.0, LEVELS), metric(forecast, target, LEVELS), rtol=1e-6
        )


def test_true_quantiles_of_an_exponential_are_covered_at_their_levels() -> None:
    target = np.random.default_rng(2).exponential(1.0, (20_000, 5, 1))
    true = -np.log(1.0 - np.array(LEVELS))
    forecast = np.broadcast_to(true, (*target.shape, 3))
    np.testing.assert_allclose(coverage(forecast, target, LEVELS)[0], LEVELS, atol=0.006)
    assert wql(forecast, target, LEVELS)[0] < wql(forecast * 1.1, target, LEVELS)[0]
    assert wql(forecast, target, LEVELS)[0] < wql(forecast * 0.9, target, LEVELS)[0]


def test_wape_judges_the_median() -> None:
    target = np.full((4, 2, 1), 10.0)
    forecast = np.broadcast_to([0.0, 9.0, 100.0], (4, 2, 1, 3))
    np.testing.assert_allclose(wape(forecast, target, LEVELS), 0.1)


def test_median_is_interpolated_between_levels_and_held_beyond_them() -> None:
    assert median(np.array([2.0, 4.0]), [0.25, 0.75]) == pytest.approx(3.0)
    assert median(np.array([2.0, 4.0]), [0.6, 0.75]) == 2.0
    assert median(np.array([2.0, 4.0]), [0.1, 0.2]) == 4.0
    assert median(np.array([2.0]), [0.9]) == 2.0


def test_a_silent_channel_scores_zero_for_zero_and_the_distance_otherwise() -> None:
    target = np.zeros((10, 2, 1))
    assert wql(np.zeros((10, 2, 1, 3)), target, LEVELS)[0] == 0.0
    np.testing.assert_allclose(wql(np.full((10, 2, 1, 3), 3.0), target, LEVELS), 3.0)
    np.testing.assert_allclose(wape(np.full((10, 2, 1, 3), 3.0), target, LEVELS), 3.0)


def test_planner_loss_is_the_formula_of_dynamo_by_hand() -> None:
    target = np.array([[[10.0, 1000.0, 200.0]], [[0.0, 0.0, 0.0]]])
    forecast = np.array([[[20.0, 1600.0, 200.0]], [[0.0, 0.0, 0.0]]])
    totals = 0.4 * abs(math.log(1601 / 1001)) + 0.0
    lengths = 0.1 * abs(math.log(81 / 101)) + 0.1 * abs(math.log(11 / 21))
    expected = (totals + lengths) / 2  # the second window is empty and forecast as empty
    assert planner_loss(_perfect(forecast), target, LEVELS, LOAD) == pytest.approx(expected)


def test_planner_loss_finds_its_channels_by_name() -> None:
    target = _target(channels=3)
    forecast = _perfect(target[::-1].copy())
    swapped = [2, 0, 1]
    names = [LOAD[i] for i in swapped]
    assert planner_loss(forecast[:, :, swapped], target[:, :, swapped], LEVELS, names) == pytest.approx(
        planner_loss(forecast, target, LEVELS, LOAD)
    )


def test_planner_loss_without_tokens_says_what_is_needed() -> None:
    target = _target(channels=1)
    with pytest.raises(ConfigError, match="expected the channels requests, request_tokens, response_tokens"):
        planner_loss(_perfect(target), target, LEVELS, ("requests",))


def test_capacity_ratio_of_a_perfect_forecast_is_one_and_ignores_its_scale() -> None:
    demand = _target()[:, 0, 0]
    assert capacity_ratio(demand, demand) == pytest.approx(1.0)
    assert capacity_ratio(demand * 7, demand) == pytest.approx(1.0)


def test_capacity_ratio_leaves_the_asked_share_of_bins_short() -> None:
    rng = np.random.default_rng(3)
    demand, point = rng.gamma(5.0, 2.0, 1000), np.full(1000, 4.0)
    ratio = capacity_ratio(point, demand, under=0.05)
    capacity = ratio * demand.sum() / point.sum() * point
    assert (demand > capacity * (1 + 1e-9)).mean() == pytest.approx(0.05, abs=0.001)


def test_capacity_ratio_is_infinite_when_demand_meets_a_forecast_of_zero() -> None:
    assert capacity_ratio(np.zeros(10), np.ones(10)) == math.inf
    assert capacity_ratio(np.zeros(10), np.zeros(10)) == 1.0


def test_scores_survive_json_and_name_every_channel() -> None:
    target = _target(channels=3)
    result = scores(_perfect(target) * 1.1, target, LEVELS, LOAD)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result) == {"n", "levels", "wql", "wape", "wql_steps", "coverage", "planner_loss", "capacity_ratio"}
    assert set(result["wql"]["channels"]) == set(LOAD)
    assert result["wql"]["mean"] == pytest.approx(np.mean(list(result["wql"]["channels"].values())))
    assert len(result["wql_steps"]["mean"]) == 3
    assert "planner_loss" not in scores(_perfect(target), target, LEVELS, ("a", "b", "c"))


@pytest.mark.parametrize("metric", [wql, wape, coverage, wql_steps])
def test_shapes_that_do_not_fit_are_refused(metric: Callable[..., np.ndarray]) -> None:
    with pytest.raises(ConfigError, match=r"expected a forecast \(n, H, C, 3\)"):
        metric(np.zeros((5, 3, 2, 2)), np.zeros((5, 3, 2)), LEVELS)
    with pytest.raises(ConfigError, match="score at least one window"):
        metric(np.zeros((0, 3, 2, 3)), np.zeros((0, 3, 2)), LEVELS)


def test_scores_want_a_name_for_every_channel() -> None:
    target = _target()
    with pytest.raises(ConfigError, match="expected 2 channel names, got 1"):
        scores(_perfect(target), target, LEVELS, ("requests",))


def test_scores_of_a_load_series_hold_the_capacity_needed_at_the_end_of_the_horizon() -> None:
    rng = np.random.default_rng(0)
    target = rng.poisson(50, (400, 3, 1)).astype(np.float32)
    forecast = np.repeat(np.full_like(target, 50.0)[..., None], len(LEVELS), axis=3)
    found = scores(forecast, target, LEVELS, ["requests"])["capacity_ratio"]
    assert found["0.01"] == pytest.approx(capacity_ratio(np.full(400, 50.0), target[:, -1, 0], under=0.01))
    assert found["0.01"] > found["0.05"] > 1.0
    assert scores(forecast * 0, target, LEVELS, ["requests"])["capacity_ratio"]["0.01"] is None
    assert "capacity_ratio" not in scores(forecast, target, LEVELS, ["inter_arrival_s"])
