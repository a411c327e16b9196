"""Intervals: as wide as the theory says, paired, wider where neighbours are alike, and silent on too little data."""

from __future__ import annotations

import numpy as np
import pytest

from training.bootstrap import Blocks, block_length, compare, draw_blocks, paired_loss, resampled_means


def test_equal_losses_have_no_clear_difference():
    loss = np.random.default_rng(0).exponential(1.0, 500)
    found = paired_loss(loss, loss, draw_blocks(500, 10))
    assert (found["difference"], found["low"], found["high"]) == (0.0, 0.0, 0.0)
    assert found["verdict"] == "no clear difference"


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "better"), (1.1, "worse")])
def test_a_steady_difference_is_clear_even_where_the_losses_vary_much(factor, verdict):
    reference = np.random.default_rng(0).lognormal(0.0, 2.0, 500)
    found = paired_loss(factor * reference, reference, draw_blocks(500, 10))
    assert found["difference"] == pytest.approx(factor - 1.0)
    assert found["low"] == pytest.approx(factor - 1.0)
    assert found["verdict"] == verdict


def test_single_origins_give_the_interval_of_the_central_limit():
    n = 2000
    values = np.random.default_rng(1).normal(0.0, 3.0, n)
    means = resampled_means(values, draw_blocks(n, 1))
    assert means.std() == pytest.approx(values.std() / np.sqrt(n), rel=0.08)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


def test_blocks_widen_the_interval_where_neighbours_are_alike():
    steps = np.random.default_rng(2).normal(0.0, 1.0, 4000)
    alike = np.convolve(steps, np.ones(20) / 20, mode="same")
    single = resampled_means(alike, draw_blocks(len(alike), 1)).std()
    blocks = resampled_means(alike, draw_blocks(len(alike), 60)).std()
    assert blocks > 3.0 * single


def test_the_same_data_give_the_same_interval():
    loss, reference = np.random.default_rng(3).exponential(1.0, (2, 300))
    first, second = (paired_loss(loss, reference, draw_blocks(300, 10)) for _ in range(2))
    assert first == second


def test_too_few_blocks_give_no_interval_and_no_verdict():
    found = paired_loss(np.ones(40), np.full(40, 2.0), draw_blocks(40, 10))
    assert (found["difference"], found["low"], found["high"]) == (-0.5, None, None)
    assert found["verdict"] == "too few origins to tell"


def test_a_reference_without_loss_gives_no_ratio_but_a_verdict():
    blocks = draw_blocks(100, 5)
    worse, same = (paired_loss(np.full(100, loss), np.zeros(100), blocks) for loss in (1.0, 0.0))
    assert (worse["difference"], worse["verdict"]) == (None, "worse")
    assert (same["difference"], same["verdict"]) == (0.0, "no clear difference")


def test_infinite_replicates_count_as_worse_and_leave_the_bound_open():
    found = compare(None, np.array([0.5] * 10 + [np.inf] * 90))
    assert (found["low"], found["high"], found["verdict"]) == (0.5, None, "worse")


def test_blocks_lie_inside_the_data_and_make_up_all_origins():
    blocks = draw_blocks(103, 10)
    assert isinstance(blocks, Blocks)
    assert blocks.starts is not None
    assert blocks.starts.min() >= 0
    assert blocks.starts.max() <= 93
    assert blocks.starts.shape[1] == 11


@pytest.mark.parametrize(
    ("n", "apart", "step_s", "horizon", "expected"),
    [
        (1000, 1, 1.0, 30, 50),  # an hour would leave one block: a 20th of the data
        (1000, 1, 1.0, 80, 80),  # the horizon
        (8000, 1, 60.0, 5, 60),  # an hour
        (8000, 10, 60.0, 5, 20),  # n^(1/3); thinned origins are ten minutes apart
        (8000, 10, 600.0, 300, 30),  # the horizon in thinned origins
        (1, 1, 60.0, 10, 1),
    ],
)
def test_a_block_holds_a_horizon_and_an_hour_where_there_is_room(n, apart, step_s, horizon, expected):
    origins = np.arange(n) * apart
    assert block_length(origins, origins * step_s, horizon=horizon) == expected
