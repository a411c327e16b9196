"""The benchmark of the noise floor: its judge finds the rate, does not read the step it judges, and loses the noise."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.noise_floor import by_lead, quantiles_in_hindsight, rate_from_both_sides
from training.metrics import quantile_loss

LEVELS = (0.1, 0.5, 0.9)
STEPS = np.arange(4000)
RATE = 500.0 * np.exp(np.sin(STEPS / 200.0))


def test_the_rate_of_a_smooth_series_is_the_series() -> None:
    rate = rate_from_both_sides(RATE, width=3.0)
    assert np.isnan(rate[:9]).all()
    assert np.isnan(rate[-9:]).all()
    np.testing.assert_allclose(np.expm1(rate[9:-9]), RATE[9:-9], rtol=1e-5)


def test_the_rate_of_a_step_does_not_hang_on_that_step() -> None:
    other = RATE.copy()
    other[2000] *= 5
    difference = rate_from_both_sides(other, width=3.0) - rate_from_both_sides(RATE, width=3.0)
    assert difference[2000] == 0
    assert difference[1999] > 0.1


def test_the_judge_loses_about_what_the_true_rate_loses() -> None:
    values = np.random.default_rng(0).poisson(RATE).astype(float)
    found = quantiles_in_hindsight(values, known=3000, width=8.0, levels=LEVELS)
    true = RATE[:, None] + np.sqrt(RATE)[:, None] * np.array([-1.2816, 0.0, 1.2816])
    judged = slice(3000, 3900)
    lost, least = (
        quantile_loss(q[judged, None, None], values[judged, None, None], LEVELS).mean() for q in (found, true)
    )
    assert lost == pytest.approx(least, rel=0.06)


def test_only_steps_with_a_floor_count_in_a_lead() -> None:
    loss, target = np.array([[1.0, 2.0], [3.0, 50.0]]), np.array([[10.0, 10.0], [10.0, 10.0]])
    counted = np.array([[True, True], [True, False]])
    np.testing.assert_allclose(by_lead(loss, target, counted), [0.2, 0.2])
