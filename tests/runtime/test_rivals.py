"""The two forecasts that a model is measured against: right by hand."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.rivals import Rivals

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def rivals(*, horizon: int = 4, ratio: int = 1, context: int = 30) -> Rivals:
    return Rivals(horizon=horizon, ratio=ratio, context=context, levels=LEVELS)


def window(context: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(3).gamma(2.0, 40.0, (context, channels)).astype(np.float32)


def test_recent_quantiles_are_those_of_the_window() -> None:
    rows = window()
    expected = np.quantile(rows.astype(np.float64), LEVELS, axis=0).T.astype(np.float32)
    found = rivals().forecast(0, rows)
    assert (found.shape, found.dtype) == ((4, 3, 7), np.float32)
    np.testing.assert_allclose(found, np.tile(expected, (4, 1, 1)), rtol=1e-6)


def test_the_last_value_moves_as_the_window_did_over_as_many_steps() -> None:
    rows = window().astype(np.float64)
    found = rivals().forecast(1, rows.astype(np.float32))
    for h, lag in ((0, 1), (3, 4)):
        moves = np.quantile(rows[lag:] - rows[:-lag], LEVELS, axis=0).T
        np.testing.assert_allclose(found[h], np.maximum(rows[-1][:, None] + moves, 0), rtol=1e-5, atol=1e-4)
    spread = found[:, 0, -1] - found[:, 0, 2]
    assert min(spread[0], spread[3]) <= spread[1] <= max(spread[0], spread[3])


def test_a_coarse_step_is_compared_with_every_run_of_its_bins() -> None:
    rows = window(context=30, channels=1)
    sums = np.convolve(rows[:, 0].astype(np.float64), np.ones(6), "valid")
    found = rivals(ratio=6, horizon=2).forecast(0, rows)
    np.testing.assert_allclose(found[1, 0], np.quantile(sums, LEVELS), rtol=1e-5)


def test_a_window_too_short_for_runs_counts_a_bin_times_their_number() -> None:
    rows = window(context=4, channels=1)
    found = rivals(ratio=6, horizon=2, context=4).forecast(0, rows)
    np.testing.assert_allclose(found[0, 0], 6 * np.quantile(rows[:, 0].astype(np.float64), LEVELS), rtol=1e-5)


@pytest.mark.parametrize("rival", [0, 1])
def test_constant_in_constant_out(rival: int) -> None:
    found = rivals().forecast(rival, np.full((30, 2), 7.0, np.float32))
    assert (found == 7.0).all()
