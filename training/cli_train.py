"""`fcast-train`: train forecasters on a trace and compare them with the simple baselines."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.cli import Command, shown_log
from training.cli_input import input_options, read_input
from training.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from training.checkpoint import Checkpoint
    from training.config import RunConfig
    from training.run_file import RunFile
    from training.trace import Trace
    from training.tune import Tuned

_EPILOG = """\b
Examples:
  fcast-train --trace BurstGPT_1.csv --model gru --series requests
  fcast-train --trace 'logs/*.csv.gz' --model gru,dlinear --series load --bin 60 --context 120
  fcast-train --trace t.csv --model transformer --set d_model=128 --set learning_rate=0.001
  fcast-train --trace t.csv --model gru,recent_quantiles
  fcast-train --trace t.csv --config run.toml --resume
  torchrun --standalone --nproc_per_node 4 --no-python fcast-train --trace t.csv --model gru
  fcast-train --trace newer.csv --from runs/gru --out runs/newer
  fcast-train --trace t.csv --series load --context 60 --model gru --tune 20
  fcast-train --trace t.csv --config runs/gru --out again
  fcast-train --list --out runs

\b
Settings for --set and the TOML file (flat, the same keys):
  data      series, bin_s, step_s, gap_s, context, horizon, levels, split, stride
  scaling   log, unit, center, calendar, anchor, recent, calibrate
  training  refit, epochs, batch_size, learning_rate, weight_decay, patience, by_size, clip_norm, seed, device,
            precision (fp32, amp, bf16, fp16), compile, micro_batch, gradient_checkpointing, checkpoint_s
  models    hidden_size, num_layers, dropout (lstm, gru), kernel_size (dlinear), d_model, nhead, ... (transformer)

\b
Several runs in one command, each into OUT/NAME: [[run]] tables below the settings that all share
  [[run]]
  name = "small"
  model = "gru"
  hidden_size = 32

