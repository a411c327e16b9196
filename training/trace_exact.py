"""The exact pass over a trace: row by row, so that an error names its line and text. Also reads JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from array import array
from calendar import timegm
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np

from training.errors import TraceError
from training.trace import EPOCH_FROM_S, MAX_TOKENS
from training.trace_file import Source, Table, opened

MAX_EPOCH_S = 1e11
"""A number of seconds at or above this (year 5138) is taken for a mistaken unit."""

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s?(?:(Z)|([+-])(\d\d):?(\d\d)?)?)?"
)
_REMEDY = "fix the row or pass --clean to drop it"


class _BadRowError(ValueError):
    """What is wrong with a row, without its place."""


def read_exact(source: Source, *, clean: bool, on_bytes: Callable[[int], None] | None = None) -> Table:
    """Read every row in Python.

    Args:
        source: what to read.
        clean: leave out rows with unreadable values and count them; negative, unsorted and oversized values stay
            for `cleaning` to judge. Otherwise the first row that breaks a rule is an error.
        on_bytes: progress, see `opened`.
    Raises:
        TraceError: not `clean` and a row breaks a rule; the text says file, line, expected and got.
    """
    layout = source.layout
    has_tokens, counts = layout.request_tokens is not None, layout.requests is not None
    times: array[float] = array("d")
    columns: list[array[Any]] = [array("d" if counts else "q") for _ in layout.names[1:]]
    parse: Callable[[Any, str, bool], float | int] = _amount if counts else _tokens
    unreadable, written_as_date, previous, epoch = 0, None, (0.0, ""), False
    for line, cells, problem in _rows(source, on_bytes):
        try:
            if problem is not None:
                raise _BadRowError(problem)
            time_s, is_date = _time(cells[0], layout.time, layout.units_per_s)
            if written_as_date is not None and is_date != written_as_date:
                raise _BadRowError(f"expected {_kind(not is_date)} in '{layout.time}' as before, got {_show(cells[0])}")
            if not clean:
                _check_time(time_s, cells[0], layout.time, previous, epoch, first=not times)
            values = [parse(cell, name, clean) for cell, name in zip(cells[1:], layout.names[1:], strict=True)]
        except _BadRowError as error:
            if not clean:
                remedy = "" if ";" in str(error) else f"; {_REMEDY}"
                raise TraceError(f"{source.place(line)}: {error}{remedy}") from None
            unreadable += 1
            continue
        if written_as_date is None:
            written_as_date, epoch = is_date, time_s >= EPOCH_FROM_S
        previous = (time_s, cells[0])
        times.append(time_s)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    arrays = [np.frombuffer(column, dtype=column.typecode) for column in columns if len(column)]
    if not len(times):
        dropped = f"; {unreadable:,} rows had unreadable values" if unreadable else "; check how the file was written"
        raise TraceError(f"{source.path}: expected at least one readable row, got none{dropped}")
    return Table(
        time_s=np.frombuffer(times, dtype=np.float64),
        request_tokens=arrays[0] if has_tokens else None,
        response_tokens=arrays[1] if has_tokens else None,
        requests=arrays[-1] if counts else None,
        wall_clock=bool(written_as_date),
        unreadable=unreadable,
    )


def line_of_row(source: Source, row: int) -> int:
    """The line (from 1, header included) on which the row with index `row` starts; of Parquet, its number from 1."""
    for index, (line, _, _) in enumerate(_rows(source)):
        if index == row:
            return line
    raise AssertionError(f"row {row} is not in {source.path}")


def _rows(source: Source, on_bytes: Callable[[int], None] | None = None) -> Iterator[tuple[int, list[Any], str | None]]:
    """Line, the cells of `layout.names` and what is wrong with the row's shape, for each row that is not blank."""
    if source.parquet:
        from training.trace_parquet import parquet_rows

        for number, cells in parquet_rows(source, on_bytes):
            yield number, cells, None
        return
    with opened(source.path, on_bytes) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        yield from (_json_rows if source.layout.json_lines else _csv_rows)(source, text)


def _csv_rows(source: Source, text: io.TextIOWrapper) -> Iterator[tuple[int, list[Any], str | None]]:
    rows = csv.reader(text, strict=True)
    while rows.line_num < source.header_lines:
        next(rows)
    width, indices = len(source.names), source.indices
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, [], f"expected a CSV row, got one that cannot be read ({error})"
            continue
        if not row:
            continue
        if len(row) != width:
            yield line, [], f"expected {width} fields, got {len(row)} in {_show(','.join(row))}"
        else:
            yield line, [row[i] for i in indices], None


