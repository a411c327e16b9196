"""What one loaded model did: how long its runs took, what the forecasts came from, what failed. Counters alone.

Each thread's buffers bring their own row of counters, so that the hot path needs no lock and loses no count.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

TOTAL = 64
"""In a row of counters, after one for each number of bits that nanoseconds can have: where their sum stands."""
_FIRST, _LAST = 10, 34
BOUNDS_S = (*(2**bits / 1e9 for bits in range(_FIRST, _LAST)), float("inf"))
"""Upper bounds of the buckets that are told: powers of two from 1 µs to 8.6 s, and whatever took longer."""


class Stats:
    """Counters of one model in service, over all streams and threads.

    Attributes:
        batches: runs of several windows by time, as `row` gives for those of one. Under `lock`.
        windows: windows in them. Under `lock`.
        failures: runs that gave no forecast, by reason. Under `lock`.
        sources: forecasts made, by their source. Under `lock`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches = [0] * (TOTAL + 1)
        self.windows = 0
        self.failures: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self._rows: list[list[int]] = []

    def row(self) -> list[int]:
        """Counters for one thread at a time: at i, runs whose nanoseconds have i bits; at TOTAL, these added up."""
        row = [0] * (TOTAL + 1)
        self._rows.append(row)
        return row

    def count_batch(self, took_ns: int, windows: int) -> None:
        """Count a run of several windows."""
        with self.lock:
            self.batches[took_ns.bit_length()] += 1
            self.batches[TOTAL] += took_ns
            self.windows += windows

    def count_source(self, source: str) -> None:
        """Count a forecast, by its source without the reason that may follow: there are few of them."""
        name = source.partition(" ")[0]
        with self.lock:
            self.sources[name] += 1

    def count_failure(self, reason: str) -> None:
        """Count a run that gave no forecast."""
        with self.lock:
            self.failures[reason] += 1

    def clear(self) -> None:
        """Begin at 0; before the model is in service."""
        for row in (*self._rows, self.batches):
            row[:] = [0] * len(row)
        self.windows = 0

    def read(self) -> dict[str, Any]:
        """See `Predictor.stats`."""
        single = [sum(counts) for counts in zip(*self._rows, strict=True)] or [0] * (TOTAL + 1)
        with self.lock:
            return {
                "runs": histogram(single),
                "batch_runs": histogram(self.batches) | {"windows": self.windows},
                "failures": dict(self.failures),
                "sources": dict(self.sources),
            }


def histogram(counts: Sequence[int]) -> dict[str, Any]:
    """How many there are, how many took less than each bound, and bounds that the quantiles lie below, by half at most.

    Args:
        counts: as `Stats.row`.
    """
    told = [sum(counts[: _FIRST + 1]), *counts[_FIRST + 1 : _LAST], sum(counts[_LAST:TOTAL])]
    below = list(accumulate(told))
    found: dict[str, Any] = {
        "count": below[-1],
        "total_s": counts[TOTAL] / 1e9,
        "below_s": dict(zip(BOUNDS_S, below, strict=True)),
    }
    for name, level in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99), ("p999_s", 0.999)):
        found[name] = next(
            (b for b, n in zip(BOUNDS_S, below, strict=True) if below[-1] and n >= level * below[-1]), None
        )
    return found
