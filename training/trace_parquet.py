"""Traces in Parquet: read in batches of rows through pyarrow, under the same rules as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.errors import TraceError
from training.formats import find_layout
from training.trace import MAX_TOKENS
from training.trace_columns import Grown
from training.trace_file import Source, Table, unreadable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 1 << 16


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The file; whatever is wrong with it becomes a `TraceError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except pa.ArrowNotImplementedError as error:
        raise TraceError(f"{path}: expected Parquet that pyarrow can read, got: {error}; write it plainly") from error
    except (pa.ArrowException, OSError) as error:  # pyarrow reports damage as either
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise TraceError(
            f"{path}: expected a complete Parquet file, got a truncated or damaged one ({reason}); copy it again"
        ) from error


def inspect_parquet(path: Path, *, format: str | None, columns: Mapping[str, str] | None) -> Source:
    """Tell the layout of a Parquet file from its schema.

    Raises:
        TraceError: damaged, empty, or of columns that fit no known format.
    """
    with _opened(path) as file:
        names = tuple(file.schema_arrow.names)
        rows = file.metadata.num_rows
    layout = find_layout(names, json_lines=None, where=str(path), format=format, columns=columns)
    for name in layout.names:
        if names.count(name) > 1:
            raise TraceError(f"{path}: expected one column '{name}', got {names.count(name)}; rename the others")
    if not rows:
        raise TraceError(f"{path}: expected rows, got none; check how the file was written")
    return Source(path=path, layout=layout, names=names, parquet=True)


def read_parquet(source: Source, on_bytes: Callable[[int], None] | None = None) -> Table | None:
    """Read a file's columns, or None when any row needs a closer look; like `training.trace_fast.read_fast`."""
    layout = source.layout
    if len(set(layout.names)) < len(layout.names):
        return None
    counts = layout.requests is not None
    columns: list[Grown] = []
    for batch, rows in _batches(source, on_bytes):
        time_s, is_date = _times(batch.column(layout.time), layout.units_per_s)
        amounts = [_amounts(batch.column(name), whole=not counts) for name in layout.names[1:]]
        if time_s is None or any(column is None for column in amounts):
            return None
        if not columns:
            columns = [Grown(np.float64 if counts or not i else np.int32, rows) for i in range(len(layout.names))]
        for column, values in zip(columns, (time_s, *amounts), strict=True):
            assert values is not None
            column.extend(values)
    named = dict(zip(layout.names, (column.finish() for column in columns), strict=True))
    return Table(
        time_s=named[layout.time],
        request_tokens=named.get(layout.request_tokens or ""),
        response_tokens=named.get(layout.response_tokens or ""),
        requests=named.get(layout.requests or ""),
        wall_clock=is_date,
    )


def parquet_rows(source: Source, on_bytes: Callable[[int], None] | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Number from 1 and the cells of `layout.names`, for each row; dates as text, as a CSV file would hold them."""
    number = 0
    for batch, _ in _batches(source, on_bytes):
        columns = [_cells(batch.column(name)) for name in source.layout.names]
        for cells in zip(*columns, strict=True):
            number += 1
            yield number, list(cells)


def _batches(source: Source, on_bytes: Callable[[int], None] | None) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of the columns wanted, and the rows of the whole file."""
    import pyarrow as pa

    size, done, told = source.path.stat().st_size, 0, 0
    with _opened(source.path) as file:
        rows = file.metadata.num_rows
        names = list(dict.fromkeys(source.layout.names))
        for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
            if len(batch):
                yield batch, rows
            done += len(batch)
            if on_bytes:  # which bytes were read is not known; the rows are
                on_bytes(size * done // rows - told)
                told = size * done // rows
    pa.default_memory_pool().release_unused()


def _times(column: pa.Array, units_per_s: float) -> tuple[np.ndarray | None, bool]:
    """Seconds, and whether they were dates; None where a value is missing or needs a closer look."""
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_date(column.type):
        column = _cast(column, pa.timestamp("ns")) or _cast(column, pa.timestamp("ns", "UTC"))
    elif pa.types.is_timestamp(column.type):
        column = _cast(column, pa.timestamp("ns", column.type.tz))
    if column is None or column.null_count:
        return None, False
    if pa.types.is_timestamp(column.type):  # in two parts: nanoseconds since 1970 do not fit the 53 bits of a float64
        values = _numbers(column, np.int64)
        return values // 10**9 + (values % 10**9) / 1e9, True
    values_s = _amounts(column, whole=False)
    return None if values_s is None else values_s / units_per_s, False


def _amounts(column: pa.Array, *, whole: bool) -> np.ndarray | None:
    """Float64, or int32 where they must be whole; None where a value is missing or needs a closer look."""
    import pyarrow as pa

    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not number or column.null_count:
        return None
    values = _numbers(column, column.type.to_pandas_dtype())
    if not whole:
        values = values.astype(np.float64, copy=False)
        return values if np.isfinite(values).all() else None
    small = (values >= -MAX_TOKENS) & (values <= MAX_TOKENS)  # not so for NaN
    if not small.all() or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
        return None
    return values.astype(np.int32, copy=False)


def _numbers(column: pa.Array, dtype: Any) -> np.ndarray:
    """The values of a column without nulls; not with `to_numpy`, which imports pandas where it is installed."""
    offset = column.offset * np.dtype(dtype).itemsize
    return np.frombuffer(column.buffers()[1], dtype=dtype, count=len(column), offset=offset)


def _cells(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = _cast(column, pa.timestamp(column.type.unit, column.type.tz and "UTC"))
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = _cast(column, pa.string())
    plain = (int, float, str, bool, type(None))
    return [cell if isinstance(cell, plain) else str(cell) for cell in column.to_pylist()]


def _cast(column: pa.Array, to: pa.DataType) -> pa.Array | None:
    import pyarrow as pa

    try:
        return column.cast(to)
    except pa.ArrowInvalid:
        return None
