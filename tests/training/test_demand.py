"""Sums and peaks up to the lead time: composing quantiles is right only when all steps miss together."""

from __future__ import annotations

import numpy as np
import pytest

from training.demand import demand_score

LEVELS = (0.1, 0.5, 0.9)
RNG = np.random.default_rng(0)
N, H = 4000, 5


def quantiles_of(draws):
    """(n, ...) draws to their own quantiles, the same for every origin: (n, ..., Q)."""
    found = np.moveaxis(np.quantile(draws, LEVELS, axis=0), 0, -1)
    return np.broadcast_to(found, (len(draws), *found.shape)).astype(np.float32)


def judged(target, direct=None, step=H - 1):
    return demand_score(direct, quantiles_of(target), target, step=step, levels=LEVELS, channels=("requests",))


def test_composing_covers_too_much_where_the_steps_miss_independently():
    target = RNG.gamma(4.0, 10.0, (N, H, 1))
    sums = np.concatenate([target.cumsum(axis=1), np.maximum.accumulate(target, axis=1)], axis=2)
    found = judged(target, quantiles_of(sums))["sum"]["requests"]
    assert found["direct"]["coverage"] == pytest.approx(LEVELS, abs=0.01)
    assert found["composed"]["coverage"][2] > 0.97
    assert found["direct"]["wql"] < found["composed"]["wql"]


def test_composing_is_exact_where_all_steps_miss_together():
    target = np.repeat(RNG.gamma(4.0, 10.0, (N, 1, 1)), H, axis=1)
    found = judged(target)
    for quantity in ("sum", "peak"):
        assert found[quantity]["requests"]["composed"]["coverage"] == pytest.approx(LEVELS, abs=0.01)
        assert found[quantity]["requests"]["direct"] is None


def test_of_one_step_sum_and_peak_are_the_step():
    target = RNG.gamma(4.0, 10.0, (N, H, 1))
    direct = np.repeat(quantiles_of(target), 2, axis=2)
    found = judged(target, direct, step=0)
    assert found["sum"] == found["peak"]
    assert found["sum"]["requests"]["direct"] == found["sum"]["requests"]["composed"]
