"""A stream of bins follows the rules of the series that models are trained on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.bins import bin_of_time

GAP_S, BIN_S, L = 21600.0, 60.0, 12
EPOCH_S = 1_700_000_040.0  # on an edge


def trace(n: int, seed: int = 0, mean_s: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return EPOCH_S + 17.0 + np.cumsum(rng.exponential(mean_s, n)), rng.integers(0, 4000, (n, 2))


def feed(p: Predictor, time_s: np.ndarray, tokens: np.ndarray) -> None:
    for t, (request, response) in zip(time_s, tokens, strict=True):
        p.observe(t, request, response)


def bins(time_s: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rules for a whole segment: wall-clock bins, idle ones 0, the first and the last dropped."""
    index = np.floor(time_s / BIN_S).astype(np.int64)
    rows = np.zeros((index[-1] - index[0] + 1, 3))
    np.add.at(rows, index - index[0], np.column_stack([np.ones(len(index)), tokens]))
    return (index[0] + np.arange(len(rows)))[1:-1] * BIN_S, rows[1:-1].astype(np.float32)


@pytest.mark.parametrize("mean_s", [3.0, 20.0, 200.0])
def test_the_stream_forecasts_what_predict_says_of_the_same_window(artifacts: Path, mean_s: float) -> None:
    load = Predictor(artifacts / "load", device="cpu", breaker=False)
    time_s, tokens = trace(600, mean_s=mean_s)
    checked = 0
    for i, (t, (request, response)) in enumerate(zip(time_s, tokens, strict=True)):
        load.observe(t, request, response)
        if i % 7:
            continue
        forecast = load.forecast()
        starts, rows = bins(time_s[: i + 1], tokens[: i + 1])
        assert forecast.start_s == np.floor(t / BIN_S) * BIN_S
        if len(rows) >= L:
            assert forecast.source == "model"
            assert forecast.start_s == starts[-1] + BIN_S
            np.testing.assert_array_equal(forecast.values, load.predict(rows[-L:], starts[-1]))
            checked += 1
    assert checked > 30 or mean_s == 3.0


def test_ready_counts_give_the_same_forecast_as_the_requests_in_them(load: Predictor) -> None:
    time_s, tokens = trace(500)
    feed(load, time_s, tokens)
    other = Predictor(load._model.folder, device="cpu")
    for start_s, row in zip(*bins(time_s, tokens), strict=True):
        if row[0]:  # idle bins may be left out
            other.observe_bin(start_s, *row)
    np.testing.assert_array_equal(other.forecast().values, load.forecast().values)
    assert other.forecast().start_s == load.forecast().start_s


@pytest.mark.parametrize("call", ["observe", "observe_bin"])
def test_plain_numbers_and_others_give_the_same_stream(load: Predictor, call: str) -> None:
    """Plain ones are checked in place, the others by functions."""
    other, rng = Predictor(load._model.folder, device="cpu"), np.random.default_rng(0)
    at_s = EPOCH_S
    for _ in range(400):
        if call == "observe":
            at_s += float(rng.choice([0.0, 0.5, 7.0, 59.0, 61.0, 300.0, GAP_S, GAP_S + 60], p=[0.3] + [0.1] * 7))
            row = [float(x) if rng.random() < 0.5 else int(x) for x in rng.integers(0, 1 << 60, 2)]
        else:
            at_s += float(rng.choice([BIN_S, 3 * BIN_S, GAP_S + BIN_S], p=[0.9, 0.07, 0.03]))
            row = [float(x) if rng.random() < 0.5 else int(x) for x in rng.integers(0, 1 << 60, 3)]
        getattr(load, call)(at_s, *row)
        getattr(other, call)(np.float64(at_s), *(np.float64(x) for x in row))
        one, same = load._live._stream, other._live._stream
        np.testing.assert_array_equal(one.steps.last(), same.steps.last())
        assert (one.state(), one.revision, one.start_s, one.time_s) == (
            same.state(),
            same.revision,
            same.start_s,
            same.time_s,
        )
    assert load.forecast().start_s is not None


