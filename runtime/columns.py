"""Which column or JSON key of a line holds what: the names of `training/formats.py`, for a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .errors import InputError
from .fields import show

_COUNT_TIMES = ("time_s", "time", "ts", "timestamp", "start_s", "start", "datetime")
_COUNT_REQUESTS = ("requests", "count", "counts", "num_requests", "request_count")
_TOKENS = ("request_tokens", "response_tokens")
_KNOWN = (
    "timestamp_s,request_tokens,response_tokens (requests), time_s,requests[,request_tokens,response_tokens] (counts), "
    "or the names of a BurstGPT, Azure or Mooncake trace"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The names that a line of this layout has, spelled as there."""

    time: str
    requests: str | None = None
    """Requests in a bin; None when a line is a request."""
    request_tokens: str | None = None
    response_tokens: str | None = None
    units_per_s: float = 1.0
    """Numeric times are divided by this."""


_ROWS = (
    Columns(time="timestamp", request_tokens="request tokens", response_tokens="response tokens"),  # BurstGPT
    Columns(time="timestamp", request_tokens="contexttokens", response_tokens="generatedtokens"),  # Azure
)
_MOONCAKE = Columns(
    time="timestamp", request_tokens="input_length", response_tokens="output_length", units_per_s=1e3
)  # JSON lines alone


def find_columns(names: Iterable[str], *, json_lines: bool) -> Columns:
    """Tell what a line holds from its names; letter case and blanks around a name do not matter.

    Raises:
        InputError: no known layout fits, two do, or a name that is needed stands there twice.
    """
    names = list(names)
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(name.strip().lower(), []).append(name)
    found = _find(set(known), json_lines=json_lines)
    if found is None:
        raise InputError(f"expected {_KNOWN}, got {show(','.join(names))}")

    def spelled(name: str | None) -> str | None:
        if name is None:
            return None
        if len(known[name]) > 1:
            raise InputError(f"expected one column '{name}', got {show(','.join(known[name]))}")
        return known[name][0]

    time = spelled(found.time)
    assert time is not None
    return Columns(
        time=time,
        requests=spelled(found.requests),
        request_tokens=spelled(found.request_tokens),
        response_tokens=spelled(found.response_tokens),
        units_per_s=found.units_per_s,
    )


def _find(known: set[str], *, json_lines: bool) -> Columns | None:
    for layout in (*_ROWS, _MOONCAKE) if json_lines else _ROWS:
        if {layout.time, layout.request_tokens, layout.response_tokens} <= known:
            return layout
    requests = next((name for name in _COUNT_REQUESTS if name in known), None)
    if "timestamp_s" in known:
        if requests is not None or "start_s" in known:
            return None
        # A `load` model of counts alone needs no sizes.
        request, response = (name if name in known else None for name in _TOKENS)
        return Columns(time="timestamp_s", request_tokens=request, response_tokens=response)
    if known == {"time", "timestamp"}:  # as published by LLM_energy_optimization_rl: TIMESTAMP is the count
        return Columns(time="time", requests="timestamp")
    time = next((name for name in _COUNT_TIMES if name in known), None)
    if time is None or requests is None:
        return None
    request, response = _TOKENS if known.issuperset(_TOKENS) else (None, None)
    return Columns(time=time, requests=requests, request_tokens=request, response_tokens=response)
