"""`fcast-train --config FILE` with several runs, and `fcast-train --list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from training.compare import OnModel
    from training.many_runs import Outcome, Planned
    from training.run import Data
    from training.run_file import RunFile
    from training.trace import Trace


def print_runs(out: Path, *, as_json: bool) -> None:
    """List and compare the runs of a folder."""
    from rich.console import Console

    from training.run_list import list_runs
    from training.run_table import problems, runs_table

    rows = list_runs(out)
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False))
        return
    if not rows:
        click.echo(f"{out}: no runs", err=True)
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(runs_table(rows, title=f"Runs in {out}", width=console.width))
    for line in problems(rows):
        click.echo(line)
    click.echo("wQL, lower is better; runs of one series on one trace compare. 'vs baseline' is test beside the best")
    click.echo("baseline of the run's report. To ship the best on validation: fcast-export FOLDER --best")


def plan_runs(file: RunFile, given: dict[str, Any]) -> list[Planned]:
    """The runs of a file; settings that were given on the command line hold for all.

    Raises:
        ConfigError: a setting of one does not fit; the text names the run.
    """
    from training.config import build_runs
    from training.errors import ConfigError
    from training.many_runs import Planned
    from training.run_file import table_settings

    plans = []
    for table in file.tables:
        try:
            runs = build_runs(table["model"].split(","), table_settings(file, table) | given)
        except ConfigError as error:
            raise ConfigError(f"run {table['name']}: {error}") from error
        plans.append(Planned(name=table["name"], runs=runs, ensemble=table["ensemble"]))
    return plans


def train_tables(
    file: RunFile,
    given: dict[str, Any],
    read: Callable[[], Trace],
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train the runs of a file with their progress on stderr, print what came of them; exit 1 when one failed.

    Args:
        file: with the runs.
        given: settings of the command line.
        read: gives the trace, once everything has been checked.
        out: folder of their folders.
        resume, overwrite, tensorboard, as_json: options of the command line.

    Raises:
        ConfigError: a run can't begin.
    """
    from training.device import resolve_device
    from training.many_runs import check_plans, train_many
    from training.progress import TrainingProgress

    plans = plan_runs(file, given)
    check_plans(plans, out, resume=resume, overwrite=overwrite)
    trace = read()
    with ExitStack() as bars:

        def on_plan(plan: Planned, data: Data) -> OnModel:
            bars.close()  # those of the run before
            fit = plan.runs[0].fit
            click.echo(
                f"Run {plan.name}: {len(data.series):,} steps of the {data.series.kind} series with "
                f"{len(data.split.train):,} training windows, on {resolve_device(fit.device)}",
                err=True,
            )
            progress = bars.enter_context(TrainingProgress(windows=len(data.split.train), epochs=fit.epochs))
            if not tensorboard:
                return progress.on_model
            from training.tensorboard_log import with_tensorboard

            return with_tensorboard(progress.on_model, out / plan.name)

        def on_failure(name: str, why: str) -> None:
            bars.close()
            click.echo(f"Run {name} failed: {why}", err=True)

        try:
            outcome = train_many(
                trace, plans, out, resume=resume, overwrite=overwrite, on_plan=on_plan, on_failure=on_failure
            )
        except KeyboardInterrupt:
            bars.close()
            instead = " instead of --overwrite" if overwrite else ""
            click.echo(f"Stopped. Run the same command with --resume{instead} to go on.", err=True)
            raise
    _show(outcome, out, as_json=as_json)
    if outcome.failed:
        sys.exit(1)


def _show(outcome: Outcome, out: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from training.run_list import list_runs
    from training.run_table import runs_table

    if as_json:
        click.echo(json.dumps({"reports": outcome.reports, "failed": outcome.failed}))
        return
    if outcome.reports:
        rows = [row for name in outcome.reports for row in list_runs(out / name)]
        for row in rows:
            row["name"] = Path(row["folder"]).relative_to(out).as_posix()
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        console.print(runs_table(rows, title=f"Runs in {out}", width=console.width))
    for name, why in outcome.failed.items():
        click.echo(f"{name} failed: {why}")
    click.echo(f"Reports: {out}/RUN/report.md; all runs: fcast-train --list --out {out}")
