"""`read_trace`: files of any known format in, one validated `Trace` out."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training import cleaning
from training.errors import TraceError
from training.formats import check_choice
from training.trace import EPOCH_FROM_S, MAX_TOKENS, Trace
from training.trace_columns import Grown
from training.trace_exact import MAX_EPOCH_S, line_of_row, read_exact
from training.trace_fast import read_fast
from training.trace_file import COLUMNS, Source, Table, inspect
from training.trace_parquet import read_parquet

_SORT = "pass --clean to sort the rows"


def read_trace(
    paths: Sequence[str | Path],
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    clean: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Trace:
    """Read, validate and join trace files.

    The files are read one after the other, in blocks, and joined column by column: unless rows must be sorted, there is
    never more beside the final arrays than one column of one file.

    Args:
        paths: files or glob patterns, text (plain or gzip) or Parquet; joined in the order of their first times.
        format: one of `training.formats.FORMATS`; by default told from each file's header.
        columns: for other CSV files or JSON lines: the column of "time", "request_tokens", "response_tokens",
            "requests" (counts per bin), and optionally "time_unit" (s, ms, us, ns).
        clean: repair what can be repaired (see `training.cleaning`) and say so in `Trace.notes`; by default
            any fault is an error.
        on_bytes: called with the number of bytes read since the last call.
    Returns:
        The trace; times in seconds, on the epoch clock for dates and numbers from 1e9, else relative.
    Raises:
        ConfigError: unknown format or column key.
        TraceError: a file is missing or breaks a rule; the text says file, line, expected, got, remedy.
    """
    check_choice(format, columns)
    tally: Counter[str] = Counter()
    parts = [_read_file(path, format, columns, clean, tally, on_bytes) for path in expand(paths)]
    parts.sort(key=lambda part: float(part[1].time_s[0]))
    sources = [source for source, _ in parts]
    tables = [table for _, table in parts]
    _check_same_kind(sources, tables)
    if not clean:
        _check_no_overlap(sources, tables)
    table = _joined(tables)
    parts.clear()
    tables.clear()
    if clean:
        cleaning.clean_order(table, tally)
    counts = table.requests is not None
    return Trace(
        time_s=table.time_s,
        request_tokens=table.request_tokens,
        response_tokens=table.response_tokens,
        requests=table.requests,
        bin_s=_bin_width(table.time_s, sources) if counts else None,
        clock="epoch" if _is_epoch(table) else "relative",
        sources=tuple(source.path.name for source in sources),
        notes=cleaning.notes(tally),
    )


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths and glob patterns name.

    Raises:
        TraceError: a pattern matches nothing, a file is missing, is a folder or is named twice.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if not Path(path).exists() and glob.has_magic(str(path)):
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if not Path(match).is_dir())
            if not matches:
                raise TraceError(f"{path}: expected files that match this pattern, got none; check the folder")
            found.extend(matches)
            continue
        if not Path(path).exists():
            raise TraceError(f"{path}: expected a trace file, got nothing at this path; check the name")
        if Path(path).is_dir():
            raise TraceError(f"{path}: expected a trace file, got a folder; name its files, or a pattern like '*.csv'")
        found.append(Path(path))
    if not found:
        raise TraceError("trace: expected at least one file, got none; name one")
    twice = [path for path, count in Counter(path.resolve() for path in found).items() if count > 1]
    if twice:
        raise TraceError(f"{twice[0]}: expected each file once, got it twice; name it once")
    return found


def _read_file(
    path: Path,
    format: str | None,
    columns: Mapping[str, str] | None,
    clean: bool,
    tally: Counter[str],
    on_bytes: Callable[[int], None] | None,
) -> tuple[Source, Table]:
    source = inspect(path, format=format, columns=columns)
    table = (read_parquet if source.parquet else read_fast)(source, on_bytes)
    if table is None or not (clean or _is_sound(table)):
        table = read_exact(source, clean=clean, on_bytes=on_bytes)
    if clean:
        cleaning.clean_values(table, source, tally)
    elif table.requests is not None:
        _check_bins(source, table)
    if table.requests is None:
        table.request_tokens = _tokens(table.request_tokens)
        table.response_tokens = _tokens(table.response_tokens)
    return source, table


def _is_sound(table: Table) -> bool:
    """Whether the columns keep every rule; which row breaks one is for `read_exact` to find."""
    time_s = table.time_s
    columns = (table.request_tokens, table.response_tokens, table.requests)
    return bool(
        np.all(time_s[1:] >= time_s[:-1])
        and time_s[0] >= 0
        and time_s[-1] < MAX_EPOCH_S
        and (time_s[0] >= EPOCH_FROM_S) == (time_s[-1] >= EPOCH_FROM_S)
        and all(column is None or column.min() >= 0 for column in columns)
    )


def _is_epoch(table: Table) -> bool:
    return table.wall_clock or float(table.time_s[0]) >= EPOCH_FROM_S


def _check_same_kind(sources: list[Source], tables: list[Table]) -> None:
    """All files hold requests or all hold counts, on one clock, with or without tokens."""

    def kind(table: Table) -> str:
        tokens = "" if table.requests is None or table.request_tokens is None else " with tokens"
        return ("requests" if table.requests is None else "counts" + tokens) + (
            " on the epoch clock" if _is_epoch(table) else " on a relative clock"
        )

    for source, table in zip(sources, tables, strict=True):
        if kind(table) != kind(tables[0]):
            raise TraceError(
                f"{source.path}: expected {kind(tables[0])} like {sources[0].path.name}, got {kind(table)}; "
                "read them separately"
            )


def _check_no_overlap(sources: list[Source], tables: list[Table]) -> None:
    for i in range(1, len(tables)):
        last, first = float(tables[i - 1].time_s[-1]), float(tables[i].time_s[0])
        if first < last or (tables[i].requests is not None and first == last):
            raise TraceError(
                f"{sources[i].path}: expected to start after {sources[i - 1].path.name} ends at {last:.3f} s, "
                f"got {first:.3f} s: the files overlap; {_SORT}"
            )


def _joined(tables: list[Table]) -> Table:
    """All rows, column by column; each file's column goes as soon as it is copied."""
    if len(tables) == 1:
        return tables[0]
    rows = sum(len(table.time_s) for table in tables)
    joined: dict[str, np.ndarray | None] = dict.fromkeys(COLUMNS)
    for name in COLUMNS:
        if getattr(tables[0], name) is None:
            continue
        whole = Grown(getattr(tables[0], name).dtype, rows)
        for table in tables:
            whole.extend(getattr(table, name))
            setattr(table, name, None)
        joined[name] = whole.finish()
    return Table(**joined, wall_clock=tables[0].wall_clock)  # type: ignore[arg-type]


