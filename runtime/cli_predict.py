"""`fcast-predict`: a pipe. Requests in, one line each; forecasts out, one JSON line each, as soon as they stand."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import click

from .bins import on_edge
from .cli import Command, stdout_to_stderr, warn
from .cli_snapshot import SnapshotFile
from .errors import InputError
from .forecast import Forecast
from .predictor import Predictor
from .rows import Row, read_rows

_LOOKED_AT = 9
"""Counts after which their spacing is compared with the model's bins."""


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
@click.option(
    "--snapshot", type=click.Path(dir_okay=False), help="Go on from this file if it is there, and write it at the end."
)
def main(artifact: str, device: str, every: int, format_: str, keep_going: bool, snapshot: str | None) -> None:
    """Forecast a stream of requests from stdin with ARTIFACT (artifacts/NAME or artifacts/NAME/VERSION).

    \b
    Lines in: CSV with a header, or JSON lines with the same names, in any letter case:
      timestamp_s,request_tokens,response_tokens             requests
      Timestamp,...,Request tokens,Response tokens,...       a BurstGPT trace
      TIMESTAMP,ContextTokens,GeneratedTokens                an Azure trace
      timestamp,input_length,output_length                   a Mooncake trace (JSON lines, milliseconds)
      time_s,requests[,request_tokens,response_tokens]       ready counts, for a `load` model
      Time,TIMESTAMP                                         published counts: TIMESTAMP is the count

    Lines out: JSON, flushed one by one. A `requests` model answers each line. A `load` model answers each line that
    ended at least one bin: each ready count, or a request after the end of the bin of the one before; several bins
    that ended at once are answered once. time_s is the last step's time, start_s where the forecast starts, values are
    [step][channel][level]; aggregates, of a model that forecasts them, the same for the sums over the first steps, then
    the peaks among them.

    With --snapshot the next run, given the lines that follow, forecasts as if there had been no break. The file is
    written whole however a run ends: with stdin, an error, SIGTERM or Ctrl-C.

    Exit code 0: stdin was read to its end. 1: a bad line (without --keep-going), nothing on stdin, or stdout is full.
    2: wrong usage. 130: Ctrl-C. 141: the reader of stdout has gone, as in `| head -1`.
    143: SIGTERM.

    \b
    Examples:
      fcast-predict artifacts/gru < trace.csv | tail -1
      zcat counts.csv.gz | fcast-predict artifacts/load
      tail -f requests.jsonl | fcast-predict artifacts/gru --every 100 --keep-going
    """
    with stdout_to_stderr():
        predictor = Predictor(artifact, device=device)
    with SnapshotFile(snapshot, predictor) as file:
        read, bad = _answer(predictor, file, every=every, format_=format_, keep_going=keep_going)
    if not read:
        raise InputError("stdin: expected a request per line, got nothing; see fcast-predict --help")
    if bad:
        click.echo(f"{bad} of {read} lines left out", err=True)


def _answer(predictor: Predictor, file: SnapshotFile, *, every: int, format_: str, keep_going: bool) -> tuple[int, int]:
    """Answer the lines of stdin; how many were read, and how many of them left out."""
    lines, read, bad = _Lines(predictor, every), 0, 0
    for number, row in read_rows(sys.stdin.buffer, format=format_):
        read += 1
        try:
            if isinstance(row, InputError):
                raise row
            with file.undisturbed():
                forecast = lines.feed(row, where=f"stdin:{number}")
        except InputError as error:
            if not keep_going:
                raise
            click.echo(str(error), err=True)
            bad += 1
            continue
        if forecast is not None:
            click.echo(json.dumps(_line(forecast, predictor)))
    return read, bad


class _Lines:
    """Feeds rows to a predictor and says which forecasts are to be written."""

    def __init__(self, predictor: Predictor, every: int) -> None:
        self._predictor, self._every = predictor, every
        self._is_load = predictor.manifest["kind"] == "load"
        self._counts: bool | None = None  # what the stream holds, from its first good line on
        self._first_s: list[float] = []  # starts of the first counts
        self._start_s = predictor.forecast().start_s  # of a snapshot, or None
        self._due = 0

    def feed(self, row: Row, *, where: str) -> Forecast | None:
        try:
            self._check_kind(row)
            if row.requests is None:
                self._predictor.observe(row.time_s, row.request_tokens, row.response_tokens)
            else:
                self._predictor.observe_bin(row.time_s, row.requests, row.request_tokens, row.response_tokens)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        self._counts = row.requests is not None
        if self._counts and len(self._first_s) < _LOOKED_AT:
            self._look_at_width(row.time_s, where)
        if self._is_load and not self._bin_ended(row):
            return None
        self._due += 1
        return None if self._due % self._every else self._predictor.forecast()

    def _check_kind(self, row: Row) -> None:
        """Refuse what this model cannot take, in the words of a file rather than of a call."""
        manifest, counts = self._predictor.manifest, row.requests is not None
        if counts and not self._is_load:
            raise InputError(
                "expected one line per request, as this model forecasts single requests, got counts per bin; "
                "give requests, or a `load` model"
            )
        if self._counts not in (None, counts):
            kinds = ("a request", "counts per bin")
            raise InputError(f"expected {kinds[not counts]} as before, got {kinds[counts]}; give one of the two")
        if len(manifest["channels"]) > 1 and (row.request_tokens is None or row.response_tokens is None):
            raise InputError("expected request_tokens and response_tokens, which this model forecasts, got none")
        bin_s = manifest["bin_s"]
        if counts and not on_edge(row.time_s, bin_s):
            raise InputError(
                f"expected counts per {bin_s:g} s, from one multiple of {bin_s:g} to the next, as this model was "
                f"trained with, got a bin that starts at {row.time_s!r}; "
                f"recount: fcast-trace convert FILE counts.csv --to counts --bin {bin_s:g}"
            )

    def _look_at_width(self, start_s: float, where: str) -> None:
        """Counts of wider bins fit the grid too, but the model would see idle bins between them."""
        self._first_s.append(start_s)
        apart_s = min((b - a for a, b in pairwise(self._first_s)), default=0.0)
        bin_s = self._predictor.manifest["bin_s"]
        if len(self._first_s) == _LOOKED_AT and apart_s > 1.5 * bin_s:
            warn(
                f"{where}: the first {_LOOKED_AT} counts start {apart_s:g} s or more apart, while this model's bins "
                f"are {bin_s:g} s wide; bins left out count 0"
            )

    def _bin_ended(self, row: Row) -> bool:
        before, self._start_s = self._start_s, self._predictor.forecast().start_s
        return self._start_s != before and (row.requests is not None or before is not None)


def _line(forecast: Forecast, predictor: Predictor) -> dict[str, Any]:
    assert forecast.start_s is not None
    bin_s = predictor.manifest["bin_s"]
    line = {"time_s": forecast.start_s - (bin_s or 0.0), **forecast.to_dict()}
    for key in {"values", "aggregates"} & line.keys():
        line[key] = _rounded(line[key])
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
