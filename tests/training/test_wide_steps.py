"""Forecast steps wider than the bins of the context: the same steps as the wide series that the baselines see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.traces import count_trace
from training.config import DataConfig
from training.errors import ConfigError, TraceError
from training.run import prepare, window_source
from training.series import build_series, widen


def data(*, bins: int = 900, start_s: float = 1.7e9 + 20, gap_at: int | None = None):
    counts = np.random.default_rng(0).poisson(5, bins)
    trace = count_trace(counts, start_s=start_s)
    if gap_at is not None:
        trace.time_s[gap_at:] += 100_000
    config = DataConfig(series="load", bin_s=10.0, step_s=60.0, context=60, horizon=4, gap_s=3600.0)
    return prepare(trace, config)


@pytest.mark.parametrize("gap_at", [None, 401])
def test_a_wide_step_is_the_sum_of_its_bins_on_the_edges_of_the_clock(gap_at):
    found = data(gap_at=gap_at)
    fine, wide = found.series, found.wide
    assert wide.bin_s == 60.0
    assert (wide.time_s % 60 == 0).all()
    for step in (0, len(wide) // 2, len(wide) - 1):
        at = int(np.flatnonzero(fine.time_s == wide.time_s[step])[0])
        np.testing.assert_array_equal(fine.values[at : at + 6].sum(0), wide.values[step])
        assert len(set(fine.segment[at : at + 6])) == 1


@pytest.mark.parametrize("gap_at", [None, 401])
def test_models_and_baselines_are_judged_on_the_same_targets(gap_at):
    found = data(gap_at=gap_at)
    source = window_source(found, torch.device("cpu"))
    for part in ("validation", "test"):
        origins, wide_origins = getattr(found.split, part), getattr(found.wide_split, part)
        assert len(origins) == len(wide_origins) > 0
        _, _, target = source.gather(torch.from_numpy(origins))
        np.testing.assert_array_equal(target, found.wide.values[wide_origins[:, None] + np.arange(4)])


def test_training_takes_every_bin_and_ends_before_validation():
    found = data()
    assert set(np.diff(found.split.train)) == {1}
    assert found.split.train[-1] + 4 * 6 <= found.split.train_end <= found.split.validation[0]
    assert found.split.known[-1] + 4 * 6 <= found.split.validation_end <= found.split.test[0]


def test_a_step_is_a_whole_multiple_of_a_bin_and_of_the_context():
    with pytest.raises(ConfigError, match="step_s: expected a whole multiple of the 10 s bins"):
        DataConfig(series="load", bin_s=10.0, step_s=25.0)
    with pytest.raises(ConfigError, match="step_s: expected a load series"):
        DataConfig(series="requests", step_s=60.0)
    with pytest.raises(ConfigError, match="context: expected two or more forecast steps, a multiple of 6 bins"):
        DataConfig(series="load", bin_s=10.0, step_s=60.0, context=50)


def test_a_series_without_a_whole_step_says_so():
    series = build_series(count_trace(np.ones(8)), kind="load", bin_s=10.0)
    with pytest.raises(TraceError, match="expected at least one whole step of 100 s"):
        widen(series, 10)