def _tokens(tokens: np.ndarray | None) -> np.ndarray:
    assert tokens is not None
    assert tokens.max() <= MAX_TOKENS
    return tokens.astype(np.int32, copy=False)


def _check_bins(source: Source, table: Table) -> None:
    """Bins of one file are distinct and a whole number of widths apart, or an error with the line."""
    steps = np.diff(table.time_s)
    if (steps == 0).any():
        row = int(np.argmin(steps != 0)) + 1
        raise TraceError(
            f"{source.place(line_of_row(source, row))}: expected one row per bin, got a second one for "
            f"{source.layout.time} {table.time_s[row]:.3f} s; pass --clean to add them up"
        )
    row_off = _off_grid(steps)
    if row_off is not None:
        raise TraceError(f"{source.place(line_of_row(source, row_off + 1))}: {_off_grid_text(steps, row_off)}")


def _bin_width(time_s: np.ndarray, sources: list[Source]) -> float:
    """Width of the bins in seconds: the smallest step, of which all others are whole multiples."""
    where = ", ".join(source.path.name for source in sources)
    steps = np.diff(time_s)
    if not len(steps):
        raise TraceError(f"{where}: expected at least 2 bins to tell their width, got 1; give a longer trace")
    row_off = _off_grid(steps)
    if row_off is not None:
        raise TraceError(f"{where}: {_off_grid_text(steps, row_off)}")
    smallest = float(steps.min())
    # The mean over all bins removes the rounding of a single difference.
    width = float(time_s[-1] - time_s[0]) / round(float(np.sum(np.rint(steps / smallest))))
    return float(round(width)) if abs(width - round(width)) < 1e-6 and width > 0.5 else width


def _off_grid(steps: np.ndarray) -> int | None:
    """Index of the first step that is no whole multiple of the most common one; None when the smallest fits all."""
    if not len(steps):
        return None
    for width in (float(steps.min()), _most_common(steps)):
        multiples = steps / width
        off = np.abs(multiples - np.rint(multiples)) > 1e-3
        if not off.any():
            return None
    return int(np.argmax(off))


def _off_grid_text(steps: np.ndarray, index: int) -> str:
    return (
        f"expected bins a whole number of widths apart (most are {_most_common(steps):g} s apart), "
        f"got {steps[index]:g} s; fill in or remove the odd rows"
    )


def _most_common(steps: np.ndarray) -> float:
    values, counts = np.unique(np.round(steps, 6), return_counts=True)
    return float(values[np.argmax(counts)])
