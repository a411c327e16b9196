"""Tables of requests for the documented Python API: a `pandas.DataFrame` with BurstGPT's columns, and a trace of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from training.errors import TraceError, nearest
from training.trace import EPOCH_FROM_S, MAX_TOKENS, Trace
from training.trace_exact import MAX_EPOCH_S

TIME, REQUEST, RESPONSE = COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def row_count(frame: object) -> int:
    """Number of rows of a table.

    Raises:
        TraceError: it is no table.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TraceError(f"data: expected a pandas.DataFrame, got {type(frame).__name__}; read it with pandas.read_csv")
    return len(frame)


def frame_to_trace(frame: pd.DataFrame) -> Trace:
    """Read a table of requests.

    Args:
        frame: `Timestamp` in seconds, or as dates (without an offset: UTC), in order; `Request tokens` and `Response
            tokens`, whole and 0 or more. Other columns are ignored.

    Raises:
        TraceError: a column is missing or a value breaks a rule; the text names the row, counted from 0.
    """
    rows = row_count(frame)
    for column in COLUMNS:
        if column not in frame.columns:
            have = [str(name) for name in frame.columns]
            raise TraceError(
                f"data: expected the column '{column}', got none; rename yours with data.rename(columns=...); "
                f"{nearest(column, have)}"
            )
    if not rows:
        raise TraceError("data: expected at least one row, got none; check how it was read")
    time_s = _seconds(frame[TIME])
    _refuse(TIME, time_s, time_s < 0, "0 or more", "drop such rows")
    _refuse(TIME, time_s, time_s >= MAX_EPOCH_S, "seconds", "divide milliseconds by 1000")
    other_clock = (time_s >= EPOCH_FROM_S) != (time_s[0] >= EPOCH_FROM_S)
    _refuse(TIME, time_s, other_clock, "one clock, epoch or relative seconds", "drop such rows")
    back = np.concatenate(([False], np.diff(time_s) < 0))
    _refuse(TIME, time_s, back, "times in order", "sort the rows with data.sort_values('Timestamp')")
    tokens = []
    for column in (REQUEST, RESPONSE):
        values = _numbers(frame[column])
        _refuse(column, values, values < 0, "0 or more", "drop such rows")
        _refuse(column, values, values != np.floor(values), "a whole number", "correct it")
        _refuse(column, values, values > MAX_TOKENS, f"at most {MAX_TOKENS}", "correct it")
        tokens.append(values.astype(np.int32))
    return Trace(
        time_s=time_s,
        request_tokens=tokens[0],
        response_tokens=tokens[1],
        requests=None,
        bin_s=None,
        clock="epoch" if time_s[0] >= EPOCH_FROM_S else "relative",
        sources=("data",),
    )


def trace_to_frame(trace: Trace) -> pd.DataFrame:
    """A trace of requests as a table, so that any format `read_trace` knows can be used with the documented API.

    Raises:
        TraceError: the trace holds counts.
    """
    if trace.is_counts:
        where = ", ".join(trace.sources)
        raise TraceError(f"{where}: expected one row per request, got counts per bin; use fcast-train --series load")
    return pd.DataFrame({TIME: trace.time_s, REQUEST: trace.request_tokens, RESPONSE: trace.response_tokens})


def _seconds(column: pd.Series) -> np.ndarray:
    dates: pd.Series | None = None
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        dates = pd.to_datetime(column, utc=True)
    elif not pd.api.types.is_numeric_dtype(column.dtype):
        read = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        dates = read if bool(read.notna().any()) else None
    if dates is None:
        return _numbers(column)
    bad = dates.isna().to_numpy()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise TraceError(f"data: expected a date in '{TIME}', got {column.iloc[row]!r} in row {row}; drop such rows")
    since = dates.dt.as_unit("ns").to_numpy("datetime64[ns]").astype(np.int64)
    return np.asarray(since / 1e9, np.float64)


def _numbers(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0])
        raise TraceError(
            f"data: expected a number in '{column.name}', got {column.iloc[row]!r} in row {row}; "
            "drop such rows, for example with data.dropna()"
        )
    return np.array(numbers, np.float64)


def _refuse(column: str, values: np.ndarray, bad: np.ndarray, expected: str, remedy: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise TraceError(f"data: expected {expected} in '{column}', got {values[row]:.12g} in row {row}; {remedy}")
