"""What a person wants to know about a trace before training on it, as numbers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np

from training.bins import bin_of_times
from training.trace import GAP_S, Trace
from training.trace_write import to_counts

QUANTILES = (0.5, 0.9, 0.99)
DISPERSION_BINS_S = (1.0, 60.0)
_DAY_S = 86400.0
_MAX_BINS = 20_000_000


def describe(trace: Trace) -> dict[str, Any]:
    """Summarise a trace.

    Returns:
        A dictionary that JSON can hold. Rates are requests per second; hours are UTC for the clock "epoch", else
        hours since time 0. Silences longer than `GAP_S` are missing data and enter no rate and no dispersion.
        `None` stands where the trace is too short to tell.
    """
    facts: dict[str, Any] = {
        "sources": list(trace.sources),
        "fingerprint": trace.fingerprint(),
        "kind": "counts" if trace.is_counts else "requests",
        "clock": trace.clock,
        "rows": len(trace),
        "first_s": float(trace.time_s[0]),
        "last_s": float(trace.time_s[-1]),
        "span_s": trace.span_s,
        "notes": list(trace.notes),
    }
    if trace.clock == "epoch":
        facts["first"], facts["last"] = wall_clock(trace.time_s[0]), wall_clock(trace.time_s[-1])
    gaps = _gaps(trace)
    covered_s = trace.span_s - gaps["missing_s"]
    facts["requests"] = len(trace) if trace.requests is None else float(trace.requests.sum())
    facts["rate_per_s"] = facts["requests"] / covered_s if covered_s > 0 else None
    facts |= _count_facts(trace) if trace.is_counts else _request_facts(trace)
    facts["gaps"] = gaps
    facts["cycle"] = _cycle(trace)
    facts["remarks"] = _remarks(facts)
    return facts


def wall_clock(time_s: float) -> str:
    """Epoch seconds as UTC, ISO 8601."""
    return datetime.fromtimestamp(float(time_s), tz=timezone.utc).isoformat(timespec="seconds")


def inter_arrivals(trace: Trace) -> np.ndarray:
    """(M,) seconds between one request and the next, without silences longer than `GAP_S`."""
    between = np.diff(trace.time_s)
    return np.asarray(between[between <= GAP_S])


def dispersion(trace: Trace, bin_s: float) -> float | None:
    """Variance over mean of the requests per bin: 1 for a Poisson process, more when bursty. Whole bins only."""
    if trace.bin_s is not None:
        multiple = bin_s / trace.bin_s
        if round(multiple) < 1 or abs(multiple - round(multiple)) > 1e-6:
            return None
    between = np.diff(trace.time_s, prepend=trace.time_s[0])
    # Close each gap by whole bins, so that it weighs nothing.
    closed = trace.time_s - np.cumsum(np.where(between > GAP_S, between // bin_s, 0) * bin_s)
    index = bin_of_times(closed + 0.5 * (trace.bin_s or 0.0), bin_s)  # a row of counts by its middle
    index -= index[0]
    if not 10 < index[-1] < _MAX_BINS:
        return None
    counts = np.bincount(index, weights=trace.requests)[1:-1]
    mean = float(counts.mean())
    return float(counts.var()) / mean if mean > 0 else None


def autocorrelation(values: np.ndarray, lag: int) -> float | None:
    """Correlation of a series with itself `lag` steps later; None when it is shorter than three lags or constant."""
    if lag < 1 or len(values) < 3 * lag:
        return None
    a, b = values[:-lag], values[lag:]
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _request_facts(trace: Trace) -> dict[str, Any]:
    assert trace.request_tokens is not None
    assert trace.response_tokens is not None
    between = inter_arrivals(trace)
    answered = trace.response_tokens > 0
    asked_log, answered_log = np.log1p(trace.request_tokens[answered]), np.log1p(trace.response_tokens[answered])
    spread = len(asked_log) > 2 and asked_log.std() > 0 and answered_log.std() > 0
    return {
        "inter_arrival_s": _spread(between),
        "inter_arrival_cv": float(between.std() / between.mean()) if len(between) > 1 and between.mean() > 0 else None,
        "dispersion": {f"{bin_s:g}": dispersion(trace, bin_s) for bin_s in DISPERSION_BINS_S},
        "request_tokens": _spread(trace.request_tokens),
        "response_tokens": _spread(trace.response_tokens),
        "length_correlation": float(np.corrcoef(asked_log, answered_log)[0, 1]) if spread else None,
        "zero_request_tokens": int(np.count_nonzero(trace.request_tokens == 0)),
        "zero_response_tokens": int(np.count_nonzero(~answered)),
        "equal_times": int(np.count_nonzero(np.diff(trace.time_s) == 0)),
    }


def _count_facts(trace: Trace) -> dict[str, Any]:
    assert trace.requests is not None
    assert trace.bin_s is not None
    counts, steps = trace.requests, np.rint(np.diff(trace.time_s) / trace.bin_s)
    total = float(counts.sum())
    beside = (counts[1:7], counts[-7:-1])
    facts: dict[str, Any] = {
        "bin_s": trace.bin_s,
        "requests_per_bin": _spread(counts),
        "requests_per_bin_cv": float(counts.std() / counts.mean()) if total else None,
        "dispersion": {f"{bin_s:g}": dispersion(trace, bin_s) for bin_s in _dispersion_bins(trace.bin_s)},
        "next_bin_correlation": autocorrelation(counts, 1),
        "zero_bins": int(np.count_nonzero(counts == 0)),
        "missing_bins": int((steps - 1).sum()),
        "edge_bins_over_neighbours": [
            float(edge / near.mean()) if len(near) and near.any() else None
            for edge, near in zip((counts[0], counts[-1]), beside, strict=True)
        ],
    }
    for name in ("request_tokens", "response_tokens"):
        tokens = getattr(trace, name)
        if tokens is not None:
            facts[f"{name}_per_request"] = float(tokens.sum()) / total if total else None
    return facts


def _dispersion_bins(bin_s: float) -> list[float]:
    return [bin_s, *(wide for wide in (60.0, 3600.0) if wide > bin_s)]


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    quantiles = {f"p{level * 100:g}": float(np.quantile(values, level)) for level in QUANTILES}
    return {"mean": float(values.mean()), "min": float(values.min()), **quantiles, "max": float(values.max())}


def _gaps(trace: Trace) -> dict[str, Any]:
    """The longest silences, and how much of the span is missing data."""
    silent = np.diff(trace.time_s) - (trace.bin_s or 0.0)
    longest = [row for row in np.argsort(-silent, kind="stable")[:3] if silent[row] > 0]
    missing = silent[silent > GAP_S]
    return {
        "longest": [
            {"after_s": float(trace.time_s[row] + (trace.bin_s or 0.0)), "length_s": float(silent[row])}
            for row in longest
        ],
        "threshold_s": GAP_S,
        "missing": len(missing),
        "missing_s": float(missing.sum()),
    }


def _cycle(trace: Trace) -> dict[str, Any] | None:
    """Mean rate in each hour of the day, and how alike successive days are; None for less than 12 hours of data."""
    if trace.span_s < _DAY_S / 2 or (trace.bin_s or 0) > 3600:
        return None
    bin_s = 600.0 if trace.bin_s is None else trace.bin_s * max(1, round(600 / trace.bin_s))
    if trace.span_s / bin_s > _MAX_BINS:
        return None
    binned = to_counts(trace, bin_s)
    assert binned.requests is not None
    counts, hour = binned.requests[1:-1], (binned.time_s[1:-1] // 3600 % 24).astype(np.int64)  # edges: partial bins
    if len(counts) * bin_s < _DAY_S / 2 - 2 * bin_s:
        return None
    bins = np.bincount(hour, minlength=24)
    totals = np.bincount(hour, weights=counts, minlength=24)
    rate = [float(total / (n * bin_s)) if n else None for total, n in zip(totals, bins, strict=True)]
    known = [value for value in rate if value is not None]
    whole = len(known) == 24 and min(bins) * bin_s >= 1800
    contiguous = len(binned) == round((binned.time_s[-1] - binned.time_s[0]) / bin_s) + 1
    per_day = _DAY_S / bin_s
    return {
        "rate_per_s_by_hour": rate,
        "peak_hour": int(np.argmax([-1 if value is None else value for value in rate])) if whole else None,
        "peak_over_mean": max(known) / float(np.mean(known)) if whole and np.mean(known) > 0 else None,
        "next_day_correlation": autocorrelation(counts, round(per_day)) if contiguous and per_day % 1 == 0 else None,
    }


def _remarks(facts: dict[str, Any]) -> list[str]:
    """What the numbers mean for training; one sentence each."""
    remarks = []
    if facts["rows"] < 1000:
        remarks.append(f"Only {facts['rows']:,} rows: too few to train on; simple baselines will do as well.")
    if facts["gaps"]["missing"]:
        missing, length = facts["gaps"]["missing"], facts["gaps"]["missing_s"]
        remarks.append(
            f"{missing} {'silence' if missing == 1 else 'silences'} over {GAP_S / 3600:g} h, {length / 3600:,.1f} h "
            f"in all: taken for missing data, the series is split there."
        )
    if facts["span_s"] < 2 * _DAY_S:
        remarks.append("Less than 2 days: no model can learn a day cycle from this trace.")
    if facts.get("zero_response_tokens"):
        share = facts["zero_response_tokens"] / facts["rows"]
        remarks.append(f"{share:.1%} of the requests got no response token; --clean drops them from BurstGPT files.")
    if facts.get("equal_times", 0) > 0.2 * facts["rows"]:
        remarks.append("Many requests share their time: a coarse clock; prefer a load series to inter-arrival times.")
    if any(edge is not None and edge < 0.7 for edge in facts.get("edge_bins_over_neighbours", ())):
        remarks.append("The first or last bin looks half recorded; a load series leaves both out.")
    return remarks
