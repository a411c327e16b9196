"""The adaptive layer on plain arrays: what it promises of coverage, and what it must never do."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from runtime import InputError
from runtime.adaptive import AdaptiveQuantiles

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
SCORES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
MAX = np.finfo(np.float32).max


def layer(horizon: int = 3, channels: int = 1, ratio: int = 1) -> AdaptiveQuantiles:
    return AdaptiveQuantiles(LEVELS, horizon=horizon, channels=channels, ratio=ratio)


def normal(mean: float = 100.0, sd: float = 10.0, *, horizon: int = 3, channels: int = 1) -> np.ndarray:
    """(H, C, Q) quantiles of one normal distribution."""
    return np.tile((mean + sd * SCORES).astype(np.float32), (horizon, channels, 1))


def rolled(adaptive: AdaptiveQuantiles, forecasts: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """A forecast before each row: (n, H, C, Q)."""
    out = []
    for forecast, row in zip(forecasts, rows, strict=True):
        out.append(adaptive.adjust(forecast))
        adaptive.learn(row)
    return np.stack(out)


def pinball(quantiles: np.ndarray, rows: np.ndarray) -> float:
    short = rows[:, None] - quantiles
    return float(np.maximum(short * LEVELS, short * (np.array(LEVELS) - 1)).mean())


def test_nothing_learnt_changes_nothing() -> None:
    adaptive = layer()
    for _ in range(3):
        np.testing.assert_array_equal(adaptive.adjust(normal()), normal())
    adaptive.clear()
    for _ in range(9):
        adaptive.learn([1e6])  # no forecast waits for these
    np.testing.assert_array_equal(adaptive.adjust(normal()), normal())


@pytest.mark.parametrize("change", ["spread", "level"])
def test_coverage_is_kept_when_traffic_drifts_from_what_the_model_says(change: str) -> None:
    rng = np.random.default_rng(0)
    n, window = 6000, 360
    drift = np.sin(np.arange(n) / 500.0)
    rows = (
        100 + 10 * rng.normal(size=n) * (1.5 + drift) if change == "spread" else 100 + 10 * (rng.normal(size=n) + drift)
    )
    found = rolled(layer(), [normal()] * n, rows[:, None])[:, 0, 0]
    plain, adapted = rows <= normal()[0, 0, 4], rows <= found[:, 4]
    windows = [np.convolve(hits, np.ones(window) / window, "valid") - 0.9 for hits in (plain, adapted)]
    assert np.abs(windows[0]).max() > 0.15
    assert np.abs(windows[1]).max() < 0.03
    coverage = (rows[:, None] <= found).mean(axis=0)
    np.testing.assert_allclose(coverage, LEVELS, atol=0.012)
    assert pinball(found, rows) < 0.99 * pinball(normal()[0], rows)


def test_a_right_forecast_stays_nearly_as_good() -> None:
    rng = np.random.default_rng(1)
    rows = 100 + 10 * rng.normal(size=4000)
    found = rolled(layer(), [normal()] * 4000, rows[:, None])[:, 0, 0]
    assert pinball(found, rows) < 1.05 * pinball(normal()[0], rows)


def test_a_step_is_judged_when_it_is_over_and_not_before() -> None:
    adaptive = layer(horizon=2, ratio=3)
    adaptive.adjust(normal(horizon=2))
    for _ in range(2):
        adaptive.learn([100.0])
        np.testing.assert_array_equal(adaptive.adjust(normal(horizon=2), late=99), normal(horizon=2))
    adaptive.learn([100.0])  # 300 in the first step, where 123 was the most expected
    first = adaptive.adjust(normal(horizon=2), late=99)
    assert (first > normal(horizon=2)).all()
    assert (first[0] > first[1]).all()  # the second step has not been judged itself yet
    for _ in range(2):
        adaptive.learn([100.0])
        np.testing.assert_array_equal(adaptive.adjust(normal(horizon=2), late=99), first)
    adaptive.learn([100.0])
    assert (adaptive.adjust(normal(horizon=2), late=99)[1] > first[1]).all()


def test_a_step_of_several_bins_is_judged_by_their_sum() -> None:
    high, right = layer(ratio=4), layer(ratio=4)
    for _ in range(400):
        high.adjust(normal())
        high.learn([30.0])  # 120: between the levels 0.95 and 0.99
        right.adjust(normal())
        right.learn([25.0])
    assert high.adjust(normal())[0, 0, 4] > 115
    assert right.adjust(normal())[0, 0, 4] < 113


def test_forecasts_made_now_and_then_are_judged_alone() -> None:
    often, seldom = layer(horizon=2), layer(horizon=2)
    rows = 100 + 25 * np.random.default_rng(2).normal(size=900)
    for i, row in enumerate(rows):
        often.adjust(normal(horizon=2))
        if i % 5 == 0:
            seldom.adjust(normal(horizon=2))
        often.learn([row])
        seldom.learn([row])
    wide = [adaptive.adjust(normal(horizon=2))[0, 0, 4] for adaptive in (often, seldom)]
    assert min(wide) > 118
    assert wide[0] != wide[1]


def test_what_was_over_when_a_forecast_came_is_not_judged() -> None:
    adaptive = layer(horizon=2)
    adaptive.learn([0.0])
    adaptive.adjust(normal(horizon=2), late=1)
    adaptive.learn([1e6])  # ends its second step; the first was over
    found = adaptive.adjust(normal(horizon=2), late=9)
    assert (found[1] > found[0]).all()
    adaptive.learn([1e6])
    np.testing.assert_array_equal(adaptive.adjust(normal(horizon=2), late=9), found)


def test_of_two_forecasts_from_one_step_the_first_is_judged() -> None:
    twice, once = layer(), layer()
    for adaptive in (twice, once):
        adaptive.adjust(normal())
    twice.adjust(normal(mean=1e6))
    for adaptive in (twice, once):
        adaptive.learn([150.0])
    np.testing.assert_array_equal(twice.adjust(normal()), once.adjust(normal()))


def test_a_gap_forgets_what_waits_and_keeps_what_was_learnt() -> None:
    adaptive = layer()
    rolled(adaptive, [normal()] * 50, np.full((50, 1), 130.0))
    learnt = adaptive.adjust(normal(), late=9)
    assert (learnt > normal()).all()
    adaptive.clear()
    for row in (0.0, 0.0, 0.0):
        adaptive.learn([row])
    np.testing.assert_array_equal(adaptive.adjust(normal(), late=9), learnt)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_forecasts_stay_ordered_finite_and_not_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    adaptive = layer(channels=2, ratio=1 + seed % 3)
    for _ in range(600):
        scale = 10.0 ** rng.choice([-30, 0, 3, 38])
        values = np.sort(np.clip(scale * rng.normal(0.5, 1.0, (3, 2, 7)), 0, MAX), axis=-1).astype(np.float32)
        found = adaptive.adjust(values * rng.integers(0, 2), late=int(rng.integers(0, 4)))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (np.diff(found, axis=-1) >= 0).all()
        adaptive.learn(rng.choice([0.0, 1.0, 1e5, MAX], 2))
        if rng.random() < 0.02:
            adaptive.clear()


def test_scaling_the_traffic_scales_the_forecasts() -> None:
    rows = np.random.default_rng(3).gamma(2.0, 50.0, (300, 1))
    small = rolled(layer(), [normal()] * 300, rows)
    large = rolled(layer(), [normal() * np.float32(1024)] * 300, rows * 1024)
    np.testing.assert_array_equal(large, small * np.float32(1024))


def test_channels_do_not_learn_from_each_other() -> None:
    rows = np.random.default_rng(4).gamma(2.0, 50.0, (300, 2))
    both = rolled(layer(channels=2), [normal(channels=2)] * 300, rows)
    for c in range(2):
        np.testing.assert_array_equal(both[:, :, c : c + 1], rolled(layer(), [normal()] * 300, rows[:, c : c + 1]))


def test_the_same_stream_gives_the_same_forecasts() -> None:
    rows = np.random.default_rng(5).gamma(2.0, 50.0, (200, 1))
    np.testing.assert_array_equal(rolled(layer(), [normal()] * 200, rows), rolled(layer(), [normal()] * 200, rows))


def test_a_forecast_that_comes_in_is_left_as_it_was() -> None:
    adaptive, values = layer(), normal()
    values.setflags(write=False)
    rolled(adaptive, [values] * 20, np.full((20, 1), 500.0))
    np.testing.assert_array_equal(values, normal())


def test_quiet_nights_do_not_pull_the_levels_down() -> None:
    adaptive = layer()
    quiet = np.zeros((3, 1, 7), np.float32)
    rolled(adaptive, [normal()] * 3 + [quiet] * 5000, np.concatenate([np.full((3, 1), 100.0), np.zeros((5000, 1))]))
    assert adaptive.adjust(normal())[0, 0, 4] > 105


def test_a_forecast_of_nothing_can_rise() -> None:
    adaptive = layer()
    quiet = np.zeros((3, 1, 7), np.float32)
    found = rolled(adaptive, [normal()] * 3 + [quiet] * 60, np.full((63, 1), 200.0))
    assert found[-1, 0, 0, 4] > 0


def test_a_single_level_is_enough() -> None:
    adaptive = AdaptiveQuantiles([0.9], horizon=1, channels=1)
    rows = np.random.default_rng(6).exponential(100.0, 3000)
    found = rolled(adaptive, [np.full((1, 1, 1), 100, np.float32)] * 3000, rows[:, None])[:, 0, 0, 0]
    assert (rows <= found)[500:].mean() == pytest.approx(0.9, abs=0.01)


def test_so_many_waiting_forecasts_that_memory_ends_are_refused() -> None:
    with pytest.raises(InputError, match=r"adapt: expected at most \d+ quantiles waiting .* leave adapt off"):
        AdaptiveQuantiles(LEVELS, horizon=3600, channels=3, ratio=60)
