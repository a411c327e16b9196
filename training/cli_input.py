"""What the command lines that read traces share: the options of the input, and reading with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from training.errors import ConfigError
from training.formats import FORMATS

if TYPE_CHECKING:
    from training.trace import Trace

_INPUT_OPTIONS = (
    click.option("--format", "format_", help=f"Format of the input: {', '.join(FORMATS)}. [told from the header]"),
    click.option("--columns", help="Columns of other CSVs: time=ts,request_tokens=in,response_tokens=out."),
)


def input_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the input to a command."""
    for option in reversed(_INPUT_OPTIONS):
        command = option(command)
    return command


def read_input(files: tuple[str, ...], format_: str | None, columns: str | None, clean: bool) -> Trace:
    """Read traces, from the cache where it holds them, with a progress bar; say on stderr what cleaning did."""
    from training.readers import expand
    from training.trace_cache import cache_folder, read_cached

    mapping = _mapping(columns) if columns is not None else None
    total = sum(path.stat().st_size for path in expand(files))
    said: list[str] = []
    with progress("Reading", total) as advance:
        trace = read_cached(
            files,
            folder=cache_folder(),
            format=format_,
            columns=mapping,
            clean=clean,
            on_bytes=advance,
            say=said.append,
        )
    for line in (*said, *trace.notes):
        click.echo(line, err=True)
    return trace


def _mapping(columns: str) -> dict[str, str]:
    mapping = {}
    for part in columns.split(","):
        key, equals, name = part.partition("=")
        if not (equals and key.strip() and name.strip()):
            raise ConfigError(f"--columns: expected KEY=COLUMN,..., got '{part}'; write for example time=ts,requests=n")
        mapping[key.strip()] = name.strip()
    return mapping


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that leaves no trace, and nothing at all where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda amount: None
        return
    layout: tuple[Any, ...] = (TextColumn(label), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*layout, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)
