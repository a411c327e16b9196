"""Checkpoints from real, short training runs; shared by all tests of `export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import DataConfig, FitConfig, ForecasterConfig, RunConfig
from training.run import prepare, train_model
from training.synth import synthesize

torch.set_num_threads(1)


def train(
    folder: Path,
    *,
    series: str,
    model: str,
    calendar: str,
    seed: int = 0,
    step_s: float | None = None,
    params: dict[str, Any] | None = None,
    stateful: bool = False,
) -> Path:
    trace = synthesize(days=0.1, rate_per_s=0.1, seed=0)
    trace = replace(trace, clock="epoch", time_s=trace.time_s + 1.7e9)
    config = RunConfig(
        data=DataConfig(series=series, context=12, horizon=4, bin_s=30.0, step_s=step_s),
        model=ForecasterConfig(
            model=model,
            calendar=calendar,
            params=params or ({"hidden_size": 8} if model == "gru" else {}),
            stateful=stateful,
        ),
        fit=FitConfig(epochs=1, device="cpu", seed=seed),
    )
    folder.mkdir(parents=True)
    train_model(prepare(trace, config.data), config, folder)
    return folder


@pytest.fixture(scope="session")
def requests_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a model without a clock."""
    return train(tmp_path_factory.mktemp("runs") / "gru", series="requests", model="gru", calendar="none")


@pytest.fixture(scope="session")
def load_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a model that takes time_s."""
    return train(tmp_path_factory.mktemp("runs") / "dlinear", series="load", model="dlinear", calendar="day+week")


@pytest.fixture(scope="session")
def coarse_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a model with bins of 30 s and forecast steps of 90 s."""
    folder = tmp_path_factory.mktemp("runs") / "coarse"
    return train(folder, series="load", model="dlinear", calendar="day+week", step_s=90.0)


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Path:
    """The run folder named by an indirect parameter."""
    folder: Path = request.getfixturevalue(request.param)
    return folder
