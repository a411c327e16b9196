"""Every model that can be trained is proven within 1e-5 of float64 on its working scale, in both forms and series."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from export.artifact import export_checkpoint
from export.parity import RTOL, SCALED
from training import registry
from training.compare import train_models
from training.config import build_runs
from training.registry import register_model
from training.run import prepare
from training.synth import synthesize

BUILT_IN = ("dlinear", "gru", "lstm", "multiscale", "transformer")
BASELINES = {"load": ("last_value", "kalman_log1p"), "requests": ("recent_quantiles", "damped_holt")}
OWN = "convolution"
LAYERS = {"d_model": 8, "num_layers": 1}


class Convolution(nn.Module):
    """An architecture of somebody else, of operations that no built-in one has."""

    def __init__(self, channels: int, context: int, horizon: int, *, hidden_size: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, hidden_size, 3, padding=1)
        self.norm = nn.BatchNorm1d(hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, F) -> (B, L, D)."""
        return torch.tanh(self.norm(self.convolution(x.transpose(1, 2)))).transpose(1, 2)


NAMES = {series: (*BUILT_IN, OWN, "ensemble", *BASELINES[series]) for series in ("load", "requests")}


def silent(*_: object) -> None:
    """Shows nothing of a training's progress."""


@pytest.fixture(scope="module")
def every_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One short run of every model, of both kinds of series."""
    register_model(OWN)(Convolution)  # not on import, where tests of all registered models would collect it
    out, trace = tmp_path_factory.mktemp("every"), synthesize(days=0.1, rate_per_s=0.1, seed=0)
    for series in NAMES:
        settings = {"series": series, "context": 12, "horizon": 4, "bin_s": 30.0, "epochs": 1, "device": "cpu"}
        settings |= {"calendar": "day+week" if series == "load" else "none", "hidden_size": 8}
        for names in (("dlinear", "gru"), (*BUILT_IN[2:], OWN, *BASELINES[series])):
            runs = build_runs(names, settings if names[0] == "dlinear" else settings | LAYERS)
            train_models(
                prepare(replace(trace, clock="epoch", time_s=trace.time_s + 1.7e9), runs[0].data),
                runs,
                out / series,
                resume=False,
                overwrite=False,
                ensemble=names[0] == "dlinear",
                on_model=lambda name: (silent, silent),
            )
    yield out
    del registry._models[OWN]


@pytest.mark.parametrize(("series", "name"), [(series, name) for series, names in NAMES.items() for name in names])
def test_a_model_is_within_1e_5_of_float64_in_both_forms(
    every_run: Path, tmp_path: Path, series: str, name: str
) -> None:
    published = export_checkpoint(every_run / series / name, formats=("onnx", "torchscript"), out=tmp_path)
    assert {check.format for check in published.checks} == {"onnx", "torchscript"}
    for check in published.checks:
        assert check.reference == "float64"
        assert check.scaled <= SCALED, check
        assert check.used <= 1
    report = (published.path / "parity.json").read_text()
    assert json.loads(report)["tolerances"]["rtol"] == RTOL
    assert len(report) < 100_000
