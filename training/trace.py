"""A trace: the arrivals of LLM requests, one row per request or one count per bin of time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from training.errors import TraceError

MAX_TOKENS = int(np.iinfo(np.int32).max)
"""The largest token count a request may have; more is a fault of the file."""

EPOCH_FROM_S = 1e9
"""A number at or above this (September 2001) is Unix epoch seconds; below it, time is relative."""

GAP_S = 6 * 3600.0
"""A longer silence is taken for missing data: no service that is up stays unused for six hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in order of arrival, or counts of requests per bin.

    Raises:
        TraceError: the arrays differ in length or type, hold no row, or time goes backwards.
    """

    time_s: np.ndarray
    """(N,) float64 seconds, non-decreasing: arrival of each request, or start of each bin."""
    request_tokens: np.ndarray | None
    """(N,) int32 per request; for counts (N,) float64 totals per bin, or None."""
    response_tokens: np.ndarray | None
    """(N,) like `request_tokens`; both are given or neither."""
    requests: np.ndarray | None
    """(N,) float64 requests per bin; None when rows are requests."""
    bin_s: float | None
    """Width of a bin in seconds; None when rows are requests."""
    clock: str
    """"epoch" (seconds since 1970, UTC) or "relative" (seconds since an unknown start)."""
    sources: tuple[str, ...]
    """Names of the files read, without folders."""
    notes: tuple[str, ...] = ()
    """What cleaning did, one line each, with row counts."""

    def __post_init__(self) -> None:
        where = ", ".join(self.sources) or "trace"
        if self.clock not in ("epoch", "relative"):
            raise TraceError(f"{where}: expected clock 'epoch' or 'relative', got {self.clock!r}; give one of them")
        if (self.requests is None) != (self.bin_s is None):
            raise TraceError(f"{where}: expected `requests` and `bin_s` together, got one; give both or neither")
        if (self.request_tokens is None) != (self.response_tokens is None):
            raise TraceError(f"{where}: expected both token columns or none, got one; give the other")
        if self.requests is None and self.request_tokens is None:
            raise TraceError(f"{where}: expected tokens of each request, got none; give both token arrays")
        tokens = np.dtype(np.int32 if self.requests is None else np.float64)
        wanted = {"time_s": np.dtype(np.float64), "request_tokens": tokens, "response_tokens": tokens}
        for name, dtype in (wanted | {"requests": np.dtype(np.float64)}).items():
            array = getattr(self, name)
            if array is not None and (array.dtype != dtype or array.shape != self.time_s.shape or array.ndim != 1):
                raise TraceError(
                    f"{where}: expected `{name}` as {dtype} of shape ({len(self.time_s)},), "
                    f"got {array.dtype} {array.shape}; convert it"
                )
        if len(self.time_s) == 0:
            raise TraceError(f"{where}: expected at least one row, got none; check the file")
        if not bool(np.all(self.time_s[1:] >= self.time_s[:-1])):
            raise TraceError(f"{where}: expected non-decreasing times, got unsorted ones; sort the rows by time")

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def is_counts(self) -> bool:
        """True when each row counts the requests of one bin."""
        return self.requests is not None

    @property
    def span_s(self) -> float:
        """Seconds covered: first to last arrival, or first bin's start to last bin's end."""
        return float(self.time_s[-1] - self.time_s[0]) + (self.bin_s or 0.0)

    def fingerprint(self) -> str:
        """Identify the data: hex sha256 over clock, bin width and arrays, the same on every machine.

        File names and notes do not enter: the same rows from another file have the same fingerprint.
        """
        digest = hashlib.sha256(f"fcast-trace-1 {self.clock} {self.bin_s!r} {len(self)}".encode())
        for name in ("time_s", "request_tokens", "response_tokens", "requests"):
            array = getattr(self, name)
            if array is None:
                digest.update(f"|{name} none".encode())
                continue
            little = array.dtype.newbyteorder("<")
            digest.update(f"|{name} {little.str}".encode())
            digest.update(np.ascontiguousarray(array, dtype=little).data.cast("B"))
        return digest.hexdigest()