def test_a_bin_is_only_finished_when_time_has_passed_it(load: Predictor) -> None:
    for i in range(L + 1):
        load.observe(EPOCH_S + i * BIN_S, 10, 10)
    standing = load.forecast()
    assert standing.source == "fallback:empirical"  # 11: the first bin is partial, the last is open
    load.observe(EPOCH_S + L * BIN_S + 59.9, 10, 10)
    assert load.forecast() is standing
    assert load.forecast(now_s=EPOCH_S + (L + 1) * BIN_S - 0.001) is standing
    forecast = load.forecast(now_s=EPOCH_S + (L + 1) * BIN_S)
    assert forecast.source == "model"
    assert forecast.start_s == EPOCH_S + (L + 1) * BIN_S


def test_now_finishes_idle_bins_and_leaves_no_trace_in_what_follows(artifacts: Path) -> None:
    time_s, tokens = trace(300, mean_s=50.0)
    load, other = (Predictor(artifacts / "load", device="cpu", breaker=False) for _ in range(2))
    for t, (request, response) in zip(time_s, tokens, strict=True):
        for now_s in np.linspace(other._live._stream._arrival_s, t, 3) if other.forecast().start_s else ():
            other.forecast(now_s=now_s)
        other.observe(t, request, response)
        load.observe(t, request, response)
        np.testing.assert_array_equal(other.forecast().values, load.forecast().values)


def test_now_finishes_many_idle_bins(load: Predictor) -> None:
    feed(load, *trace(100))
    end_s = np.floor((load._live._stream._arrival_s + 20_000) / BIN_S) * BIN_S
    forecast = load.forecast(now_s=end_s)
    np.testing.assert_array_equal(forecast.values, load.predict(np.zeros((L, 3), np.float32), end_s - BIN_S))


@pytest.mark.parametrize("passed", ["observe", "now"])
def test_a_gap_clears_the_history_and_drops_the_bins_at_its_edges(load: Predictor, passed: str) -> None:
    time_s, tokens = trace(300)
    feed(load, time_s, tokens)
    if passed == "now":
        forecast = load.forecast(now_s=time_s[-1] + GAP_S + 1)
        assert forecast.source == "fallback:prior"
        assert forecast.start_s == np.floor((time_s[-1] + GAP_S + 1) / BIN_S) * BIN_S
    later = time_s + (time_s[-1] - time_s[0]) + GAP_S + 100
    load.observe(later[0], *tokens[0])
    assert load.forecast().source == "fallback:prior"
    feed(load, later[1:], tokens[1:])
    starts, rows = bins(later, tokens)
    np.testing.assert_array_equal(load.forecast().values, load.predict(rows[-L:], starts[-1]))


def test_a_gap_of_ready_counts_is_counted_between_bins(load: Predictor) -> None:
    for i in range(L):
        load.observe_bin(i * BIN_S, 3, 5, 7)
    after_s = (L - 1) * BIN_S + BIN_S
    load.observe_bin(after_s + GAP_S, 3, 5, 7)  # bins missing for exactly gap_s
    assert load.forecast().source == "model"
    load.observe_bin(after_s + GAP_S + BIN_S + GAP_S + BIN_S, 3, 5, 7)
    forecast = load.forecast()
    assert forecast.source == "fallback:prior"
    assert forecast.start_s == after_s + 2 * GAP_S + 3 * BIN_S


def test_ready_counts_are_finished_as_they_come_and_now_adds_none(load: Predictor) -> None:
    for i in range(L):
        load.observe_bin(i * BIN_S, 3, 5, 7)
    forecast = load.forecast()
    assert forecast.source == "model"
    assert forecast.start_s == L * BIN_S
    assert load.forecast(now_s=L * BIN_S + 200) is forecast
    load.observe_bin(L * BIN_S, 1, 1, 1)  # late, as counts are
    assert load.forecast().start_s == (L + 1) * BIN_S


