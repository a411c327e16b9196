"""A synthetic trace with the traits of real LLM traffic, for demos, tests and benchmarks; never for claims of accuracy.

The model follows what BurstGPT (arXiv 2401.17644) and ServeGen (arXiv 2505.09999) report: few clients make most
of the load, each comes in bursts, lengths have heavy tails, and the sum follows the day and the week.

1. `CLIENTS` clients share the rate with Pareto weights, none more than `MAX_SHARE`.
2. A client is on for lognormal and off for Pareto times; only while on does it send.
3. While on it starts trains of requests as a Poisson process whose rate follows the client's own day curve and
   is lower at the week-end; a train has a geometric number of requests, a second or so apart (agents, retries).
4. Request lengths are lognormal around the client's own median, with a Pareto tail; log response lengths
   correlate with log request lengths; `FAILED` of the requests fail (response tokens 0).

Time 0 is midnight at the start of a Monday. Times are whole milliseconds.
"""

from __future__ import annotations

import numpy as np

from training.errors import ConfigError
from training.trace import Trace

CLIENTS = 150
MAX_SHARE = 0.08
FAILED = 0.015
WEEKEND = 0.55
MAX_REQUEST_TOKENS = 128_000
MAX_RESPONSE_TOKENS = 16_384
MAX_ROWS = 500_000_000

_DAY_S = 86400.0


def synthesize(*, days: float, rate_per_s: float, seed: int) -> Trace:
    """Draw a trace; the same arguments give the same trace (with the same numpy).

    Args:
        days: length of the trace, more than 0.
        rate_per_s: mean requests per second over the whole trace, more than 0.
        seed: 0 or more.
    Returns:
        A trace of requests, clock "relative", about `days * 86400 * rate_per_s` rows.
    Raises:
        ConfigError: an argument out of range.
    """
    _check(days, rate_per_s, seed)
    rng = np.random.default_rng(seed)
    span_s = days * _DAY_S
    weights = np.minimum(rng.pareto(1.2, CLIENTS) + 0.02, 1e6)
    weights /= weights.sum()
    for _ in range(20):  # capping one share raises the others: repeat until none is above the cap
        weights = np.minimum(weights, MAX_SHARE)
        weights /= weights.sum()
    times, request_tokens, response_tokens = [], [], []
    for weight in weights:
        time_s = _arrivals(rng, span_s, float(weight) * rate_per_s * span_s)
        asked, answered = _lengths(rng, len(time_s))
        times.append(time_s)
        request_tokens.append(asked)
        response_tokens.append(answered)
    time_s = np.concatenate(times)
    if len(time_s) == 0:  # a very short or slow trace: one request, so that the file is valid
        time_s = rng.uniform(0, span_s, 1)
        request_tokens, response_tokens = ([part] for part in _lengths(rng, 1))
    order = np.argsort(time_s, kind="stable")
    return Trace(
        time_s=np.floor(time_s[order] * 1000) / 1000,
        request_tokens=np.concatenate(request_tokens)[order],
        response_tokens=np.concatenate(response_tokens)[order],
        requests=None,
        bin_s=None,
        clock="relative",
        sources=(f"synthetic-{days:g}d-{rate_per_s:g}rps-seed{seed}",),
    )


def _check(days: float, rate_per_s: float, seed: int) -> None:
    for name, value in (("days", days), ("rate_per_s", rate_per_s)):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"synthesize: expected {name} above 0, got {value}; give a positive number")
    if days * _DAY_S >= 1e9:
        raise ConfigError(f"synthesize: expected fewer than 11574 days, got {days:g}; give less")
    if days * _DAY_S * rate_per_s > MAX_ROWS:
        rows = days * _DAY_S * rate_per_s
        raise ConfigError(f"synthesize: expected at most {MAX_ROWS:,} requests, got {rows:,.0f}; lower days or rate")
    if seed < 0:
        raise ConfigError(f"synthesize: expected a seed of 0 or more, got {seed}; give a non-negative integer")


