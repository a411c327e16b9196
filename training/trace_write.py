"""Writing traces: BurstGPT or Azure request rows, or counts per bin, as CSV (gzip when the name ends in .gz)."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from training.bins import bin_of_rows, bin_of_times, check_bins
from training.errors import ConfigError, TraceError, nearest
from training.trace import GAP_S, Trace

WRITE_FORMATS = ("burstgpt", "azure", "counts")
SYNTHETIC = "synthetic"
"""What the Model column of a generated trace holds."""

_BATCH = 100_000


def write_trace(
    trace: Trace,
    path: str | Path,
    *,
    format: str,
    model: str = "unknown",
    force: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> None:
    """Write a trace as one file, complete or not at all.

    Args:
        trace: requests for "burstgpt" and "azure"; counts for "counts" (see `to_counts`).
        path: the file; a name ending in .gz is compressed.
        format: one of `WRITE_FORMATS`.
        model: content of BurstGPT's Model column.
        force: replace an existing file.
        on_rows: called with the number of rows written since the last call.
    Raises:
        ConfigError: unknown format.
        TraceError: the trace does not fit the format, the file exists, or it cannot be written.
    """
    if format not in WRITE_FORMATS:
        raise ConfigError(f"write_trace: expected a format to write, got '{format}'; {nearest(format, WRITE_FORMATS)}")
    if trace.is_counts != (format == "counts"):
        has, wants = ("counts", "requests") if trace.is_counts else ("requests", "counts")
        raise TraceError(f"{path}: expected {wants} for format '{format}', got {has}; convert the trace first")
    if format == "azure" and trace.clock != "epoch":
        raise TraceError(f"{path}: expected wall-clock times for format 'azure', got relative ones; write 'burstgpt'")
    header, columns = _LAYOUTS[format]
    with published(Path(path), force=force) as file:
        file.write((header(trace) + "\n").encode())
        for start in range(0, len(trace), _BATCH):
            rows = slice(start, min(start + _BATCH, len(trace)))
            _write_batch(file, columns(trace, rows, model))
            if on_rows:
                on_rows(rows.stop - rows.start)


def to_counts(trace: Trace, bin_s: float) -> Trace:
    """Count requests and add up tokens per bin [k*bin_s, (k+1)*bin_s) of the trace's clock.

    Bins without requests count 0, except those wholly inside a silence longer than `GAP_S`: they are missing
    data, are left out, and a note says how many.

    Raises:
        ConfigError: `bin_s` is not positive, not a whole multiple of the bins that a trace of counts has, or so
            narrow that the bins would not fit into memory.
        TraceError: counts do not start at multiples of their bins.
    """
    where, bin_s = ", ".join(trace.sources), float(bin_s)
    if not (np.isfinite(bin_s) and bin_s > 0):
        raise ConfigError(f"{where}: expected a bin above 0 s, got {bin_s:g}; give a width in seconds")
    check_bins(int(trace.span_s / bin_s), bin_s=bin_s, where=where)
    if trace.bin_s is not None:
        index = bin_of_rows(trace.time_s, row_s=trace.bin_s, bin_s=bin_s, where=where)
    else:
        index = bin_of_times(trace.time_s, bin_s)
    first = int(index[0])
    bins = int(index[-1]) - first + 1
    keep = np.ones(bins, dtype=bool)
    for row in np.flatnonzero(np.diff(trace.time_s) - (trace.bin_s or 0.0) > GAP_S):
        keep[int(index[row]) - first + 1 : int(index[row + 1]) - first] = False

    def total(weights: np.ndarray | None) -> np.ndarray:
        return np.bincount(index - first, weights=weights, minlength=bins).astype(np.float64)[keep]

    left_out = int(bins - keep.sum())
    has_tokens = trace.request_tokens is not None
    notes = (f"left out {left_out:,} empty bins in silences longer than {GAP_S / 3600:g} h",) if left_out else ()
    return Trace(
        time_s=((np.arange(bins) + first) * bin_s)[keep],
        request_tokens=total(trace.request_tokens) if has_tokens else None,
        response_tokens=total(trace.response_tokens) if has_tokens else None,
        requests=total(trace.requests),
        bin_s=bin_s,
        clock=trace.clock,
        sources=trace.sources,
        notes=trace.notes + notes,
    )


def _burstgpt_columns(trace: Trace, rows: slice, model: str) -> list[np.ndarray | str]:
    asked, answered = _tokens(trace, rows)
    return [trace.time_s[rows], model, asked, answered, asked.astype(np.int64) + answered, "Conversation log"]


def _azure_columns(trace: Trace, rows: slice, model: str) -> list[np.ndarray | str]:
    ticks = np.rint(trace.time_s[rows] * 1e7).astype(np.int64)  # Azure's unit: seven digits after the second
    text = np.datetime_as_string((ticks * 100).view("datetime64[ns]"))
    return [np.char.replace(text.astype("U27"), "T", " "), *_tokens(trace, rows)]


def _counts_columns(trace: Trace, rows: slice, model: str) -> list[np.ndarray | str]:
    assert trace.requests is not None
    columns: list[np.ndarray | str] = [trace.time_s[rows], trace.requests[rows]]
    return columns + ([] if trace.request_tokens is None else [*_tokens(trace, rows)])


def _tokens(trace: Trace, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    assert trace.request_tokens is not None
    assert trace.response_tokens is not None
    return trace.request_tokens[rows], trace.response_tokens[rows]


def _counts_header(trace: Trace) -> str:
    return "time_s,requests" + ("" if trace.request_tokens is None else ",request_tokens,response_tokens")


_LAYOUTS: dict[str, tuple[Callable[[Trace], str], Callable[[Trace, slice, str], list[np.ndarray | str]]]] = {
    "burstgpt": (
        lambda trace: "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        _burstgpt_columns,
    ),
    "azure": (lambda trace: "TIMESTAMP,ContextTokens,GeneratedTokens", _azure_columns),
    "counts": (_counts_header, _counts_columns),
}


def _write_batch(file: IO[bytes], columns: list[np.ndarray | str]) -> None:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    rows = next(len(column) for column in columns if isinstance(column, np.ndarray))
    arrays = [
        pa.repeat(pa.scalar(column), rows) if isinstance(column, str) else pa.array(_plain(column))
        for column in columns
    ]
    table = pa.table(arrays, names=[str(i) for i in range(len(arrays))])
    text = io.BytesIO()
    pacsv.write_csv(table, text, pacsv.WriteOptions(include_header=False, quoting_style="none"))
    file.write(text.getbuffer())


def _plain(column: np.ndarray) -> np.ndarray:
    """Whole floats as integers: shorter text, and never an exponent."""
    if column.dtype != np.float64 or not np.all(column == np.floor(column)) or np.abs(column).max() > 2**53:
        return column
    return column.astype(np.int64)


@contextmanager
def published(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when the block ends well."""
    check_writable(path, force=force)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as raw:
            if path.suffix == ".gz":
                # No name and no time in the gzip header: the same trace gives the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
                    yield packed  # type: ignore[misc]  # a binary stream in all but its declared type
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise TraceError(
            f"{path}: expected to write this file, got '{error.strerror or error}'; "
            f"check the folder, its rights and the disk"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def check_writable(path: Path, *, force: bool) -> None:
    """Fail early, before long work, when `path` could not become a new file."""
    if path.is_dir():
        raise TraceError(f"{path}: expected a file name to write, got a folder; add a file name")
    if path.exists() and not force:
        raise TraceError(f"{path}: expected a new file, got an existing one; choose another name or pass --force")
    if not path.parent.is_dir():
        raise TraceError(f"{path}: expected an existing folder, got '{path.parent}'; create it first")