def test_a_bins_edge_may_be_off_by_rounding_alone(counts: Predictor) -> None:
    counts.observe_bin(10.009, 1)
    counts.observe_bin(19.999999, 1)
    assert counts.forecast().start_s == 30.0
    with pytest.raises(InputError, match=r"start_s: expected the edge of a bin, a multiple of 10, got 31.0; .* 30.0"):
        counts.observe_bin(31.0, 1)


def test_counts_alone_need_no_tokens_and_check_those_given(counts: Predictor) -> None:
    counts.observe(1.0)
    counts.observe(2.0, 10, 10)
    with pytest.raises(InputError, match="request_tokens: expected a finite number"):
        counts.observe(3.0, -1)
    counts.observe(11.0)
    counts.observe(25.0)
    assert counts.forecast().start_s == 20.0


def test_a_step_of_several_bins_has_a_fallback_of_several_bins(counts: Predictor) -> None:
    prior = np.array(counts.manifest["prior"])
    np.testing.assert_allclose(counts.forecast().values, np.broadcast_to(6 * prior, (2, 1, 7)), rtol=1e-6)


@pytest.mark.parametrize("bin_s", [0.1, 0.3, 0.7, 60.0])
def test_a_bin_begins_at_the_float64_of_its_multiple(edited: Any, bin_s: float) -> None:
    for first in (0, int(1.7e9 / bin_s)):
        assert all(bin_of_time(k * bin_s, bin_s) == k for k in range(first, first + 10_000))
        edges = ((k, np.nextafter(k * bin_s, -np.inf)) for k in range(first, first + 2000))
        assert all(bin_of_time(float(before), bin_s) == k - 1 for k, before in edges)
    p = Predictor(edited("counts", bin_s=bin_s, step_s=bin_s), device="cpu")
    p.observe(0.0)
    for k in range(1, 2000):
        if k % 2:
            p.observe(k * bin_s)
        assert p.forecast(now_s=k * bin_s).start_s == k * bin_s


def test_two_threads_need_no_common_order(load: Predictor) -> None:
    load.observe(1000.5, 1, 1)
    standing = load.forecast(now_s=1001.5)
    load.observe(1000.4, 1, 1)  # read before the other thread's clock, taken in after it
    load.observe(1001.0, 1, 1)
    assert load.forecast(now_s=1000.9) is standing
    assert load._live._stream._totals == (3.0, 3.0, 3.0)
    load.observe(1021.0, 1, 1)
    closed = load.forecast(now_s=1081.0)
    assert closed.start_s == 1080.0
    assert load.forecast(now_s=1000.9) is closed
    with pytest.raises(InputError, match=r"timestamp_s: expected a time not before 1080.0, as the bins before are fin"):
        load.observe(1079.9, 1, 1)
    load.observe(1080.0, 1, 1)
    assert load.forecast() is closed
    assert load._live._stream._totals == (1.0, 1.0, 1.0)


def test_an_older_now_does_not_undo_a_gap(load: Predictor) -> None:
    feed(load, *trace(300))
    last_s = load._live._stream._arrival_s
    cleared = load.forecast(now_s=last_s + 3 * GAP_S)
    assert load.forecast(now_s=last_s + 2 * GAP_S) is cleared


def test_a_silence_of_exactly_the_gap_is_idle_bins(load: Predictor) -> None:
    for passed in ("observe", "now"):
        p = Predictor(load._model.folder, device="cpu")
        for i in range(L + 2):
            p.observe(EPOCH_S + i * BIN_S, 10, 10)
        last_s = EPOCH_S + (L + 1) * BIN_S
        if passed == "observe":
            p.observe(last_s + GAP_S, 10, 10)
        assert p.forecast(now_s=last_s + GAP_S).source == "model", passed
        assert p.forecast(now_s=last_s + GAP_S).start_s == last_s + GAP_S