def _arrivals(rng: np.random.Generator, span_s: float, expected: float) -> np.ndarray:
    """Arrival times (n,) of one client, `expected` of them on average."""
    starts, lengths = _on_periods(rng, span_s)
    ends = np.cumsum(lengths)
    peak_h, depth = rng.normal(14.0, 2.0), rng.uniform(0.3, 0.95)

    def wall(on_s: np.ndarray) -> np.ndarray:
        """Time of the clock from time spent on."""
        period = np.minimum(np.searchsorted(ends, on_s, side="right"), len(ends) - 1)
        return np.asarray(starts[period] + lengths[period] - (ends[period] - on_s))

    def relative_rate(time_s: np.ndarray) -> np.ndarray:
        """The client's day curve times the week-end's, at most 1."""
        day = 0.5 + 0.5 * np.cos(2 * np.pi * (time_s / _DAY_S - peak_h / 24))
        return (1 - depth + depth * day) * np.where((time_s // _DAY_S) % 7 >= 5, WEEKEND, 1.0)

    # Thinning. Dividing by the mean over the time spent on makes the expected count independent of where the
    # bursts fell.
    mean = relative_rate(wall((np.arange(2048) + 0.5) / 2048 * ends[-1])).mean()
    mean_train = 1 + rng.exponential(2.0)
    candidates = wall(rng.uniform(0, ends[-1], rng.poisson(expected / mean / mean_train)))
    first = candidates[rng.uniform(size=len(candidates)) < relative_rate(candidates)]
    sizes = rng.geometric(1 / mean_train, len(first))
    spent = np.cumsum(rng.exponential(rng.lognormal(np.log(0.5), 1.0), int(sizes.sum())))
    head = np.cumsum(sizes) - sizes
    time_s = np.repeat(first, sizes) + spent - np.repeat(spent[head], sizes)
    return np.asarray(time_s[time_s < span_s])


def _on_periods(rng: np.random.Generator, span_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths (p,) in seconds of the periods in which one client sends; at least one."""
    mean_on_s, on_share = rng.lognormal(np.log(240.0), 1.0), rng.uniform(0.08, 0.5)
    mean_off_s = mean_on_s * (1 - on_share) / on_share
    count = int(2 * span_s / (mean_on_s + mean_off_s)) + 16
    on_s = rng.lognormal(np.log(mean_on_s) - 0.5, 1.0, count)
    off_s = np.minimum(rng.pareto(1.6, count) * 0.6, 50.0) * mean_off_s
    starts = np.cumsum(off_s + on_s) - on_s - rng.uniform(0, mean_on_s + mean_off_s)
    ends = np.minimum(starts + on_s, span_s)
    starts = np.maximum(starts, 0.0)
    inside = ends > starts
    if not inside.any():
        return np.zeros(1), np.full(1, span_s)
    return starts[inside], (ends - starts)[inside]


def _lengths(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Request and response tokens (count,) int32 of one client's requests."""
    size = rng.standard_normal()  # of this client's requests, beside other clients'
    median_request = 700.0 * np.exp(0.8 * size)
    median_response = 180.0 * np.exp(0.3 * size + 0.6 * rng.standard_normal())
    correlation = rng.uniform(0.15, 0.7)
    shared, own = rng.standard_normal(count), rng.standard_normal(count)
    request = median_request * np.exp(0.8 * shared)
    long = rng.uniform(size=count) < 0.02
    request = np.where(long, 4000.0 * (1 + rng.pareto(1.5, count)), request)
    response = median_response * np.exp(0.9 * (correlation * shared + np.sqrt(1 - correlation**2) * own))
    response = np.clip(np.rint(response), 1, MAX_RESPONSE_TOKENS)
    response[rng.uniform(size=count) < FAILED] = 0
    return np.clip(np.rint(request), 1, MAX_REQUEST_TOKENS).astype(np.int32), response.astype(np.int32)