def _json_rows(source: Source, text: io.TextIOWrapper) -> Iterator[tuple[int, list[Any], str | None]]:
    for line, row in enumerate(text, start=1):
        if not row.strip():
            continue
        try:
            record = json.loads(row)
        except (ValueError, RecursionError) as error:
            yield line, [], f"expected a JSON object, got {_show(row)} ({error})"
            continue
        missing = [name for name in source.layout.names if not isinstance(record, dict) or name not in record]
        if missing:
            yield line, [], f"expected a JSON object with key '{missing[0]}', got {_show(row)}"
        else:
            yield line, [record[name] for name in source.layout.names], None


def _time(cell: Any, name: str, units_per_s: float) -> tuple[float, bool]:
    """Seconds, and whether the time was written as a date."""
    if isinstance(cell, str) and (match := _DATE.fullmatch(cell.strip())):
        year, month, day, hour, minute, second, fraction, _, sign, off_h, off_min = match.groups(default="0")
        try:
            date(int(year), int(month), int(day))
        except ValueError as error:
            raise _BadRowError(f"expected a date in '{name}', got {_show(cell)} ({error})") from None
        if int(hour) > 23 or int(minute) > 59 or int(second) > 59:
            raise _BadRowError(f"expected a time of day in '{name}', got {_show(cell)}")
        offset_s = (int(off_h) * 3600 + int(off_min) * 60) * (-1 if sign == "-" else 1)
        whole = timegm((int(year), int(month), int(day), int(hour), int(minute), int(second))) - offset_s
        return whole + int(fraction.ljust(9, "0")) / 1e9, True
    return _number(cell, name, "a number or a date like 2024-05-10 00:00:00") / units_per_s, False


def _check_time(time_s: float, cell: Any, name: str, previous: tuple[float, Any], epoch: bool, *, first: bool) -> None:
    if time_s < 0:
        raise _BadRowError(f"expected a time of 0 or more in '{name}', got {_show(cell)}")
    if time_s >= MAX_EPOCH_S:
        raise _BadRowError(
            f"expected seconds in '{name}', got {_show(cell)}; if these are milliseconds, read the file with "
            f"--columns and time_unit=ms"
        )
    if first:
        return
    if time_s < previous[0]:
        raise _BadRowError(
            f"expected times in order in '{name}', got {_show(cell)} after {_show(previous[1])}; "
            "pass --clean to sort the rows"
        )
    if epoch != (time_s >= EPOCH_FROM_S):
        raise _BadRowError(f"expected relative times in '{name}' as before, got epoch seconds {_show(cell)}")


def _tokens(cell: Any, name: str, clean: bool) -> int:
    number = _number(cell, name, "a number")
    if number != math.floor(number):
        raise _BadRowError(f"expected a whole number of tokens in '{name}', got {_show(cell)}")
    if not clean and number < 0:
        raise _BadRowError(f"expected 0 or more tokens in '{name}', got {_show(cell)}")
    if not clean and number > MAX_TOKENS:
        raise _BadRowError(
            f"expected at most {MAX_TOKENS} tokens in '{name}', got {_show(cell)}; "
            f"fix the row or pass --clean to clip it"
        )
    return int(max(min(number, 2.0**62), -(2.0**62)))


def _amount(cell: Any, name: str, clean: bool) -> float:
    number = _number(cell, name, "a number")
    if not clean and number < 0:
        raise _BadRowError(f"expected 0 or more in '{name}', got {_show(cell)}")
    return number


def _number(cell: Any, name: str, expected: str) -> float:
    try:
        if isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
            raise ValueError
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        raise _BadRowError(f"expected {expected} in '{name}', got {_show(cell)}") from None
    if not math.isfinite(number):
        raise _BadRowError(f"expected a finite number in '{name}', got {_show(cell)}")
    return number


def _kind(is_date: bool) -> str:
    return "a date" if is_date else "a number"


def _show(cell: Any) -> str:
    """The offending text, quoted, printable and short."""
    text = cell if isinstance(cell, str) else json.dumps(cell)
    text = text.rstrip("\r\n")
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if text.isprintable() else ascii(text)
