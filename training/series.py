"""A trace becomes a series: one step per request, or one step per time bin.

Rules, the same ones that the runtime's streams follow:

- `requests`: step n is request n with the time since the one before it; equal times give 0. The first request
  of a segment has no predecessor and gives no step.
- `load`: bin k covers [k * bin_s, (k + 1) * bin_s) of the trace's clock, so epoch traces are aligned to the wall
  clock. Idle bins count 0. The first and the last bin of a segment may be half recorded and are dropped; in a
  trace of ready counts that holds for its first and last rows, and a wider bin is kept only when fully covered.
- A silence longer than `gap_s` is missing data, not idleness: it starts a new segment, and no window crosses it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from training.bins import bin_of_rows, bin_of_times, check_bins
from training.errors import TraceError
from training.trace import GAP_S, Trace

KINDS = ("requests", "load")
UNITS = {"inter_arrival_s": "s", "request_tokens": "tokens", "response_tokens": "tokens", "requests": "requests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Steps that a model sees, raw units, oldest first.

    Attributes:
        kind: "requests" or "load".
        channels: names of the C channels; their units are `UNITS[name]`.
        values: (T, C) float32.
        time_s: (T,) float64, arrival of the request, or start of the bin.
        segment: (T,) int32, non-decreasing; missing data lies between two segments.
        clock: "epoch" or "relative".
        bin_s: width of a bin in seconds; None for `requests`.
        gap_s: a silence longer than this many seconds is missing data.
    """

    kind: str
    channels: tuple[str, ...]
    values: np.ndarray
    time_s: np.ndarray
    segment: np.ndarray
    clock: str
    bin_s: float | None
    gap_s: float

    def __len__(self) -> int:
        return len(self.time_s)


def widen(series: Series, ratio: int) -> Series:
    """The same load series in bins `ratio` times as wide, aligned to the clock; one cut by an edge is left out.

    Raises:
        TraceError: no segment holds a whole wide bin.
    """
    if ratio == 1:
        return series
    assert series.bin_s is not None
    index = np.rint(series.time_s / series.bin_s).astype(np.int64)
    starts = np.flatnonzero(index % ratio == 0)
    starts = starts[starts + ratio <= len(series)]
    starts = starts[series.segment[starts] == series.segment[starts + ratio - 1]]
    if not len(starts):
        raise TraceError(
            f"trace: expected at least one whole step of {series.bin_s * ratio:g} s, got {len(series)} bins of "
            f"{series.bin_s:g} s; use a longer trace"
        )
    return replace(
        series,
        values=series.values[starts[:, None] + np.arange(ratio)].sum(axis=1, dtype=np.float64).astype(np.float32),
        time_s=series.time_s[starts],
        segment=series.segment[starts],
        bin_s=series.bin_s * ratio,
    )


def build_series(trace: Trace, *, kind: str, bin_s: float = 60.0, gap_s: float = GAP_S) -> Series:
    """Turn a trace into a series.

    Args:
        trace: requests or counts.
        kind: "requests" or "load".
        bin_s: width of a `load` bin, seconds.
        gap_s: a silence longer than this is missing data.

    Raises:
        TraceError: the trace is too short to give a single step, or counts are asked for single requests.
        ConfigError: `bin_s` does not fit the trace.
    """
    where = ", ".join(trace.sources) or "trace"
    if kind == "requests":
        if trace.is_counts:
            raise TraceError(f"{where}: expected one row per request, got counts per bin; use --series load")
        series = _request_steps(trace, gap_s=gap_s)
    else:
        series = _load_steps(trace, bin_s=bin_s, gap_s=gap_s, where=where)
    if not np.isfinite(series.values).all():
        raise TraceError(f"{where}: expected numbers within float32, got totals beyond 3.4e38; clean the trace")
    if not len(series):
        step = "request after the first" if kind == "requests" else f"whole bin of {bin_s:g} s"
        raise TraceError(f"{where}: expected at least one {step}, got {len(trace)} row(s); use a longer trace")
    return series


def _request_steps(trace: Trace, *, gap_s: float) -> Series:
    between = np.diff(trace.time_s)
    segment = np.cumsum(between > gap_s, dtype=np.int32)
    inside = between <= gap_s
    values = np.empty((int(inside.sum()), 3), np.float32)
    values[:, 0] = between[inside]
    values[:, 1] = _tokens(trace.request_tokens, len(trace))[1:][inside]
    values[:, 2] = _tokens(trace.response_tokens, len(trace))[1:][inside]
    return Series(
        kind="requests",
        channels=("inter_arrival_s", "request_tokens", "response_tokens"),
        values=values,
        time_s=trace.time_s[1:][inside],
        segment=segment[inside],
        clock=trace.clock,
        bin_s=None,
        gap_s=gap_s,
    )


def _tokens(tokens: np.ndarray | None, rows: int) -> np.ndarray:
    assert tokens is not None, "request rows carry tokens"
    assert len(tokens) == rows
    return tokens


def _load_steps(trace: Trace, *, bin_s: float, gap_s: float, where: str) -> Series:
    if trace.is_counts:
        assert trace.bin_s is not None
        index = bin_of_rows(trace.time_s, row_s=trace.bin_s, bin_s=bin_s, where=where)
        rows_per_bin = round(bin_s / trace.bin_s)
    else:
        index = bin_of_times(trace.time_s, bin_s)
        rows_per_bin = 0
    totals = [t for t in (trace.requests, trace.request_tokens, trace.response_tokens) if t is not None]
    values, times, segments = [], [], []
    breaks = np.flatnonzero(np.diff(trace.time_s) - (trace.bin_s or 0.0) > gap_s) + 1
    for number, (lo, hi) in enumerate(pairwise([0, *breaks.tolist(), len(trace)])):
        first, last = int(index[lo]) + 1, int(index[hi - 1]) - 1  # the edge bins may be half recorded
        if trace.is_counts:
            first, last = _covered(trace, index, lo, hi, rows_per_bin)
        count = last - first + 1
        if count < 1:
            continue
        check_bins(count, bin_s=bin_s, where=where)
        slot = index[lo:hi] - first
        inside = (slot >= 0) & (slot < count)
        slot = slot[inside]
        binned = [np.bincount(slot, weights=total[lo:hi][inside], minlength=count) for total in totals]
        if not trace.is_counts:
            binned.insert(0, np.bincount(slot, minlength=count))
        with np.errstate(over="ignore"):  # refused in `build_series`
            values.append(np.stack(binned, axis=1).astype(np.float32))
        times.append((first + np.arange(count)) * bin_s)
        segments.append(np.full(count, number, np.int32))
    channels = ("requests", "request_tokens", "response_tokens")[: len(totals) + (not trace.is_counts)]
    return Series(
        kind="load",
        channels=channels,
        values=np.concatenate(values) if values else np.empty((0, len(channels)), np.float32),
        time_s=np.concatenate(times) if times else np.empty(0, np.float64),
        segment=np.concatenate(segments) if segments else np.empty(0, np.int32),
        clock=trace.clock,
        bin_s=bin_s,
        gap_s=gap_s,
    )


def _covered(trace: Trace, index: np.ndarray, lo: int, hi: int, rows_per_bin: int) -> tuple[int, int]:
    """First and last bin that the rows lo..hi-1 cover wholly, without the edge rows, which may be half recorded."""
    assert trace.bin_s is not None
    rows = np.rint(trace.time_s[[lo, hi - 1]] / trace.bin_s).astype(np.int64)
    return -int(-(rows[0] + 1) // rows_per_bin), int(rows[1] // rows_per_bin) - 1
