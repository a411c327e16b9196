"""Which bin a time lies in: one rule for series, counts and statistics, the same as that of the runtime's stream.

Bin k covers [k * bin_s, (k + 1) * bin_s) of the trace's clock, where k * bin_s is what float64 makes of it.
"""

from __future__ import annotations

import numpy as np

from training.errors import ConfigError, TraceError

MAX_BINS = 50_000_000
_OFF_GRID = 1e-3  # of a row's width: far above float64's error for epoch times, far below a real shift


def bin_of_times(time_s: np.ndarray, bin_s: float) -> np.ndarray:
    """The bin of each time: (N,) float64 seconds to (N,) int64."""
    index = np.floor(time_s / bin_s)
    index += (index + 1) * bin_s <= time_s  # the quotient may be rounded across an edge
    index -= index * bin_s > time_s
    return index.astype(np.int64)


def bin_of_rows(start_s: np.ndarray, *, row_s: float, bin_s: float, where: str) -> np.ndarray:
    """The bin of each row of ready counts: (N,) starts of rows `row_s` wide to (N,) int64.

    Raises:
        ConfigError: `bin_s` is no whole multiple of `row_s`.
        TraceError: rows do not start at multiples of `row_s`, so that they would straddle bins.
    """
    factor = round(bin_s / row_s)
    if factor < 1 or abs(factor * row_s - bin_s) > 1e-6 * bin_s:
        raise ConfigError(
            f"{where}: expected a whole multiple of the trace's {row_s:g} s bins, got {bin_s:g} s; "
            f"use --bin {row_s * max(1, factor):g}"
        )
    rows = np.rint(start_s / row_s)
    off = np.abs(start_s - rows * row_s)
    if off.max(initial=0.0) > _OFF_GRID * row_s:
        at = int(off.argmax())
        raise TraceError(
            f"{where}: expected bins that start at multiples of {row_s:g} s, got one at {start_s[at]:.6f}; "
            "shift the times of the file, so that bins are those of the clock"
        )
    return rows.astype(np.int64) // factor


def check_bins(count: int, *, bin_s: float, where: str) -> None:
    """Refuse a bin so narrow that the bins would not fit into memory.

    Raises:
        ConfigError: there would be more than `MAX_BINS`.
    """
    if count > MAX_BINS:
        raise ConfigError(
            f"{where}: expected at most {MAX_BINS:,} bins, got {count:,}; use a --bin wider than {bin_s:g} s"
        )
