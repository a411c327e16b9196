"""Training throughput of `training.fit` against a bare PyTorch loop on the same model, batch and windows.

    python -m benchmarks.train_throughput [--model gru] [--json]

Both run in fresh processes, alternating, and count windows per second over whole epochs after one warm-up epoch. The
bare loop has no Fabric, no progress, no logging and no learning-rate schedule; validation and checkpoints are left out
of both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from benchmarks.machine import describe_machine
from training.config import RunConfig, build_runs
from training.forecaster import Forecaster
from training.loss import pinball_loss
from training.run import Data, prepare
from training.synth import synthesize
from training.windows import WindowSource

_EPOCHS = 4


def _setup(model: str) -> tuple[Data, RunConfig, Forecaster, WindowSource]:
    torch.set_num_threads(1)
    run = build_runs([model], {"device": "cpu", "epochs": _EPOCHS, "patience": _EPOCHS})[0]
    data = prepare(synthesize(days=0.1, rate_per_s=1.0, seed=0), run.data)
    torch.manual_seed(0)
    forecaster = Forecaster(
        model=model, params={}, channels=3, context=run.data.context, horizon=run.data.horizon, levels=run.data.levels
    )
    forecaster.scaling.fit(data.series, data.split, context=run.data.context)
    source = WindowSource(data.series, context=run.data.context, horizon=run.data.horizon, device=torch.device("cpu"))
    return data, run, forecaster, source


def _ours(model: str) -> float:
    from training.fit import fit

    data, run, forecaster, source = _setup(model)
    with tempfile.TemporaryDirectory() as folder:
        progress = fit(forecaster, source, data.split, config=run, folder=Path(folder))
    return statistics.median(line["windows_per_s"] for line in progress.history[1:])


def _bare(model: str) -> float:
    data, run, forecaster, source = _setup(model)
    optimizer = torch.optim.AdamW(forecaster.parameters(), lr=1e-3, weight_decay=0.01)
    levels = torch.tensor(run.data.levels)
    origins = torch.from_numpy(data.split.train)
    forecaster.train()
    speeds = []
    for _ in range(_EPOCHS):
        started = time.perf_counter()
        for picks in origins[torch.randperm(len(origins))].split(run.fit.batch_size):
            context, time_s, target = source.gather(picks)
            scale = forecaster.scaling.spread
            loss = pinball_loss(
                forecaster.scaled_quantiles(context, time_s) / scale[:, None],
                forecaster.scaling.to_scale(target) / scale,
                levels,
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(forecaster.parameters(), run.fit.clip_norm)
            optimizer.step()
        speeds.append(len(origins) / (time.perf_counter() - started))
    return statistics.median(speeds[1:])


@click.command()
@click.option("--model", "models", multiple=True, default=["lstm", "gru", "dlinear", "transformer"], show_default=True)
@click.option("--pairs", type=int, default=5, show_default=True, help="Fresh processes of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--subject", type=click.Choice(["ours", "bare"]), hidden=True)
def main(models: tuple[str, ...], pairs: int, as_json: bool, subject: str | None) -> None:
    """Windows per second: ours over bare, median of the pairs; 0.95 or more is the aim."""
    if subject:
        click.echo((_ours if subject == "ours" else _bare)(models[0]))
        return
    rows = {}
    for model in models:
        ratios, speeds = [], []
        for _ in range(pairs):
            ours, bare = (_measure(model, subject) for subject in ("ours", "bare"))
            ratios.append(ours / bare)
            speeds.append(ours)
        rows[model] = {"ratio": statistics.median(ratios), "ratios": ratios, "windows_per_s": statistics.median(speeds)}
        if not as_json:
            click.echo(
                f"{model:<12} {rows[model]['ratio']:.3f} of the bare loop ({min(ratios):.3f} - {max(ratios):.3f}), "
                f"{rows[model]['windows_per_s']:,.0f} windows/s on one thread"
            )
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "pairs": pairs, "models": rows}, indent=1))


def _measure(model: str, subject: str) -> float:
    command = [sys.executable, "-m", "benchmarks.train_throughput", "--model", model, "--subject", subject]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
