"""`fcast-predict`: a pipe. Requests in, one line each; forecasts out, one JSON line each, as soon as they stand."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .cli import Command
from .errors import InputError
from .forecast import Forecast
from .predictor import Predictor
from .rows import Row, read_rows


@click.command(cls=Command)
@click.argument("artifact", type=click.Path())
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Write each N-th forecast.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "csv", "jsonl"]),
    default="auto",
    show_default=True,
    help="What stdin holds; auto looks at its first line.",
)
@click.option("--keep-going", is_flag=True, help="Report a bad line on stderr, leave it out and go on.")
def main(artifact: str, device: str, every: int, format_: str, keep_going: bool) -> None:
    """Forecast a stream of requests from stdin with ARTIFACT (artifacts/NAME or artifacts/NAME/VERSION).

    \b
    Lines in: CSV with a header, or JSON lines with the same names:
      timestamp_s,request_tokens,response_tokens             requests
      Timestamp,...,Request tokens,Response tokens,...       a BurstGPT trace
      TIMESTAMP,ContextTokens,GeneratedTokens                an Azure trace
      start_s,requests[,request_tokens,response_tokens]      ready counts, for a `load` model

    Lines out: JSON, flushed one by one. A `requests` model answers each request, a `load` model each bin that ended.
    time_s is the last step's time, start_s where the forecast starts, values are [step][channel][level].

    Exit code 0: stdin was read to its end. 1: a bad line (without --keep-going), or nothing on stdin.

    \b
    Examples:
      fcast-predict artifacts/gru < trace.csv | tail -1
      tail -f requests.jsonl | fcast-predict artifacts/gru --every 100 --keep-going
    """
    predictor = Predictor(artifact, device=device)
    lines, bad = _Lines(predictor, every), 0
    read = 0
    for number, row in read_rows(sys.stdin.buffer, format=format_):
        read += 1
        try:
            if isinstance(row, InputError):
                raise row
            forecast = lines.feed(row, where=f"stdin:{number}")
        except InputError as error:
            if not keep_going:
                raise
            click.echo(str(error), err=True)
            bad += 1
            continue
        if forecast is not None:
            click.echo(json.dumps(_line(forecast, predictor)))
    if not read:
        raise InputError("stdin: expected a request per line, got nothing; see fcast-predict --help")
    if bad:
        click.echo(f"{bad} of {read} lines left out", err=True)


class _Lines:
    """Feeds rows to a predictor and says which forecasts are to be written."""

    def __init__(self, predictor: Predictor, every: int) -> None:
        self._predictor, self._every = predictor, every
        self._is_load = predictor.manifest["kind"] == "load"
        self._start_s: float | None = None
        self._due = 0

    def feed(self, row: Row, *, where: str) -> Forecast | None:
        try:
            if row.requests is None:
                self._predictor.observe(row.time_s, row.request_tokens, row.response_tokens)
            else:
                self._predictor.observe_bin(row.time_s, row.requests, row.request_tokens, row.response_tokens)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if self._is_load and not self._bin_ended(row):
            return None
        self._due += 1
        return None if self._due % self._every else self._predictor.forecast()

    def _bin_ended(self, row: Row) -> bool:
        before, self._start_s = self._start_s, self._predictor.forecast().start_s
        return self._start_s != before and (row.requests is not None or before is not None)


def _line(forecast: Forecast, predictor: Predictor) -> dict[str, Any]:
    assert forecast.start_s is not None
    bin_s = predictor.manifest["bin_s"]
    line = {"time_s": forecast.start_s - (bin_s or 0.0), **forecast.to_dict()}
    line["values"] = _rounded(line["values"])
    if bin_s is None:
        following = forecast.next_request(_middle(forecast.levels))
        line["next_request"] = {
            "timestamp_s": following.timestamp_s,
            "request_tokens": _rounded(following.request_tokens),
            "response_tokens": _rounded(following.response_tokens),
        }
    return line


def _middle(levels: tuple[float, ...]) -> float:
    return min(levels, key=lambda level: abs(level - 0.5))


def _rounded(values: Any) -> Any:
    return [_rounded(v) for v in values] if isinstance(values, list) else float(f"{values:.6g}")
