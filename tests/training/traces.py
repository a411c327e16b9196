"""Small traces and series that the tests of training share."""

from __future__ import annotations

import numpy as np

from training.series import Series, build_series
from training.trace import Trace


def request_trace(rows: int = 600, *, seed: int = 0, rate_per_s: float = 2.0, start_s: float = 0.0) -> Trace:
    """Poisson arrivals with lognormal tokens."""
    rng = np.random.default_rng(seed)
    return Trace(
        time_s=start_s + np.cumsum(rng.exponential(1 / rate_per_s, rows)),
        request_tokens=rng.lognormal(5, 1, rows).astype(np.int32),
        response_tokens=rng.lognormal(4, 1, rows).astype(np.int32),
        requests=None,
        bin_s=None,
        clock="epoch" if start_s >= 1e9 else "relative",
        sources=("made.csv",),
    )


def count_trace(counts: np.ndarray, *, bin_s: float = 10.0, start_s: float = 0.0) -> Trace:
    """Ready counts, one row per bin."""
    return Trace(
        time_s=start_s + np.arange(len(counts)) * bin_s,
        request_tokens=None,
        response_tokens=None,
        requests=np.asarray(counts, np.float64),
        bin_s=bin_s,
        clock="epoch" if start_s >= 1e9 else "relative",
        sources=("counts.csv",),
    )


def request_series(rows: int = 600) -> Series:
    """A `requests` series of a Poisson trace."""
    return build_series(request_trace(rows), kind="requests")


def load_series(bins: int = 600, *, start_s: float = 1.7e9) -> Series:
    """A one-channel `load` series with a slow wave, wall-clock bins of 60 s."""
    rng = np.random.default_rng(1)
    rate = 60 + 30 * np.sin(np.arange(bins + 2) / 20)
    start_s -= start_s % 60
    return build_series(count_trace(rng.poisson(rate), bin_s=60.0, start_s=start_s), kind="load")
