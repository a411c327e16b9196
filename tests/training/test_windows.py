"""Windows: split by time without leaks, never across missing data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.traces import load_series, request_series
from training.errors import ConfigError, TraceError
from training.windows import WindowSource, split_windows


def test_no_target_lies_in_two_parts_and_parts_follow_each_other_in_time():
    series = request_series(500)
    split = split_windows(series, context=20, horizon=5, parts=(60, 20, 20))
    targets = [{i + h for i in part.tolist() for h in range(5)} for part in (split.train, split.validation, split.test)]
    assert max(targets[0]) < min(targets[1])
    assert max(targets[1]) < min(targets[2])
    assert max(targets[2]) == len(series) - 1


def test_only_the_ratio_of_the_parts_counts():
    series = request_series(500)
    a = split_windows(series, context=20, horizon=5, parts=(4, 1, 2))
    b = split_windows(series, context=20, horizon=5, parts=(0.8, 0.2, 0.4))
    np.testing.assert_array_equal(a.validation, b.validation)


def test_no_window_crosses_missing_data():
    series = request_series(400)
    broken = replace(series, segment=(np.arange(len(series)) >= 150).astype(np.int32))
    split = split_windows(broken, context=20, horizon=5, parts=(60, 20, 20))
    for origin in np.concatenate((split.train, split.validation, split.test)):
        assert len(set(broken.segment[origin - 20 : origin + 5])) == 1


def test_stride_thins_training_only():
    series = request_series(500)
    full = split_windows(series, context=20, horizon=5, parts=(60, 20, 20))
    thinned = split_windows(series, context=20, horizon=5, parts=(60, 20, 20), stride=7)
    np.testing.assert_array_equal(thinned.train, full.train[::7])
    np.testing.assert_array_equal(thinned.test, full.test)


def test_gathered_windows_are_slices_of_the_series():
    series = load_series(200)
    source = WindowSource(series, context=12, horizon=3, device=torch.device("cpu"))
    context, time_s, target = source.gather(torch.tensor([12, 50]))
    np.testing.assert_array_equal(context[1], series.values[38:50])
    np.testing.assert_array_equal(target[1], series.values[50:53])
    assert time_s[1] == series.time_s[49]
    assert time_s.dtype == torch.float64


def test_fewer_steps_than_a_window_say_what_to_change():
    with pytest.raises(TraceError, match=r"train part: expected at least one window of 50 \+ 10.*smaller --context"):
        split_windows(request_series(40), context=50, horizon=10, parts=(60, 20, 20))


def test_a_part_without_windows_is_named():
    with pytest.raises(TraceError, match="validation part: expected at least one window"):
        split_windows(request_series(200), context=50, horizon=10, parts=(95, 1, 4))


def test_a_split_needs_three_positive_parts():
    with pytest.raises(ConfigError, match="three positive proportions"):
        split_windows(request_series(200), context=5, horizon=1, parts=(1, 0, 1))


def test_a_test_proportion_of_zero_leaves_the_test_part_out():
    series = request_series(201)
    split = split_windows(series, context=10, horizon=3, parts=(80, 20, 0))
    assert (len(split.test), split.validation_end) == (0, len(series))
    assert split.validation[-1] == len(series) - 3
    with pytest.raises(ConfigError, match="three positive proportions"):
        split_windows(series, context=10, horizon=3, parts=(80, 20, -1))
