"""`fcast-backtest`: judge trained models on the test part of a trace, beside the baselines and as a planner would."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.cli import Command
from training.cli_input import input_options, read_input
from training.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from training.evaluate import Backtest
    from training.forecasts import Forecasts, Run
    from training.refit import OnPiece
    from training.run import Data

_EPILOG = """\b
Examples:
  fcast-backtest runs/gru runs/dlinear --trace BurstGPT_1.csv --clean
  fcast-backtest runs/*/ --trace week.csv --lead-time 300 --html report.html
  fcast-backtest runs/gru --trace 'pools/*.csv' --each --json
  fcast-backtest runs/gru --trace week.csv --refit 4

\b
How to read it:
  wQL        mean weighted quantile loss over all steps and levels; 0 is perfect
  interval   of the difference from the best baseline, 95 %, by a paired block bootstrap;
             where it holds 0 the models can't be told apart on this test part
  capacity   provisioned over demand so that 1 % or 5 % of the bins fall short (load series)

Read the input as for fcast-train: the same trace, --columns and --clean give the same test part."""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--trace", "traces", multiple=True, required=True, metavar="FILE", help="Trace file or glob; repeatable.")
@input_options
@click.option("--clean", is_flag=True, help="Drop failed and unreadable rows, sort; says what it did.")
@click.option("--each", is_flag=True, help="Every file is a trace by itself; ends with mean ranks.")
@click.option("--lead-time", type=float, help="Seconds until ordered capacity is ready. [the whole horizon]")
@click.option(
    "--refit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cut the test part into N pieces; train and tune anew before each. [fixed models]",
)
@click.option("--arima", is_flag=True, help="Also AutoARIMA and AutoETS; minutes, and pip install 'fcast[arima]'.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the whole report as one page.")
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON.")
@click.pass_context
def main(
    context: click.Context,
    runs: tuple[str, ...],
    traces: tuple[str, ...],
    format_: str | None,
    columns: str | None,
    clean: bool,
    each: bool,
    lead_time: float | None,
    refit: int | None,
    arima: bool,
    device: str,
    html: Path | None,
    as_json: bool,
) -> None:
    """Judge trained models on the test part of a trace, from every origin in it.

    RUN is a run folder of fcast-train; all of them on the same data settings. Every model stands beside the tuned
    baselines: wQL with intervals, coverage, and the capacity a planner needs with it. A loss is reported as a loss.
    """
    from training.backtest_table import summarize
    from training.device import resolve_device
    from training.forecasts import load_runs

    if html is not None and not html.resolve().parent.is_dir():
        raise ConfigError(f"--html: expected a file in an existing folder, got {html}; make the folder first")
    if arima:
        _prepare_arima()
    on = resolve_device(device)
    loaded = load_runs(runs)
    reports = []
    for files in _groups(traces, each):
        backtest = _backtest(loaded, read_input(files, format_, columns, clean), lead_time, refit, arima, on)
        reports.append(backtest.report)
        if html is not None:
            _write_page(backtest, loaded, _page_of(html, files[0]) if each else html, _typed(context))
        if not as_json:
            _print(backtest.report)
    if as_json:
        click.echo(
            json.dumps({"reports": reports, "summary": summarize(reports)} if each else reports[0], allow_nan=False)
        )
    elif each:
        from training.backtest_table import summary_table

        _console().print(summary_table(summarize(reports)))


def _groups(traces: tuple[str, ...], each: bool) -> list[tuple[str, ...]]:
    from training.readers import expand

    return [(str(path),) for path in expand(traces)] if each else [traces]


def _backtest(
    runs: list[Run], trace: Any, lead_time_s: float | None, refit: int | None, arima: bool, device: torch.device
) -> Backtest:
    from training.decision import lead_step
    from training.evaluate import evaluate
    from training.forecasts import baseline_forecasts, check_fits, ground_of, model_forecasts, notes_on
    from training.run import prepare

    data = prepare(trace, runs[0].config.data)
    for run in runs:
        check_fits(run, data)
    ground = ground_of(data)
    if lead_time_s is not None:
        if ground.series.bin_s is None:
            raise ConfigError("--lead-time: expected runs on a load series, got a requests series; drop the option")
        lead_step(lead_time_s, step_s=ground.series.bin_s, horizon=ground.horizon)
    click.echo(
        f"{', '.join(trace.sources)}: {len(ground.series):,} steps of the {ground.series.kind} series, "
        f"{len(ground.validation):,} validation and {len(ground.test):,} test windows, on {device}",
        err=True,
    )
    if refit is not None:
        found = _refitted(runs, data, refit, arima, device)
        return evaluate(data, found, lead_time_s=lead_time_s, refit=refit)
    found = [model_forecasts(run, data, device=device) for run in runs] + baseline_forecasts(data, arima=arima)
    notes = [note for run in runs for note in notes_on(run, data)]
    return evaluate(data, found, lead_time_s=lead_time_s, notes=notes)


def _prepare_arima() -> None:
    """Refuse a missing extra before any work, and let the slow baselines say on stderr how far they have come."""
    from training import statistical
    from training.errors import TrainingError

    if not statistical.installed():
        raise TrainingError("--arima: expected the package statsforecast, got none; pip install 'fcast[arima]'")
    logger = logging.getLogger(statistical.__name__)
    logger.handlers = [_Echo()]
    logger.setLevel(logging.INFO)


class _Echo(logging.Handler):
    """What a library logs, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        click.echo(record.getMessage(), err=True)


def _refitted(runs: list[Run], data: Data, pieces: int, arima: bool, device: torch.device) -> list[Forecasts]:
    from training.refit import pieces_of, refit_forecasts

    with tempfile.TemporaryDirectory(prefix="fcast-refit-") as folder:
        return refit_forecasts(
            runs, pieces_of(data, pieces), Path(folder), device=device, on_piece=_say_piece(pieces), arima=arima
        )


def _say_piece(pieces: int) -> OnPiece:
    """Progress of a refit: a line per piece and model, and one per epoch's score would drown them."""

    def on_piece(number: int, data: Data) -> Any:
        def on_model(name: str) -> Any:
            windows = len(data.split.train)
            click.echo(f"refit {number + 1}/{pieces}: training {name} on {windows:,} windows", err=True)
            return (lambda windows, loss: None), (lambda line: None)

        return on_model

    return on_piece


def _write_page(backtest: Backtest, runs: list[Run], path: Path, command: str) -> None:
    from training.checkpoint import write_atomically
    from training.html_report import html_report

    settings = {run.name: _settings(run) for run in runs}
    write_atomically(path, html_report(backtest, settings=settings, command=command).encode())
    click.echo(f"Report: {path}", err=True)


def _settings(run: Run) -> dict[str, Any]:
    members = run.checkpoint.meta["model"].get("members")
    found = {"members": ", ".join(member["name"] for member in members)} if members else {}
    parts = run.config.to_dict()
    return found | {key: value for part in (("data",) if members else parts) for key, value in parts[part].items()}


def _page_of(html: Path, trace: str) -> Path:
    """The page of one trace of several: report.html becomes report.week.html."""
    return html.with_name(f"{html.stem}.{Path(trace).name.partition('.')[0]}{html.suffix}")


def _print(report: dict[str, Any]) -> None:
    from training.backtest_table import legend, table, verdict

    console = _console()
    console.print(table(report, width=console.width))
    for line in (legend(report), *verdict(report), *report["notes"]):
        console.print(line, markup=False)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _typed(context: click.Context) -> str:
    """The command line again, for the report."""
    words = ["fcast-backtest", *context.params["runs"]]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if not isinstance(option, click.Option) or value in (None, (), option.default):
            continue
        if option.is_flag:
            words.append(option.opts[0])
        for item in () if option.is_flag else value if isinstance(value, tuple) else (value,):
            words += [option.opts[0], str(item)]
    return shlex.join(words)