Next: fcast-export runs/gru --format onnx"""


def _complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from training.baselines import NAMES
    from training.registry import model_names

    done, _, last = incomplete.rpartition(",")
    known = [*model_names(), *NAMES]
    return [f"{done},{name}" if done else name for name in known if name.startswith(last)]


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110})
@click.option("--trace", "traces", multiple=True, metavar="FILE", help="Trace file or glob; repeatable.")
@input_options
@click.option("--clean", is_flag=True, help="Drop failed and unreadable rows, sort; says what it did.")
@click.option(
    "--model",
    "models",
    shell_complete=_complete_models,
    help="Architectures, comma-separated: lstm, gru, dlinear, transformer, multiscale, or any registered one. [gru] "
    "Also simple baselines, tuned and saved for export: last_value, mean_of_last, exponential_smoothing, damped_holt, "
    "kalman, kalman_log1p, seasonal_naive, recent_quantiles.",
)
@click.option("--ensemble", is_flag=True, help="Also make one model of all of them: the mean of their quantiles.")
@click.option(
    "--series", type=click.Choice(["requests", "load"]), help="One step per request, or per time bin. [requests]"
)
@click.option("--bin", "bin_s", type=float, help="Width of a bin of a load series, seconds. [60]")
@click.option("--step", "step_s", type=float, help="Width of a forecast step, a multiple of --bin. [one bin]")
@click.option("--context", type=int, help="Steps seen: bins, or requests. [50]")
@click.option("--horizon", type=int, help="Steps forecast. [10]")
@click.option("--split", help="Proportions of train, validation and test, in time order. [60,20,20]")
@click.option("--epochs", type=int, help="Most passes over the training windows. [30]")
@click.option("--seed", type=int, help="Seed; equal seeds give equal weights on the CPU. [0]")
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps. [auto]")
@click.option(
    "--from",
    "start_path",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Begin with the weights of this run, on newer data or another service; its settings hold.",
)
@click.option("--tune", "trials", type=int, metavar="N", help="Search settings in N trials, then train the best.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file of settings, or of several runs; or a run folder, to make that run again. Options override it.",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting; repeatable.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the runs."
)
@click.option("--resume", is_flag=True, help="Go on with interrupted runs, and take finished ones as they are.")
@click.option("--overwrite", is_flag=True, help="Replace earlier runs.")
@click.option("--tensorboard", is_flag=True, help="Also write event files, into OUT/MODEL/tensorboard.")
@click.option("--list", "listing", is_flag=True, help="List and compare the runs in OUT; nothing is trained.")
@click.option("--json", "as_json", is_flag=True, help="Print the report, or the list, as JSON.")
def main(
    traces: tuple[str, ...],
    format_: str | None,
    columns: str | None,
    clean: bool,
    models: str | None,
    ensemble: bool,
    start_path: Path | None,
    trials: int | None,
    config: Path | None,
    sets: tuple[str, ...],
    out: Path,
    resume: bool,
    overwrite: bool,
    tensorboard: bool,
    listing: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train forecasters of LLM request traffic on a trace.

    Each model trains into OUT/<model>; OUT/report.md shows every one beside the simple baselines. The split is by
    time, validation chooses, test is only reported. Ctrl-C, SIGTERM or a kill: repeat the command to go on.

    --tune searches what is not given: learning rate, weight decay, batch size, the context and the models'
    hyper-parameters.
    """
    if listing:
        from training.cli_many import print_runs

        print_runs(out, as_json=as_json)
        return
    if not traces:
        raise click.UsageError("Missing option '--trace'.")
    from rich.console import Console

    from training.checkpoint import load_checkpoint
    from training.compare import check_runs, follow_models, train_models
    from training.config import build_runs
    from training.device import resolve_device
    from training.plots import save_curves
    from training.progress import TrainingProgress
    from training.report import legend, next_command, save_report, table
    from training.run import prepare
    from training.stop import handled_signals
    from training.warm_start import warm_run
    from training.world import this_world

    if tensorboard:
        from training.tensorboard_log import check_installed, with_tensorboard

        check_installed()
    file, given = _read_config(config), _given(sets, options)
    if file.tables:
        _check_alone({"--model": models, "--ensemble": ensemble, "--from": start_path, "--tune": trials})
        from training.cli_many import train_tables

        read = partial(read_input, traces, format_, columns, clean)
        flags = {"resume": resume, "overwrite": overwrite, "tensorboard": tensorboard, "as_json": as_json}
        this_world().require_one("[[run]] tables in --config")
        with handled_signals(), shown_log():
            train_tables(file, given, read, out, **flags)
        return
    names = _names(models or file.models)
    settings = file.settings | given
    start = load_checkpoint(start_path) if start_path else None
    _check_made(file, start)
    runs = [warm_run(start, names, settings)] if start else build_runs(names or ["gru"], settings)
    device, world = resolve_device(runs[0].fit.device), this_world()
    if trials is not None:
        world.require_one("--tune")
    if not world.is_first:
        with handled_signals(between_steps=False), redirect_stderr(io.StringIO()):
            data = prepare(read_input(traces, format_, columns, clean), runs[0].data)
            follow_models(data, runs, start=start)
        return
    resume = check_runs(runs, out, resume=resume, overwrite=overwrite, ensemble=ensemble)
    if trials is not None:
        from training.tune import check_search

        check_search(runs, out, trials=trials, warm=start is not None, resume=resume, overwrite=overwrite)
    trace = read_input(traces, format_, columns, clean)
    _say_differences(file, trace)
    data = prepare(trace, runs[0].data)
    together = f" in {world.size} processes" if world.size > 1 else ""
    click.echo(
        f"{', '.join(trace.sources)}: {len(trace):,} rows, {len(data.series):,} steps of the {data.series.kind} series "
        f"with {len(data.split.train):,} training windows, on {device}{together}",
        err=True,
    )
    searched: list[Tuned] = []
    try:
        if trials is not None:
            searched = _tune(trace, runs, settings, out, trials=trials, overwrite=overwrite)
            runs = [one.run for one in searched]
            data = prepare(trace, runs[0].data)
        with (
            handled_signals(),
            shown_log(),
            TrainingProgress(windows=len(data.split.train), epochs=runs[0].fit.epochs) as progress,
        ):
            report = train_models(
                data,
                runs,
                out,
                resume=resume,
                overwrite=overwrite,
                ensemble=ensemble,
                start=start,
                on_model=with_tensorboard(progress.on_model, out) if tensorboard else progress.on_model,
            )
    except KeyboardInterrupt:
        how = "Run the same command with --resume instead of --overwrite" if overwrite else "Repeat the command"
        click.echo(f"Stopped. {how} to go on.", err=True)
        raise
    if searched:
        from training.search_report import search_facts

        report["search"] = search_facts(searched)
    save_report(report, out)
    save_curves(report, out)
    if as_json:
        click.echo(json.dumps(report))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    _show_search(searched, out, console)
    console.print(table(report, width=console.width))
    click.echo(legend(report))
    click.echo(f"Report: {out / 'report.md'}\nNext: {next_command(report, out)}")


