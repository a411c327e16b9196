"""Series: the rules that training and the runtime's streams share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.traces import count_trace, request_trace
from training.bins import bin_of_times
from training.errors import ConfigError, TraceError
from training.series import build_series


def rows(times: list[float], tokens: list[int] | None = None):
    tokens = tokens or [1] * len(times)
    return replace(
        request_trace(2),
        time_s=np.array(times, np.float64),
        request_tokens=np.array(tokens, np.int32),
        response_tokens=np.array(tokens, np.int32),
    )


def test_a_request_step_holds_the_time_since_the_request_before_and_its_own_tokens():
    series = build_series(rows([10.0, 10.5, 10.5, 13.0], [1, 2, 3, 4]), kind="requests")
    np.testing.assert_array_equal(series.values[:, 0], np.float32([0.5, 0.0, 2.5]))
    np.testing.assert_array_equal(series.values[:, 1], np.float32([2, 3, 4]))
    np.testing.assert_array_equal(series.time_s, [10.5, 10.5, 13.0])


def test_inter_arrivals_of_epoch_times_keep_their_microseconds():
    series = build_series(rows([1.7e9, 1.7e9 + 0.000250]), kind="requests")
    assert series.values[0, 0] == pytest.approx(0.000250, rel=1e-3)


def test_a_gap_of_days_starts_a_new_segment_and_its_first_request_gives_no_step():
    series = build_series(rows([0.0, 1.0, 2.0, 3 * 86400.0, 3 * 86400.0 + 1]), kind="requests")
    np.testing.assert_array_equal(series.segment, [0, 0, 1])
    np.testing.assert_array_equal(series.values[:, 0], [1.0, 1.0, 1.0])


def test_load_bins_are_aligned_to_the_clock_and_half_recorded_edge_bins_are_dropped():
    start = 1.7e9 - 1.7e9 % 60
    series = build_series(
        rows([start + 30, start + 61, start + 62, start + 119.9, start + 185, start + 245]), kind="load", bin_s=60
    )
    np.testing.assert_array_equal(series.time_s, [start + 60, start + 120, start + 180])
    np.testing.assert_array_equal(series.values[:, 0], [3, 0, 1])


def test_idle_bins_are_zero_and_missing_data_splits_the_load_series():
    trace = rows([0.0, 70.0, 300.0, 86400.0, 86470.0, 86600.0])
    series = build_series(trace, kind="load", bin_s=60)
    np.testing.assert_array_equal(series.values[series.segment == 0, 0], [1, 0, 0, 0])
    np.testing.assert_array_equal(series.values[series.segment == 1, 0], [1, 0])


def test_load_totals_are_exact_sums_of_the_requests_inside():
    trace = request_trace(2000)
    series = build_series(trace, kind="load", bin_s=10)
    for k in (0, 5, len(series) - 1):
        inside = (trace.time_s >= series.time_s[k]) & (trace.time_s < series.time_s[k] + 10)
        assert series.values[k, 0] == inside.sum()
        assert series.values[k, 1] == trace.request_tokens[inside].sum()


def test_counts_are_added_up_to_wider_bins_and_partly_covered_ones_are_dropped():
    series = build_series(count_trace(np.arange(20)), kind="load", bin_s=60)
    # Rows 0 and 19 may be half recorded, so the first minute (rows 0-5) and the last rows (18, 19) go.
    np.testing.assert_array_equal(series.time_s, [60, 120])
    np.testing.assert_array_equal(series.values[:, 0], [sum(range(6, 12)), sum(range(12, 18))])


def test_counts_keep_their_own_bins_when_asked_for_them():
    series = build_series(count_trace(np.arange(5)), kind="load", bin_s=10)
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3])


def test_missing_rows_of_a_count_trace_are_idle_bins_unless_the_gap_is_long():
    trace = count_trace(np.ones(12))
    keep = np.array([i not in (5, 6) for i in range(12)])
    short = replace(trace, time_s=trace.time_s[keep], requests=trace.requests[keep])
    np.testing.assert_array_equal(
        build_series(short, kind="load", bin_s=10).values[:, 0], [1, 1, 1, 1, 0, 0, 1, 1, 1, 1]
    )
    split = build_series(short, kind="load", bin_s=10, gap_s=15)
    np.testing.assert_array_equal(split.segment, [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("bin_s", [15.0, 5.0])
def test_counts_cannot_be_split_into_other_bins(bin_s):
    with pytest.raises(ConfigError, match=r"whole multiple of the trace's 10 s bins.*use --bin"):
        build_series(count_trace(np.ones(50)), kind="load", bin_s=bin_s)


def test_counts_cannot_become_single_requests():
    with pytest.raises(TraceError, match="one row per request, got counts.*--series load"):
        build_series(count_trace(np.ones(50)), kind="requests")


@pytest.mark.parametrize("kind", ["requests", "load"])
def test_a_trace_of_one_row_is_too_short(kind):
    with pytest.raises(TraceError, match=r"made.csv: expected at least one .*, got 1 row"):
        build_series(rows([5.0]), kind=kind)


def test_a_count_beyond_float32_is_refused():
    with pytest.raises(TraceError, match="expected numbers within float32"):
        build_series(count_trace(np.array([1, 1e300, 1, 1])), kind="load", bin_s=10)


def test_a_bin_far_too_narrow_for_the_span_is_refused():
    with pytest.raises(ConfigError, match="at most 50,000,000 bins.*wider"):
        build_series(rows([0.0, 20000.0]), kind="load", bin_s=1e-4)


@pytest.mark.parametrize("bin_s", [0.1, 0.3, 0.7, 60.0])
def test_a_time_on_an_edge_lies_in_the_bin_that_begins_there(bin_s):
    k = np.arange(5000)
    np.testing.assert_array_equal(bin_of_times(k * bin_s, bin_s), k)
    np.testing.assert_array_equal(bin_of_times(np.nextafter(k[1:] * bin_s, 0), bin_s), k[:-1])


@pytest.mark.parametrize(("row_s", "bin_s"), [(0.05, 0.05), (0.02, 0.1), (0.1, 0.3)])
def test_counts_in_narrow_bins_on_the_epoch_clock_lose_and_double_nothing(row_s, bin_s):
    rows = np.arange(4000) + round(1.7e9 / row_s)
    trace = replace(count_trace(np.ones(4000), bin_s=row_s), time_s=rows * row_s, clock="epoch")
    series = build_series(trace, kind="load", bin_s=bin_s)
    assert set(series.values[:, 0].tolist()) == {round(bin_s / row_s)}
    assert len(series) >= 4000 * row_s / bin_s - 3


def test_counts_that_straddle_the_bins_of_the_clock_are_refused():
    with pytest.raises(TraceError, match=r"start at multiples of 10 s, got one at .*5.000000; shift the times"):
        build_series(count_trace(np.ones(50), start_s=5.0), kind="load", bin_s=60)


def test_a_silence_of_exactly_the_gap_is_no_gap():
    times = [0.0, 1.0, 101.0, 201.5]
    assert build_series(rows(times), kind="requests", gap_s=100).segment.tolist() == [0, 0]
    assert len(set(build_series(rows([0.0, 10, 110, 120]), kind="load", bin_s=5, gap_s=100).segment.tolist())) == 1
    assert len(set(build_series(rows([0.0, 10, 110.1, 120]), kind="load", bin_s=5, gap_s=100).segment.tolist())) == 2
