"""Requests and counts from lines of text: CSV with a known header, or JSON lines with the same names.

One line in gives one row out, at once: nothing is read ahead, and no line may be endless. A value is refused where
`fcast-trace` refuses it.
"""

from __future__ import annotations

import calendar
import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from .columns import Columns, find_columns
from .errors import InputError
from .fields import show

MAX_LINE_BYTES = 1 << 16
MAX_EPOCH_S = 1e11
"""A number of seconds at or above this (year 5138) is taken for a mistaken unit."""

_GZIP = b"\x1f\x8b"
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s?(?:(Z)|([+-])(\d\d):?(\d\d)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: a request when `requests` is None, otherwise the counts of the bin that starts at `time_s`."""

    time_s: float
    requests: float | None = None
    request_tokens: float | None = None
    response_tokens: float | None = None


def read_rows(stream: BinaryIO, *, format: str = "auto") -> Iterator[tuple[int, Row | InputError]]:
    """Yield (line number, row) for each line that is not blank; for a bad line, an InputError in its place.

    Args:
        stream: bytes, UTF-8.
        format: `csv`, `jsonl`, or `auto`: JSON lines when the first line starts with a brace.

    Raises:
        InputError: the header of a CSV names no known columns, or the stream is packed, so that nothing can be read.
    """
    parse: Callable[[str], Row] | None = _parse_json if format == "jsonl" else None
    for number, line in _lines(stream):
        try:
            if isinstance(line, InputError):
                raise line
            if parse is not None:
                yield number, parse(line)
            elif format == "auto" and line.startswith("{"):
                parse = _parse_json
                yield number, parse(line)
            else:
                parse = _csv_parser(_cells(line))
        except InputError as error:
            if parse is None:
                raise InputError(f"stdin:{number}: {error}") from None
            yield number, InputError(f"stdin:{number}: {error}")


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str | InputError]]:
    number = 0
    while data := _read(stream):
        number += 1
        if number == 1 and data.startswith(_GZIP):
            raise InputError("stdin: expected lines of text, got gzip; gunzip first: zcat FILE | fcast-predict ...")
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            while (rest := _read(stream)) and not rest.endswith(b"\n"):
                pass
            yield number, InputError(f"expected a line of less than {MAX_LINE_BYTES} bytes, got a longer one")
            continue
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            yield number, InputError(f"expected UTF-8 text, got {data[:40]!r}")
            continue
        if line:
            yield number, line


def _read(stream: BinaryIO) -> bytes:
    try:
        return stream.readline(MAX_LINE_BYTES)
    except OSError as error:
        raise InputError(
            f"stdin: expected lines of text, got {error.strerror or error}; give a file or a pipe"
        ) from None


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise InputError(f"expected comma-separated values, got {show(line)} ({error})") from None


def _csv_parser(header: list[str]) -> Callable[[str], Row]:
    columns = find_columns(header, json_lines=False)

    def parse(line: str) -> Row:
        cells = _cells(line)
        if len(cells) != len(header):
            raise InputError(f"expected {len(header)} values as in the header, got {len(cells)} in {show(line)}")
        return _row(dict(zip(header, cells, strict=True)), columns)

    return parse


def _parse_json(line: str) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected one JSON object per line, got {show(line)} ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"expected a JSON object, got {show(line)}")
    return _row(found, _json_columns(tuple(found)))


@lru_cache(maxsize=64)
def _json_columns(keys: tuple[str, ...]) -> Columns:
    return find_columns(keys, json_lines=True)


def _row(values: dict[str, Any], columns: Columns) -> Row:
    counts = columns.requests is not None

    def amount(name: str | None, *, whole: bool) -> float | None:
        if name is None or values[name] is None:
            return None
        number = _number(values[name], name, "a number")
        if whole and number != math.floor(number):
            raise InputError(f"expected a whole number of tokens for {name}, got {show(values[name])}")
        return number

    requests = amount(columns.requests, whole=False)
    if counts and requests is None:
        raise InputError(f"expected a number for {columns.requests}, got None")
    return Row(
        time_s=_time(values[columns.time], columns),
        requests=requests,
        request_tokens=amount(columns.request_tokens, whole=not counts),
        response_tokens=amount(columns.response_tokens, whole=not counts),
    )


def _number(cell: Any, name: str, expected: str) -> float:
    try:
        if not isinstance(cell, (str, int, float)) or isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
            raise ValueError
        number = float(cell)
    except (ValueError, OverflowError):
        raise InputError(f"expected {expected} for {name}, got {show(cell)}") from None
    if not math.isfinite(number):
        raise InputError(f"expected a finite number for {name}, got {show(cell)}")
    return number


def _time(cell: Any, columns: Columns) -> float:
    name = columns.time
    match = _DATE.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if match is None:
        time_s = _number(cell, name, "seconds or a date-time like 2023-11-16 18:15:46.6805900") / columns.units_per_s
        if time_s >= MAX_EPOCH_S:
            raise InputError(f"expected seconds for {name}, got {show(cell)}; divide milliseconds by 1000")
        return time_s
    year, month, day, hour, minute, second = (int(match.group(i) or 0) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 1, month)[1] and year):
        raise InputError(f"expected a day of the calendar for {name}, got {show(cell)}")
    if hour > 23 or minute > 59 or second > 59:
        raise InputError(f"expected a time of the day for {name}, got {show(cell)}")
    whole = calendar.timegm((year, month, day, hour, minute, second))
    if match.group(9):
        offset_s = int(match.group(10)) * 3600 + int(match.group(11) or 0) * 60
        whole -= offset_s if match.group(9) == "+" else -offset_s
    digits = match.group(7) or "0"
    # One division of whole numbers rounds once: the float64 nearest to the text.
    scale: int = 10 ** len(digits)
    return (whole * scale + int(digits)) / scale
