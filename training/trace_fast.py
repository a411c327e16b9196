"""The fast pass over a CSV trace: pyarrow on blocks of whole lines, into arrays that grow in place.

It accepts only what is surely fine. On anything else it returns None and `trace_exact` decides, row by row.
Blocks of half a megabyte bound the memory to the final arrays plus a few blocks; pyarrow's own streaming reader
was measured at twice that, and pandas does not check for ragged rows when it reads some columns only.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np

from training.trace_columns import Grown
from training.trace_file import Source, Table, opened

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 1 << 19
_MOST_THREADS = 4
_MOST_PACKED = 12
"""A gzip file of a trace is seldom smaller than a twelfth of its text."""
_Parsed = TypeVar("_Parsed")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d(:?\d\d)?)?\s*")


def read_fast(source: Source, on_bytes: Callable[[int], None] | None = None) -> Table | None:
    """Read a CSV file's columns with pyarrow, or None when any row needs a closer look.

    Values are neither null nor infinite; signs, order and size beyond int32 are the caller's to check.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv

    if source.layout.json_lines or len(set(source.indices)) < len(source.indices):
        return None
    date = _DATE.fullmatch(str(source.first_time))
    time_type = pa.float64() if date is None else pa.timestamp("ns", "UTC" if date[2] else None)
    tokens = pa.int32() if source.layout.requests is None else pa.float64()
    names = [str(i) for i in range(len(source.names))]
    types = dict(zip((names[i] for i in source.indices), [time_type] + [tokens] * 3, strict=False))
    options = {
        "read_options": pacsv.ReadOptions(use_threads=False, block_size=1 << 30, column_names=names),
        "convert_options": pacsv.ConvertOptions(column_types=types, include_columns=list(types)),
    }
    columns: list[Grown] = []

    def parse(block: bytes) -> list[np.ndarray] | None:
        try:
            batch = pacsv.read_csv(pa.BufferReader(block), **options)
        except pa.ArrowInvalid:
            return None
        values = [_values(batch.column(i)) for i in range(len(types))]
        return None if any(column is None for column in values) else values  # type: ignore[return-value]

    with opened(source.path, on_bytes) as file:
        for _ in range(source.header_lines):
            file.readline()
        for block in _in_parallel(parse, _blocks(file)):
            if block is None:
                return None
            if not columns:
                columns = [Grown(values.dtype, _expected(source, len(values))) for values in block]
            for column, values in zip(columns, block, strict=True):
                column.extend(values)
    if not columns:
        return None
    arrays = [column.finish() for column in columns]
    if not len(arrays[0]):
        return None
    named = dict(zip(source.layout.names, arrays, strict=True))
    return Table(
        time_s=_seconds(arrays[0], 1.0 if date else source.layout.units_per_s),
        request_tokens=named.get(source.layout.request_tokens or ""),
        response_tokens=named.get(source.layout.response_tokens or ""),
        requests=named.get(source.layout.requests or ""),
        wall_clock=date is not None,
    )


def _expected(source: Source, rows: int) -> int:
    """Rows to reserve memory for, more than there will be, from those of the first block."""
    blocks = 1 + source.path.stat().st_size / _BLOCK_BYTES
    return int(rows * blocks * (_MOST_PACKED if source.packed else 1.5))


def _seconds(time: np.ndarray, units_per_s: float) -> np.ndarray:
    if units_per_s != 1.0:
        time /= units_per_s
    return time


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines, without those that hold only line ends (pyarrow calls them empty files)."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        cut = block.rfind(b"\n") + 1
        lines, rest = (rest + block[:cut], block[cut:]) if cut else (b"", rest + block)
        if lines.strip():
            yield lines
    if rest.strip():
        yield rest


def _in_parallel(parse: Callable[[bytes], _Parsed], blocks: Iterator[bytes]) -> Iterator[_Parsed]:
    """Parse blocks on a few threads (pyarrow lets go of the interpreter lock), in order, few at a time."""
    workers = min(_MOST_THREADS, os.cpu_count() or 1)
    pending: deque[Future[_Parsed]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for block in blocks:
            pending.append(pool.submit(parse, block))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _values(column: pa.ChunkedArray) -> np.ndarray | None:
    """The column as numpy, times in seconds; None when a value is missing or infinite.

    Straight from the buffers, because `to_numpy` imports pandas if it is installed: 50 MB and half a second.
    """
    import pyarrow as pa

    if column.null_count:
        return None
    is_date = pa.types.is_timestamp(column.type)
    dtype = np.dtype({pa.int32(): np.int32, pa.float64(): np.float64}.get(column.type, np.int64))
    chunks = [
        np.frombuffer(chunk.buffers()[1], dtype=dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)
        for chunk in column.chunks
    ]
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if is_date:  # in two parts: nanoseconds since 1970 do not fit the 53 bits of a float64
        return np.asarray(values // 10**9 + (values % 10**9) / 1e9)
    return values if dtype != np.float64 or np.isfinite(values).all() else None
