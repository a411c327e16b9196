"""Training throughput of `training.fit` against a bare PyTorch loop on the same model, batch and windows.

    python -m benchmarks.train_throughput [--model gru] [--json]

A fresh process trains two copies of a model in turn: a step of ours (gather, forward, loss, backward, clip, update, as
`fit` runs it), then one of a bare loop without Fabric, progress, logging and learning-rate schedule. Taking turns gives
both the same weather: on shared cores the speed of a whole process changes by half from one to the next. A process
gives the ratio of the two median step times over whole epochs after one warm-up epoch; validation and checkpoints, once
an epoch, are left out of both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks.machine import describe_machine
from training.config import RunConfig, build_runs
from training.fit import fit
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
    forecaster.fit_statistics(data.series, data.split)
    source = WindowSource(data.series, context=run.data.context, horizon=run.data.horizon, device=torch.device("cpu"))
    return data, run, forecaster, source


class _BareLoop:
    """A copy of the model in a plain training loop, one step at a time."""

    def __init__(self, model: str) -> None:
        self._data, self._run, self._forecaster, self._source = _setup(model)
        self._optimizer = torch.optim.AdamW(self._forecaster.parameters(), lr=1e-3, weight_decay=0.01)
        self._levels = torch.tensor(self._run.data.levels)
        self._forecaster.train()
        self._picks = self._batches()

    def _batches(self) -> Iterator[torch.Tensor]:
        origins = torch.from_numpy(self._data.split.train)
        while True:
            yield from origins[torch.randperm(len(origins))].split(self._run.fit.batch_size)

    def step(self) -> None:
        forecaster = self._forecaster
        context, time_s, target = self._source.gather(next(self._picks))
        scale = forecaster.spread
        loss = pinball_loss(
            forecaster.scaled_quantiles(context, time_s) / scale[:, None],
            forecaster.targets(target) / scale,
            self._levels,
        )
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(forecaster.parameters(), self._run.fit.clip_norm)
        self._optimizer.step()


class _TakingTurns:
    """After every step of `fit`, one of the bare loop; both are timed, whole batches after the first epoch only."""

    def __init__(self, bare: _BareLoop, *, batches: int, batch_size: int) -> None:
        self._bare, self._skip, self._batch_size = bare, batches, batch_size
        self._last = 0.0
        self.ours_s: list[float] = []
        self.bare_s: list[float] = []

    def begin_epoch(self) -> None:
        self._last = 0.0

    def on_batch(self, windows: int, loss: torch.Tensor) -> None:
        ended = time.perf_counter()
        with torch.random.fork_rng():  # the bare loop must not change what ours draws
            began = time.perf_counter()
            self._bare.step()
            bare_s = time.perf_counter() - began
        self._skip -= 1
        if self._skip < 0 and self._last and windows == self._batch_size:
            self.ours_s.append(ended - self._last)
            self.bare_s.append(bare_s)
        self._last = time.perf_counter()


def _measure(model: str) -> tuple[float, float]:
    """Median seconds of a step of ours and of the bare loop."""
    data, run, forecaster, source = _setup(model)
    batches = -(-len(data.split.train) // run.fit.batch_size)
    turns = _TakingTurns(_BareLoop(model), batches=batches, batch_size=run.fit.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            forecaster,
            source,
            data.split,
            config=run,
            folder=Path(folder),
            on_batch=turns.on_batch,
            on_epoch=lambda line: turns.begin_epoch(),
        )
    return statistics.median(turns.ours_s), statistics.median(turns.bare_s)


@click.command()
@click.option("--model", "models", multiple=True, default=["lstm", "gru", "dlinear", "transformer"], show_default=True)
@click.option("--runs", type=int, default=5, show_default=True, help="Fresh processes per model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--subject", is_flag=True, hidden=True)
def main(models: tuple[str, ...], runs: int, as_json: bool, subject: bool) -> None:
    """Throughput of ours over that of the bare loop, median of the runs; 0.95 or more is the aim."""
    if subject:
        click.echo(json.dumps(_measure(models[0])))
        return
    rows = {}
    for model in models:
        command = [sys.executable, "-m", "benchmarks.train_throughput", "--model", model, "--subject"]
        steps = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs)
        ]
        ratios = [bare_s / ours_s for ours_s, bare_s in steps]
        rows[model] = {"ratio": statistics.median(ratios), "ratios": ratios, "ours_s_bare_s": steps}
        if not as_json:
            click.echo(
                f"{model:<12} {rows[model]['ratio']:.3f} of the bare loop ({min(ratios):.3f} - {max(ratios):.3f}), "
                f"{statistics.median(ours_s for ours_s, _ in steps) * 1e3:.1f} ms a step on one thread"
            )
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "runs": runs, "models": rows}, indent=1))


if __name__ == "__main__":
    main()
