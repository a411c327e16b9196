"""Which bin a time lies in: the one rule, the same as that of the series a model is trained on.

Bin k covers [k * bin_s, (k + 1) * bin_s) of the clock, where k * bin_s is what float64 makes of it.
"""

from __future__ import annotations

import math

_OFF_GRID = 1e-3  # of a bin: far above float64's error for epoch times, far below a real shift


def bin_of_time(time_s: float, bin_s: float) -> int:
    """The bin of a time."""
    index = math.floor(time_s / bin_s)
    if (index + 1) * bin_s <= time_s:  # the quotient may be rounded across an edge
        return index + 1
    return index - 1 if index * bin_s > time_s else index


def bin_of_start(start_s: float, bin_s: float) -> int:
    """The bin that starts at a time, or nearest to it."""
    return round(start_s / bin_s)


def on_edge(start_s: float, bin_s: float) -> bool:
    """Whether a time is the start of a bin, but for a thousandth of its width."""
    return abs(start_s - bin_of_start(start_s, bin_s) * bin_s) <= _OFF_GRID * bin_s
