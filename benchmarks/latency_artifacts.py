"""The models that the latency benchmarks time: trained for one epoch on a synthetic trace, exported in both formats."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

MODELS = ("dlinear", "lstm", "gru", "transformer", "multiscale")
STATEFUL = ("stateful-lstm", "stateful-gru", "stateful-lstm-2x64", "stateful-gru-2x64")
SERIES = ("requests", "load")


@dataclass(frozen=True)
class Trained:
    """A model of a series: its run folder and its artifact's folder."""

    model: str
    series: str
    run: Path
    artifact: Path

    @property
    def name(self) -> str:
        """`load-gru`."""
        return f"{self.series}-{self.model}"


def trained(out: Path, models: Sequence[str], series: Sequence[str], *, again: bool) -> list[Trained]:
    """Context 50, horizon 10, 3 channels, the defaults of everything else; what lies in `out` is taken as it is.

    Args:
        out: `runs/` and `artifacts/` go below it.
        models: names of architectures, or of `STATEFUL`.
        series: `requests`, `load` or both.
        again: export anew, from the same checkpoints: as the exporter is now.
    """
    found = []
    for kind in series:
        for model in models:
            one = Trained(model, kind, out / "runs" / f"{kind}-{model}", out / "artifacts" / f"{kind}-{model}")
            if not (one.run / "checkpoint.json").exists():
                click.echo(f"training {one.name}", err=True)
                _train(one)
            if again or not one.artifact.exists():
                click.echo(f"exporting {one.name}", err=True)
                _export(one)
            found.append(one)
    return found


def _train(one: Trained) -> None:
    from training.config import DataConfig, FitConfig, ForecasterConfig, RunConfig
    from training.run import prepare, train_model
    from training.synth import synthesize

    trace = synthesize(days=2.0 if one.series == "load" else 0.05, rate_per_s=0.5, seed=0)
    trace = replace(trace, clock="epoch", time_s=trace.time_s + 1.7e9)
    config = RunConfig(
        data=DataConfig(series=one.series),
        model=ForecasterConfig(
            model=one.model.removeprefix("stateful-").removesuffix("-2x64"),
            params={"num_layers": 2} if one.model.endswith("-2x64") else {},
            calendar="day" if one.series == "load" else "auto",
            stateful=one.model.startswith("stateful-"),
        ),
        fit=FitConfig(epochs=1, device="cpu"),
    )
    one.run.mkdir(parents=True)
    train_model(prepare(trace, config.data), config, one.run)


def _export(one: Trained) -> None:
    from export.artifact import export_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        export_checkpoint(one.run, formats=("onnx", "torchscript"), out=one.artifact.parent, name=one.name)
