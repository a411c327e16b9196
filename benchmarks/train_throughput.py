"""Training throughput of `training.fit` against a bare PyTorch loop on the same model, batch and windows.

    python -m benchmarks.train_throughput [--model gru] [--json]

Both run in fresh processes, alternating. A process gives the median time of a training step (gather, forward, loss,
backward, clip, update) over whole epochs after one warm-up epoch; a median, because other processes on the machine make
some steps late. The bare loop has no Fabric, no progress, no logging and no learning-rate schedule; validation and
checkpoints, once an epoch, are left out of both.
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


class _StepTimes:
    """Times between the ends of steps, whole batches after the first epoch only."""

    def __init__(self, *, batches: int, batch_size: int) -> None:
        self._skip, self._batch_size = batches, batch_size
        self._last = 0.0
        self.seconds: list[float] = []

    def begin_epoch(self) -> None:
        self._last = 0.0

    def on_batch(self, windows: int, loss: torch.Tensor) -> None:
        now = time.perf_counter()
        self._skip -= 1
        if self._skip < 0 and self._last and windows == self._batch_size:
            self.seconds.append(now - self._last)
        self._last = now


def _ours(model: str) -> float:
    from training.fit import fit

    data, run, forecaster, source = _setup(model)
    times = _StepTimes(batches=-(-len(data.split.train) // run.fit.batch_size), batch_size=run.fit.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            forecaster,
            source,
            data.split,
            config=run,
            folder=Path(folder),
            on_batch=times.on_batch,
            on_epoch=lambda line: times.begin_epoch(),
        )
    return statistics.median(times.seconds)


def _bare(model: str) -> float:
    data, run, forecaster, source = _setup(model)
    optimizer = torch.optim.AdamW(forecaster.parameters(), lr=1e-3, weight_decay=0.01)
    levels = torch.tensor(run.data.levels)
    origins = torch.from_numpy(data.split.train)
    times = _StepTimes(batches=-(-len(origins) // run.fit.batch_size), batch_size=run.fit.batch_size)
    forecaster.train()
    for _ in range(_EPOCHS):
        times.begin_epoch()
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
            times.on_batch(len(picks), loss.detach())
    return statistics.median(times.seconds)


@click.command()
@click.option("--model", "models", multiple=True, default=["lstm", "gru", "dlinear", "transformer"], show_default=True)
@click.option("--pairs", type=int, default=5, show_default=True, help="Fresh processes of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--subject", type=click.Choice(["ours", "bare"]), hidden=True)
def main(models: tuple[str, ...], pairs: int, as_json: bool, subject: str | None) -> None:
    """Throughput of ours over that of the bare loop, median of the pairs; 0.95 or more is the aim."""
    if subject:
        click.echo((_ours if subject == "ours" else _bare)(models[0]))
        return
    rows = {}
    for model in models:
        samples: dict[str, list[float]] = {"ours": [], "bare": []}
        for pair in range(pairs):
            for name in sorted(samples, reverse=pair % 2 == 0):
                samples[name].append(_measure(model, name))
        ratios = [bare / ours for ours, bare in zip(samples["ours"], samples["bare"], strict=True)]
        rows[model] = {"ratio": statistics.median(ratios), "ratios": ratios, "step_s": samples}
        if not as_json:
            click.echo(
                f"{model:<12} {rows[model]['ratio']:.3f} of the bare loop ({min(ratios):.3f} - {max(ratios):.3f}), "
                f"{statistics.median(samples['ours']) * 1e3:.1f} ms a step on one thread"
            )
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "pairs": pairs, "models": rows}, indent=1))


def _measure(model: str, subject: str) -> float:
    command = [sys.executable, "-m", "benchmarks.train_throughput", "--model", model, "--subject", subject]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
