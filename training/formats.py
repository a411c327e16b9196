"""The trace formats fcast knows, and how a file's first line tells which one it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.errors import ConfigError, TraceError, nearest

FORMATS = ("burstgpt", "azure", "mooncake", "counts")
"""Names that `--format` takes. "burstgpt" covers v1 and v2: v2 only adds columns."""

COLUMN_KEYS = ("time", "request_tokens", "response_tokens", "requests", "time_unit")
TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_COUNT_TIMES = ("time_s", "time", "ts", "timestamp", "start_s", "start", "datetime")
_COUNT_REQUESTS = ("requests", "count", "counts", "num_requests", "request_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a file keeps what a trace needs. Names are columns of CSV or Parquet files, or keys of JSON lines."""

    format: str
    """One of `FORMATS`, or "columns" when the user mapped the columns."""
    time: str
    """Arrival time, or start of the bin."""
    request_tokens: str | None = None
    """Tokens of the request, or total of the bin."""
    response_tokens: str | None = None
    """Tokens of the response, or total of the bin."""
    requests: str | None = None
    """Requests in the bin; None when rows are requests."""
    units_per_s: float = 1.0
    """Numeric times are divided by this."""
    json_lines: bool = False
    """One JSON object per line instead of CSV."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns read, in the order time, request tokens, response tokens, requests."""
        names = (self.time, self.request_tokens, self.response_tokens, self.requests)
        return tuple(name for name in names if name is not None)


BURSTGPT = Layout(
    format="burstgpt", time="Timestamp", request_tokens="Request tokens", response_tokens="Response tokens"
)
AZURE = Layout(format="azure", time="TIMESTAMP", request_tokens="ContextTokens", response_tokens="GeneratedTokens")
MOONCAKE = Layout(
    format="mooncake",
    time="timestamp",
    request_tokens="input_length",
    response_tokens="output_length",
    units_per_s=1e3,
    json_lines=True,
)
_ROW_LAYOUTS = (BURSTGPT, AZURE, MOONCAKE)


def check_choice(format: str | None, columns: Mapping[str, str] | None) -> None:
    """Refuse an unknown format name or column mapping before any file is opened.

    Raises:
        ConfigError: unknown name, both given, or a mapping that is not complete.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"--format: expected a known trace format, got '{format}'; {nearest(format, FORMATS)}")
    if not columns:
        return
    if format is not None:
        raise ConfigError("--columns: expected no --format beside it, got both; drop one of them")
    for key in columns:
        if key not in COLUMN_KEYS:
            raise ConfigError(f"--columns: expected a known key, got '{key}'; {nearest(key, COLUMN_KEYS)}")
    unit = columns.get("time_unit", "s")
    if unit not in TIME_UNITS:
        raise ConfigError(f"--columns: expected time_unit as one of {', '.join(TIME_UNITS)}, got '{unit}'; pick one")
    tokens = {"request_tokens", "response_tokens"} & set(columns)
    complete = "time" in columns and (len(tokens) == 2 or (not tokens and "requests" in columns))
    if not complete:
        raise ConfigError(
            f"--columns: expected time, request_tokens and response_tokens (one row per request) or time and requests "
            f"(counts per bin; token totals both or none), got {', '.join(columns) or 'nothing'}; add what is missing"
        )


def find_layout(
    names: Sequence[str],
    *,
    json_lines: bool | None,
    where: str,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Layout:
    """Tell the layout of a file from the names in its header (or in its first JSON object).

    Args:
        names: column names as found, in order.
        json_lines: the file holds JSON lines; None for Parquet, which may hold what either does.
        where: file and line of the header, for errors.
        format: overrides detection.
        columns: overrides both; see `check_choice`.
    Returns:
        The layout, with column names spelled as in the file.
    Raises:
        TraceError: no known layout fits, or a column is missing.
    """
    if columns:
        wanted = Layout(
            format="columns",
            time=columns["time"],
            request_tokens=columns.get("request_tokens"),
            response_tokens=columns.get("response_tokens"),
            requests=columns.get("requests"),
            units_per_s=TIME_UNITS[columns.get("time_unit", "s")],
            json_lines=bool(json_lines),
        )
        return _spelled(wanted, names, where)
    if format is not None and format != "counts":
        wanted = next(layout for layout in _ROW_LAYOUTS if layout.format == format)
        if json_lines is not None and wanted.json_lines != json_lines:
            kinds = ("JSON lines", "CSV") if wanted.json_lines else ("CSV", "JSON lines")
            raise TraceError(f"{where}: expected {kinds[0]} for format '{format}', got {kinds[1]}; drop --format")
        return _spelled(wanted, names, where)
    known = {_key(name) for name in names}
    if format is None:
        for layout in _ROW_LAYOUTS:
            if json_lines in (None, layout.json_lines) and known.issuperset(map(_key, layout.names)):
                return _spelled(layout, names, where)
    counts = None if json_lines else _counts_layout(known)
    if counts is not None:
        return _spelled(counts, names, where)
    found = ", ".join(names)
    found = found if len(found) <= 200 else found[:200] + "..."
    headless = any(_is_number(name) for name in names)
    raise TraceError(
        f"{where}: expected the header of a known format ({', '.join(FORMATS)}), got '{found}'; "
        + ("the file seems to have no header: add one, then " if headless else "")
        + "name the columns: "
        "--columns time=NAME,request_tokens=NAME,response_tokens=NAME, or --columns time=NAME,requests=NAME"
    )


def _counts_layout(known: set[str]) -> Layout | None:
    if known == {"time", "timestamp"}:  # as published by LLM_energy_optimization_rl: TIMESTAMP is the count
        return Layout(format="counts", time="time", requests="timestamp")
    time = next((name for name in _COUNT_TIMES if name in known), None)
    requests = next((name for name in _COUNT_REQUESTS if name in known), None)
    if time is None or requests is None:
        return None
    tokens = known.issuperset({"request_tokens", "response_tokens"})
    return Layout(
        format="counts",
        time=time,
        request_tokens="request_tokens" if tokens else None,
        response_tokens="response_tokens" if tokens else None,
        requests=requests,
    )


def _spelled(layout: Layout, names: Sequence[str], where: str) -> Layout:
    """The layout with each name as the file spells it; letter case and blanks around a name do not matter."""

    def spell(wanted: str | None) -> str | None:
        if wanted is None or wanted in names:
            return wanted
        found = [name for name in names if _key(name) == _key(wanted)]
        if not found:
            raise TraceError(
                f"{where}: expected column '{wanted}', got columns {', '.join(map(repr, names))}; "
                "name the columns with --columns"
            )
        return found[0]

    time = spell(layout.time)
    assert time is not None
    return Layout(
        format=layout.format,
        time=time,
        request_tokens=spell(layout.request_tokens),
        response_tokens=spell(layout.response_tokens),
        requests=spell(layout.requests),
        units_per_s=layout.units_per_s,
        json_lines=layout.json_lines,
    )


def _key(name: str) -> str:
    return name.strip().lower()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
