"""What `clean` does to the rows of a trace. Every action is counted, and every count becomes a note.

In this order: drop rows that cannot be read, drop negative values, drop times of another clock, drop failed
requests (BurstGPT's response tokens 0), clip token counts above `MAX_PLAUSIBLE_TOKENS`, sort by time (stable),
and for counts add up rows of the same bin.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from training.errors import TraceError
from training.trace import EPOCH_FROM_S
from training.trace_exact import MAX_EPOCH_S
from training.trace_file import Source, Table

MAX_PLAUSIBLE_TOKENS = 10_000_000
"""Ten times the longest context window in common use; a larger count in one request is a fault of the log."""

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


def clean_values(table: Table, source: Source, tally: Counter[str]) -> Table:
    """Drop and clip rows of one file by value, counting into `tally`.

    Raises:
        TraceError: no row is left, or the times of most rows are in another unit than seconds.
    """
    tally["unreadable"] += table.unreadable
    columns = [table.time_s, table.request_tokens, table.response_tokens, table.requests]
    keep = np.ones(len(table.time_s), dtype=bool)

    def drop(key: str, bad: np.ndarray) -> None:
        tally[key] += int(np.count_nonzero(bad & keep))
        keep[bad] = False

    for column in columns:
        if column is not None:
            drop("negative", column < 0)
    if keep.any():
        median_s = float(np.median(table.time_s[keep]))
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
        columns = [None if column is None else column[keep] for column in columns]
    if table.requests is None:
        for i in (1, 2):
            column = columns[i]
            assert column is not None
            absurd = column > MAX_PLAUSIBLE_TOKENS
            if absurd.any():
                tally["clipped"] += int(np.count_nonzero(absurd))
                columns[i] = np.where(absurd, MAX_PLAUSIBLE_TOKENS, column)
    time_s, request_tokens, response_tokens, requests = columns
    assert time_s is not None
    return Table(
        time_s=time_s,
        request_tokens=request_tokens,
        response_tokens=response_tokens,
        requests=requests,
        wall_clock=table.wall_clock,
    )


def clean_order(table: Table, tally: Counter[str]) -> Table:
    """Sort all rows by time, and for counts add up rows of the same bin; counts into `tally`."""
    columns = [table.time_s, table.request_tokens, table.response_tokens, table.requests]
    late = table.time_s < np.maximum.accumulate(table.time_s)
    if late.any():
        tally["unsorted"] += int(np.count_nonzero(late))
        order = np.argsort(table.time_s, kind="stable")
        columns = [None if column is None else column[order] for column in columns]
    time_s = columns[0]
    assert time_s is not None
    if table.requests is not None:
        first = np.flatnonzero(np.diff(time_s, prepend=-1.0) > 0)
        if len(first) < len(time_s):
            tally["same bin"] += len(time_s) - len(first)
            columns[1:] = [None if column is None else np.add.reduceat(column, first) for column in columns[1:]]
            time_s = time_s[first]
    return Table(
        time_s=time_s,
        request_tokens=columns[1],
        response_tokens=columns[2],
        requests=columns[3],
        wall_clock=table.wall_clock,
    )
