"""Requests and counts from lines of text: CSV with a known header, or JSON lines with the same names.

One line in gives one row out, at once: nothing is read ahead, and no line may be endless.
"""

from __future__ import annotations

import calendar
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from .errors import InputError
from .fields import show

MAX_LINE_BYTES = 1 << 16

# What a column or key is called in a BurstGPT trace, an Azure trace, and ours.
_NAMES = {
    "timestamp_s": ("timestamp_s", "Timestamp", "TIMESTAMP"),
    "request_tokens": ("request_tokens", "Request tokens", "ContextTokens"),
    "response_tokens": ("response_tokens", "Response tokens", "GeneratedTokens"),
    "start_s": ("start_s",),
    "requests": ("requests",),
}
_KNOWN = (
    "timestamp_s,request_tokens,response_tokens or start_s,requests[,request_tokens,response_tokens] "
    "(or the names of a BurstGPT or Azure trace)"
)
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: a request when `requests` is None, otherwise the counts of the bin that starts at `time_s`."""

    time_s: Any
    requests: Any = None
    request_tokens: Any = None
    response_tokens: Any = None


def read_rows(stream: BinaryIO, *, format: str = "auto") -> Iterator[tuple[int, Row | InputError]]:
    """Yield (line number, row) for each line that is not blank; for a bad line, an InputError in its place.

    Args:
        stream: bytes, UTF-8.
        format: `csv`, `jsonl`, or `auto`: JSON lines when the first line starts with a brace.

    Raises:
        InputError: the header of a CSV names no known columns, so that nothing can be read.
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
    while data := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
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


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise InputError(f"expected comma-separated values, got {show(line)} ({error})") from None


def _csv_parser(header: list[str]) -> Callable[[str], Row]:
    columns: dict[str, int] = {}
    for key, names in _NAMES.items():
        places = [i for i, cell in enumerate(header) if cell in names]
        if len(places) > 1:
            raise InputError(f"expected one column for {key}, got {[header[i] for i in places]}")
        if places:
            columns[key] = places[0]
    counts = _is_counts(columns, show(",".join(header)))

    def parse(line: str) -> Row:
        cells = _cells(line)
        if len(cells) != len(header):
            raise InputError(f"expected {len(header)} values as in the header, got {len(cells)} in {show(line)}")
        values = {key: _number(key, cells[i]) for key, i in columns.items()}
        return _row(values, counts)

    return parse


def _parse_json(line: str) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected one JSON object per line, got {show(line)} ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"expected a JSON object, got {show(line)}")
    values = {key: found[name] for key, names in _NAMES.items() for name in names if name in found}
    for key in ("timestamp_s", "start_s"):
        if isinstance(values.get(key), str):
            values[key] = _number(key, values[key])
    return _row(values, _is_counts(values, show(line)))


def _is_counts(keys: Mapping[str, Any], text: str) -> bool:
    if "timestamp_s" in keys and "start_s" not in keys:
        return False
    if "start_s" in keys and "requests" in keys and "timestamp_s" not in keys:
        return True
    raise InputError(f"expected {_KNOWN}, got {text}")


def _row(values: Mapping[str, Any], counts: bool) -> Row:
    tokens = {key: values.get(key) for key in ("request_tokens", "response_tokens")}
    if counts:
        return Row(time_s=values["start_s"], requests=values["requests"], **tokens)
    return Row(time_s=values["timestamp_s"], **tokens)


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    match = _DATE.fullmatch(text) if key.endswith("_s") else None
    if match is None:
        wanted = "seconds or a date-time like 2023-11-16 18:15:46.6805900" if key.endswith("_s") else "a number"
        raise InputError(f"expected {wanted} for {key}, got {show(text)}")
    year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 1, month)[1] and year):
        raise InputError(f"expected a day of the calendar for {key}, got {show(text)}")
    if hour > 23 or minute > 59 or second > 60:
        raise InputError(f"expected a time of the day for {key}, got {show(text)}")
    whole = calendar.timegm((year, month, day, hour, minute, second))
    if match.group(8):
        offset_s = int(match.group(9)) * 3600 + int(match.group(10)) * 60
        whole -= offset_s if match.group(8) == "+" else -offset_s
    digits = match.group(7) or "0"
    # One division of whole numbers rounds once: the float64 nearest to the text.
    scale: int = 10 ** len(digits)
    return (whole * scale + int(digits)) / scale