EPOCH_CALLS = [
    lambda p, time_s: p.observe(time_s, 1, 1),
    lambda p, time_s: p.observe_bin(time_s // BIN_S * BIN_S, 1, 1, 1),
    lambda p, time_s: p.predict(np.ones((L, 3), np.float32), time_s),
]


@pytest.mark.parametrize("call", EPOCH_CALLS)
def test_times_that_count_from_something_else_than_1970_are_remarked_on_once(edited: Any, call: Any) -> None:
    folder = edited("load", clock="epoch")
    p = Predictor(folder, device="cpu")
    with pytest.warns(
        RuntimeWarning, match="expected epoch seconds, as this model knows the time of day, got 90"
    ) as said:
        call(p, 90060.0)
    assert len(said) == 1
    assert said[0].filename == __file__
    call(p, 90120.0)
    p = Predictor(folder, device="cpu")
    call(p, EPOCH_S)


BAD_CALLS = [
    lambda p: p.observe(99.0, 1, 1),
    lambda p: p.observe(float("nan"), 1, 1),
    lambda p: p.observe(2000.0, 1, -1),
    lambda p: p.observe(2000.0, None, 1),
    lambda p: p.observe(2000.0),
    lambda p: p.observe(2000.0, "1", 1),
    lambda p: p.observe(1e300, 1, 1),
    lambda p: p.observe_bin(2040.0, 1, 1, 1),  # mixed with observe
    lambda p: p.observe(1919.9, 1, 1),  # its bin is finished
    lambda p: p.forecast(now_s=float("inf")),
]
BAD_BINS = [
    lambda p: p.observe(2000.0, 1, 1),  # mixed with observe_bin
    lambda p: p.observe_bin(1980.0, 1, 1, 1),  # given already
    lambda p: p.observe_bin(2050.0, 1, 1, 1),
    lambda p: p.observe_bin(2040.0, 1),
    lambda p: p.observe_bin(2040.0, -1, 1, 1),
    lambda p: p.observe_bin(2040.0, float("nan"), 1, 1),
    lambda p: p.observe_bin(2040.0, True, 1, 1),
    lambda p: p.observe_bin(float("nan"), 1, 1, 1),
    lambda p: p.observe_bin("2040", 1, 1, 1),
    lambda p: p.observe_bin(2040.0, 1, 1e39, 1),
]


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_call_is_refused_and_changes_nothing(load: Predictor, call: Any) -> None:
    for i in range(99):
        load.observe(i * 20.0, 3, 4)
    standing = load.forecast()
    with pytest.raises(InputError, match=r"^\w+: expected "):
        call(load)
    assert load.forecast() is standing
    assert load._live._stream._totals == (3.0, 9.0, 12.0)
    load.observe(98 * 20.0, 3, 4)  # the time is where it was, too


@pytest.mark.parametrize("call", BAD_BINS)
def test_a_bad_bin_is_refused_and_changes_nothing(load: Predictor, call: Any) -> None:
    for i in range(34):
        load.observe_bin(i * 60.0, 1, 3, 4)
    standing = load.forecast()
    with pytest.raises(InputError, match=r"^\w+: expected "):
        call(load)
    assert load.forecast() is standing
    load.observe_bin(2040.0, 1, 3, 4)


def test_totals_beyond_float32_are_refused_before_they_are_added(load: Predictor) -> None:
    load.observe(0.0, 3e38, 1)
    with pytest.raises(InputError, match="request_tokens of the bin: expected a finite number"):
        load.observe(1.0, 3e38, 1)
    load.observe(61.0, 3e38, 1)
    load.observe(121.0, 3e38, 1)
    assert np.isfinite(load.forecast().values).all()


def test_a_refused_first_call_does_not_decide_how_the_stream_is_fed(load: Predictor) -> None:
    with pytest.raises(InputError, match="request_tokens: expected"):
        load.observe(0.0)
    load.observe_bin(0.0, 1, 1, 1)


def test_closing_many_idle_bins_costs_no_more_than_the_window(edited: Any) -> None:
    p = Predictor(edited("load", bin_s=0.001, step_s=0.001, gap_s=1e12), device="cpu")
    p.observe(0.0, 1, 1)
    begun = time.perf_counter()
    p.observe(1e11, 1, 1)  # 10**14 bins
    assert p.forecast().start_s == 1e11
    assert time.perf_counter() - begun < 5
