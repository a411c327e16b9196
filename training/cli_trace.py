"""`fcast-trace`: look at a trace, convert it, clean it, or make a synthetic one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli import Group
from training.cli_input import input_options, progress, read_input
from training.errors import ConfigError
from training.trace_write import SYNTHETIC, WRITE_FORMATS, check_writable, to_counts, write_trace

if TYPE_CHECKING:
    from training.trace import Trace

_SETTINGS = {"max_content_width": 110}
_force = click.option("--force", is_flag=True, help="Replace an existing file.")


@click.group(cls=Group, context_settings=_SETTINGS)
def main() -> None:
    """Look at traces of LLM requests, convert them, clean them, or make a synthetic one.

    Reads BurstGPT (v1, v2), Azure LLM inference 2023 and 2024, Mooncake JSON lines, counts per bin, and with
    --columns any CSV; plain or gzip; several files or a quoted glob.

    \b
    Examples:
      fcast-trace describe BurstGPT_1.csv --plot burstgpt.png
      fcast-trace describe log.csv --columns time=ts,request_tokens=in,response_tokens=out
      fcast-trace clean 'logs/*.csv.gz' clean.csv
      fcast-trace convert BurstGPT_1.csv counts.csv --to counts --bin 10
      fcast-trace synth synthetic-7d.csv --days 7 --rate 2 --seed 0

    Next: fcast-train --trace FILE
    """


@main.command(context_settings=_SETTINGS)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@input_options
@click.option("--clean", is_flag=True, help="Repair what can be repaired first; says what it did.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw four panels: .png, .svg or .pdf.")
@_force
def describe(
    files: tuple[str, ...],
    format_: str | None,
    columns: str | None,
    clean: bool,
    as_json: bool,
    plot: Path | None,
    force: bool,
) -> None:
    """Say what is in a trace: rate, burstiness, lengths, gaps, cycle of the day."""
    from training.describe import describe as facts_of
    from training.trace_table import print_facts

    trace = read_input(files, format_, columns, clean)
    if plot is not None:
        from training.trace_plot import plot_trace

        plot_trace(trace, plot, force=force)
        click.echo(f"Drew {plot}", err=True)
    facts = facts_of(trace)
    if as_json:
        click.echo(json.dumps(facts, indent=2, allow_nan=False))
    else:
        print_facts(facts)


@main.command(context_settings=_SETTINGS)
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@click.argument("out", type=click.Path(path_type=Path))
@input_options
@click.option("--to", "to", type=click.Choice(WRITE_FORMATS), help="Format to write. [burstgpt; counts for counts]")
@click.option("--bin", "bin_s", type=float, help="Width of the bins in seconds, for --to counts.")
@click.option("--clean", is_flag=True, help="Repair what can be repaired first; says what it did.")
@_force
def convert(
    files: tuple[str, ...],
    out: Path,
    format_: str | None,
    columns: str | None,
    to: str | None,
    bin_s: float | None,
    clean: bool,
    force: bool,
) -> None:
    """Write a trace as BurstGPT CSV, Azure CSV, or counts per bin; joins files; .gz compresses."""
    if bin_s is not None and to not in (None, "counts"):
        raise ConfigError(f"--bin: expected --to counts beside it, got --to {to}; drop one of them")
    check_writable(out, force=force)
    trace = read_input(files, format_, columns, clean)
    to = to or ("counts" if trace.is_counts or bin_s is not None else "burstgpt")
    if to == "counts" and (bin_s is not None or not trace.is_counts):
        if bin_s is None:
            raise ConfigError("--to counts: expected --bin SECONDS, got none; add for example --bin 60")
        read_notes = len(trace.notes)
        trace = to_counts(trace, bin_s)
        for note in trace.notes[read_notes:]:
            click.echo(note, err=True)
    _write(trace, out, to, force)


@main.command(context_settings=_SETTINGS)
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@click.argument("out", type=click.Path(path_type=Path))
@input_options
@_force
def clean(files: tuple[str, ...], out: Path, format_: str | None, columns: str | None, force: bool) -> None:
    """Drop failed and unreadable rows, clip absurd lengths, sort by time; write the rest.

    Every action is printed with its number of rows. Requests are written as BurstGPT CSV, counts as counts.
    """
    check_writable(out, force=force)
    trace = read_input(files, format_, columns, True)
    if not trace.notes:
        click.echo("Nothing to clean.", err=True)
    _write(trace, out, "counts" if trace.is_counts else "burstgpt", force)


@main.command(context_settings=_SETTINGS)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--days", type=float, default=7.0, show_default=True, help="Length of the trace.")
@click.option("--rate", type=float, default=1.0, show_default=True, help="Mean requests per second.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@_force
def synth(out: Path, days: float, rate: float, seed: int, force: bool) -> None:
    """Make a synthetic trace in BurstGPT's format, for demos, tests and benchmarks.

    Bursty clients with heavy-tailed rates and lengths, a day and a week cycle, a few failed requests. The Model
    column says "synthetic"; keep the word in the file's name too. It shows that things work, never how well:
    scores on it say nothing about real traffic.
    """
    from training.synth import synthesize

    check_writable(out, force=force)
    trace = synthesize(days=days, rate_per_s=rate, seed=seed)
    _write(trace, out, "burstgpt", force, model=SYNTHETIC)
    click.echo("This trace is synthetic: good for trying things out, not for judging a forecaster.", err=True)


def _write(trace: Trace, out: Path, format_: str, force: bool, model: str = "unknown") -> None:
    with progress("Writing", len(trace)) as advance:
        write_trace(trace, out, format=format_, model=model, force=force, on_rows=advance)
    what = f"{len(trace):,} bins of {trace.bin_s:g} s" if trace.is_counts else f"{len(trace):,} requests"
    click.echo(f"{out}: {what}, {trace.span_s / 86400:.3g} days, {format_}")


if __name__ == "__main__":
    main()