def _names(models: str | None) -> list[str]:
    """Names of `--model`; none when it is not given."""
    if models is None:
        return []
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"--model: expected different names, comma-separated, got '{models}'; correct it")
    return names


def _read_config(config: Path | None) -> RunFile:
    from training.run_file import RunFile, read_run_file

    return read_run_file(config) if config else RunFile()


def _given(sets: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Flat settings that were given on the command line: those of --set, then the options."""
    from training.config import parse_setting

    settings = dict(parse_setting(text) for text in sets)
    if options["split"] is not None:
        options["split"] = parse_setting(f"split={options['split']}")[1]
    return settings | {key: value for key, value in options.items() if value is not None}


def _check_alone(given: dict[str, Any]) -> None:
    """Options that mean one run do not go with a file of several."""
    for option, value in given.items():
        if value not in (None, False):
            raise ConfigError(f"{option}: expected it without [[run]] tables in --config, got both; drop one of them")


def _check_made(file: RunFile, start: Checkpoint | None) -> None:
    """A run that began with the weights of another can be made again from these only."""
    wanted = file.made and file.made["config"]["fit"].get("start")
    if wanted and (start is None or start.sha256 != wanted):
        got = "none" if start is None else f"others ({start.sha256[:12]})"
        raise ConfigError(
            f"--config: expected --from with the weights that the run began with ({wanted[:12]}), got {got}; add it"
        )


def _say_differences(file: RunFile, trace: Trace) -> None:
    if file.made is None:
        return
    import torch

    from training.facts import library_versions
    from training.run_file import differences

    for text in differences(
        file.made, fingerprint=trace.fingerprint(), libraries=library_versions(), threads=torch.get_num_threads()
    ):
        click.echo(f"May come out otherwise than the run did: {text}", err=True)


def _tune(
    trace: Trace, runs: list[RunConfig], settings: dict[str, Any], out: Path, *, trials: int, overwrite: bool
) -> list[Tuned]:
    from training.search_report import SearchProgress
    from training.tune import tune_models

    with SearchProgress(trials=trials, epochs=runs[0].fit.epochs) as progress:
        return tune_models(
            trace,
            runs,
            settings,
            out,
            trials=trials,
            overwrite=overwrite,
            on_trial=progress.on_trial,
            on_epoch=progress.on_epoch,
        )


def _show_search(searched: list[Tuned], out: Path, console: Console) -> None:
    from training.search_report import set_options, trials_table

    for one in searched:
        console.print(trials_table(one))
        click.echo(f"Trained with {set_options(one)}")
    if searched:
        click.echo(f"Settings of the best: {out / 'tuned.toml'}, for --config\n")
