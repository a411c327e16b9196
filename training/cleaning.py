"""What `clean` does to the rows of a trace. Every action is counted, and every count becomes a note.

In this order: drop rows that cannot be read, drop negative values, drop times of another clock, drop failed
requests (BurstGPT's response tokens 0), clip token counts above `MAX_PLAUSIBLE_TOKENS`, sort by time (stable),
and for counts add up rows of the same bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from training.errors import TraceError
from training.trace import EPOCH_FROM_S
from training.trace_exact import MAX_EPOCH_S
from training.trace_file import COLUMNS, Source, Table

MAX_PLAUSIBLE_TOKENS = 10_000_000
"""Ten times the longest context window in common use; a larger count in one request is a fault of the log."""

_MOVED_ROWS, _MEDIAN_ROWS = 1 << 18, 1 << 20
_NOTES = {
    "unreadable": "dropped {:,} rows with unreadable values",
    "negative": "dropped {:,} rows with negative values",
    "clock": "dropped {:,} rows whose time is on another clock than most",
    "failed": "dropped {:,} failed requests (response tokens 0)",
    "clipped": f"clipped {{:,}} token counts above {MAX_PLAUSIBLE_TOKENS:,}",
    "unsorted": "sorted by time: {:,} rows were out of order",
    "same bin": "added up {:,} rows with the bin of the row before",
}


def notes(tally: Counter[str]) -> tuple[str, ...]:
    """One line for each thing that was done to at least one row."""
    lines = tuple(text.format(tally[key]) for key, text in _NOTES.items() if tally[key])
    return tuple(line.replace(" 1 rows were", " 1 row was").replace(" 1 rows ", " 1 row ") for line in lines)


def clean_values(table: Table, source: Source, tally: Counter[str]) -> None:
    """Drop and clip rows of one file by value, in place, counting into `tally`.

    Raises:
        TraceError: no row is left, or the times of most rows are in another unit than seconds.
    """
    tally["unreadable"] += table.unreadable
    keep = np.ones(len(table.time_s), dtype=bool)

    def drop(key: str, bad: np.ndarray) -> None:
        tally[key] += int(np.count_nonzero(bad & keep))
        keep[bad] = False

    for name in COLUMNS:
        if (column := getattr(table, name)) is not None:
            drop("negative", column < 0)
    if keep.any():
        median_s = _median(table.time_s, keep)
        if median_s >= MAX_EPOCH_S:
            raise TraceError(
                f"{source.path}: expected seconds in '{source.layout.time}', "
                f"got values around {median_s:.0f}; "
                "if these are milliseconds, read the file with --columns and time_unit=ms"
            )
        drop("clock", table.time_s >= MAX_EPOCH_S)
        drop("clock", (table.time_s >= EPOCH_FROM_S) != (median_s >= EPOCH_FROM_S))
    if source.layout.format == "burstgpt" and table.response_tokens is not None:
        drop("failed", table.response_tokens == 0)
    if not keep.any():
        done = "; ".join(notes(tally))
        raise TraceError(f"{source.path}: expected at least one row after cleaning, got none ({done}); check the file")
    if not keep.all():
        _each_column(table, lambda column: _kept(column, keep))
    if table.requests is None:
        for name in ("request_tokens", "response_tokens"):
            column = getattr(table, name)
            absurd = column > MAX_PLAUSIBLE_TOKENS
            if absurd.any():
                tally["clipped"] += int(np.count_nonzero(absurd))
                setattr(table, name, np.where(absurd, MAX_PLAUSIBLE_TOKENS, column))


def clean_order(table: Table, tally: Counter[str]) -> None:
    """Sort all rows by time, and for counts add up rows of the same bin; in place, counting into `tally`."""
    if (table.time_s[1:] < table.time_s[:-1]).any():
        tally["unsorted"] += int(np.count_nonzero(table.time_s < np.maximum.accumulate(table.time_s)))
        order = np.argsort(table.time_s, kind="stable")
        _each_column(table, lambda column: column[order])
    if table.requests is not None:
        first = np.flatnonzero(np.diff(table.time_s, prepend=-1.0) > 0)
        if len(first) < len(table.time_s):
            tally["same bin"] += len(table.time_s) - len(first)
            time_s = table.time_s[first]
            _each_column(table, lambda column: np.add.reduceat(column, first))
            table.time_s = time_s


def _median(time_s: np.ndarray, keep: np.ndarray) -> float:
    """Median of the times to keep; of every n-th row where there are millions, which need not be copied then."""
    step = max(1, len(time_s) // _MEDIAN_ROWS) if keep.all() else 1
    return float(np.median(time_s[::step] if step > 1 else time_s[keep]))


def _kept(column: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The rows to keep, moved to the front of the same memory."""
    used = 0
    for start in range(0, len(column), _MOVED_ROWS):
        rows = slice(start, start + _MOVED_ROWS)
        kept = column[rows][keep[rows]]
        column[used : used + len(kept)] = kept
        used += len(kept)
    return column[:used]


def _each_column(table: Table, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace every column in turn, so that no two old ones are held beside their successors."""
    for name in COLUMNS:
        if (column := getattr(table, name)) is not None:
            setattr(table, name, change(column))
