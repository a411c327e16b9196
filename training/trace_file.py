"""Opening a trace file: text, plain or gzip, or Parquet, and where its header ends."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from training.errors import TraceError
from training.formats import Layout, find_layout

COLUMNS = ("time_s", "request_tokens", "response_tokens", "requests")
_HEAD_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive",
    _PARQUET: "a Parquet file inside gzip",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One trace file and how to read it."""

    path: Path
    layout: Layout
    names: tuple[str, ...]
    """Columns of the header; for JSON lines the keys of the first object."""
    header_lines: int = 0
    """Physical lines before the first row of data; 0 for JSON lines."""
    first_time: Any = None
    """The time of the first row as written; None when there is no row, and for Parquet."""
    packed: bool = False
    """The text is compressed with gzip."""
    parquet: bool = False
    """A Parquet file, whose rows have numbers from 1 instead of lines."""

    @property
    def indices(self) -> tuple[int, ...]:
        """Positions of `layout.names` in a CSV row."""
        return tuple(self.names.index(name) for name in self.layout.names)

    def place(self, line: int) -> str:
        """Where a row is, for errors."""
        return f"{self.path}: row {line}" if self.parquet else f"{self.path}:{line}"


@dataclass(slots=True, kw_only=True)
class Table:
    """Columns of one file as read, then cleaned in place; tokens of requests are integers, totals float64.

    Attributes:
        time_s, request_tokens, response_tokens, requests: (N,) each, as `COLUMNS` names them.
    """

    time_s: np.ndarray
    request_tokens: np.ndarray | None
    response_tokens: np.ndarray | None
    requests: np.ndarray | None
    wall_clock: bool
    """Times were written as dates."""
    unreadable: int = 0
    """Rows left out because a value could not be read (only when cleaning)."""


@contextmanager
def opened(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """The file's bytes, uncompressed when its first bytes say gzip. Damage becomes a `TraceError`.

    Args:
        path: file to open.
        on_bytes: called with the number of bytes of the file (compressed, if it is) read since the last call.
    """
    try:
        with open(path, "rb", buffering=0) as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            counted = io.BufferedReader(_Counted(raw, on_bytes), buffer_size=1 << 17)
            yield gzip.GzipFile(fileobj=counted, mode="rb") if packed else counted  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(
            f"{path}: expected a complete gzip file, got a truncated or damaged one ({error}); copy it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


class _Counted(io.RawIOBase):
    """A raw file that reports how much of it was read."""

    def __init__(self, raw: IO[bytes], on_bytes: Callable[[int], None] | None) -> None:
        self._raw, self._on_bytes = raw, on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        if self._on_bytes:
            self._on_bytes(count)
        return int(count)


def inspect(path: Path, *, format: str | None, columns: Mapping[str, str] | None) -> Source:
    """Read the head of a file and tell its layout.

    Raises:
        TraceError: empty, binary, header only, or a header that fits no known format.
    """
    start = _first_bytes(path)
    if start == _PARQUET:
        from training.trace_parquet import inspect_parquet

        return inspect_parquet(path, format=format, columns=columns)
    head, packed = _text_head(path), start.startswith(_GZIP)
    if head.lstrip().startswith("{"):
        return _inspect_json(path, head, packed, format=format, columns=columns)
    rows = csv.reader(io.StringIO(head, newline=""))
    try:
        names = next(row for row in rows if row)
        header_lines = rows.line_num
        first_row = next((row for row in rows if row), None)
    except csv.Error as error:
        raise TraceError(f"{path}:1: expected a CSV header, got one that cannot be read ({error}); fix it") from error
    where = f"{path}:{header_lines}"
    layout = find_layout(names, json_lines=False, where=where, format=format, columns=columns)
    if first_row is None:
        raise TraceError(f"{path}: expected rows after the header, got none; check how the file was written")
    time = names.index(layout.time)
    return Source(
        path=path,
        layout=layout,
        names=tuple(names),
        header_lines=header_lines,
        first_time=first_row[time] if time < len(first_row) else None,
        packed=packed,
    )


def _inspect_json(
    path: Path, head: str, packed: bool, *, format: str | None, columns: Mapping[str, str] | None
) -> Source:
    line = 1 + head[: len(head) - len(head.lstrip())].count("\n")
    text = head.lstrip().split("\n", 1)[0]
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}:{line}: expected a JSON object, got '{text[:60]}' ({error}); fix the line") from error
    layout = find_layout(tuple(record), json_lines=True, where=f"{path}:{line}", format=format, columns=columns)
    first_time = record.get(layout.time)
    return Source(path=path, layout=layout, names=tuple(record), first_time=first_time, packed=packed)


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(len(_PARQUET))
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> TraceError:
    """The error for a file that the system does not let read."""
    return TraceError(
        f"{path}: expected a readable file, got '{error.strerror or error}'; check the path and its rights"
    )


def _text_head(path: Path) -> str:
    """The first lines as text."""
    with opened(path) as file:
        head = file.read(_HEAD_BYTES)
        whole = len(head) < _HEAD_BYTES
        while not whole and b"\n" not in head.lstrip() and len(head) < 64 * _HEAD_BYTES:  # one very long first line
            more = file.read(_HEAD_BYTES)
            head, whole = head + more, not more
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if head.startswith(magic)), None)
    if kind is None and b"\0" in head:
        kind = "binary data"
    if kind is None:
        # Only whole lines: a cut could split a character or a row.
        lines = head if whole else head[: head.rfind(b"\n") + 1]
        try:
            lines.lstrip().partition(b"\n")[0].decode()
        except UnicodeDecodeError:
            kind = "binary data"
        else:
            text = lines.removeprefix(_BOM).decode(errors="replace")
            if text.strip():
                return text
            kind = "an empty file"
    raise TraceError(
        f"{path}: expected CSV or JSON lines, plain or gzip, or Parquet, got {kind}; give the trace as such a file"
    )
