"""The forecasts that are compared: of trained models and of every simple baseline, on the same origins of one trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import statistical
from training.backtest import rolling_demand, rolling_forecasts
from training.baselines import NAMES, run_baselines
from training.checkpoint import Checkpoint, judged_model, load_checkpoint
from training.config import DataConfig, RunConfig
from training.errors import ConfigError, TraceError
from training.quantile_model import QuantileModel
from training.run import Data, window_source
from training.search_log import is_search
from training.series import Series
from training.warm_start import has_seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is forecast: the series at the width of the forecast's steps, and its scored origins.

    Attributes:
        series: steps as they are forecast.
        validation, test: (n,) int64 origins, ascending.
        horizon: H, steps ahead.
    """

    series: Series
    validation: np.ndarray
    test: np.ndarray
    horizon: int

    def target(self, part: str) -> np.ndarray:
        """(n, H, C) float32, raw units, of "validation" or "test"."""
        return np.asarray(self.series.values[self._places(part)])

    def target_time_s(self, part: str) -> np.ndarray:
        """(n, H) float64 seconds of every target step."""
        return np.asarray(self.series.time_s[self._places(part)])

    def _places(self, part: str) -> np.ndarray:
        origins = self.validation if part == "validation" else self.test
        return np.asarray(origins[:, None] + np.arange(self.horizon))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What one forecaster says from every scored origin.

    Attributes:
        name: of the run or the baseline.
        model: whether it is a trained model.
        facts: of a model its folder, seconds of training and parameters; of a baseline its tuned settings.
        validation, test: (n, H, C, Q) float32, raw units.
        demand: (n, H, 2C, Q) float32 for test: sums of each channel over the first h steps, then its peaks; None for
            forecasters that have none of their own.
    """

    name: str
    model: bool
    facts: dict[str, Any]
    validation: np.ndarray
    test: np.ndarray
    demand: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A trained model to judge.

    Attributes:
        name: its folder's name; the whole path where two runs share a name.
        path: as it was given.
        checkpoint: what `fcast-train` saved.
        judged: the model that has not seen validation; the same as the checkpoint's unless that was trained again on
            train and validation together.
        config: all of its settings.
    """

    name: str
    path: str
    checkpoint: Checkpoint
    judged: QuantileModel
    config: RunConfig


def load_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Load run folders that can be compared: they share every data setting, and have a test part.

    Runs of simple baselines are left out: the comparison tunes and shows every baseline anyway. So is the folder of a
    search, which `runs/*/` names too.

    Raises:
        CheckpointError: a run is missing, interrupted or damaged.
        ConfigError: a run is given twice, has no test part, or has other data settings than the first; or no run is of
            a trained model.
    """
    folders = [Path(path) for path in paths]
    folders = [folder for folder in folders if not is_search(folder)] or folders
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"RUN: expected different runs, got {', '.join(map(str, folders))}; give each once")
    names = [folder.resolve().name for folder in folders]
    runs = []
    for folder, name in zip(folders, names, strict=True):
        checkpoint = load_checkpoint(folder)
        config = RunConfig.from_dict(checkpoint.meta["config"])
        if config.model.is_baseline:
            continue
        shown = name if names.count(name) == 1 else str(folder)
        judged = judged_model(checkpoint, folder)
        runs.append(Run(name=shown, path=str(folder), checkpoint=checkpoint, judged=judged, config=config))
    if not runs:
        raise ConfigError(
            f"RUN: expected a run of a trained model, got simple baselines alone ({', '.join(names)}); give a model "
            "to judge, baselines stand beside it by themselves"
        )
    for run in runs:
        if not run.config.data.split[2]:
            raise ConfigError(
                f"{run.path}: expected a run with a test part, got split {_plain(run.config.data.split)}; "
                "train with three proportions, for example --split 60,20,20"
            )
        _check_same(runs[0], run)
    return runs


def _check_same(first: Run, other: Run) -> None:
    ours, theirs = first.config.data, other.config.data
    # The stride thins training windows alone; validation and test are the same with any.
    different = [
        f.name for f in fields(DataConfig) if f.name != "stride" and getattr(ours, f.name) != getattr(theirs, f.name)
    ]
    if different:
        name = different[0]
        raise ConfigError(
            f"{other.path}: expected the data settings of {first.path}, {name} {_plain(getattr(ours, name))}, "
            f"got {name} {_plain(getattr(theirs, name))}; compare runs of one kind, others by themselves"
        )


def _plain(value: object) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def ground_of(data: Data) -> Ground:
    """The scored part of prepared data: the one place that knows which series the forecasts are about."""
    return Ground(
        series=data.wide,
        validation=data.wide_split.validation,
        test=data.wide_split.test,
        horizon=data.config.horizon,
    )


def check_fits(run: Run, data: Data) -> None:
    """Refuse a trace that a model can't read.

    Raises:
        TraceError: its channels or its clock differ from those that the model was trained on.
    """
    meta, where = run.checkpoint.meta, ", ".join(data.trace.sources)
    if list(data.series.channels) != list(meta["channels"]):
        raise TraceError(
            f"{where}: expected the channels {', '.join(meta['channels'])} that {run.path} was trained on, got "
            f"{', '.join(data.series.channels)}; give a trace of the same kind"
        )
    if run.checkpoint.model.takes_time and data.series.clock != meta["clock"]:
        raise TraceError(
            f"{where}: expected wall-clock times, which {run.path} was trained with, got relative ones; give a trace "
            "with dates, or train with --set calendar=none"
        )


def notes_on(run: Run, data: Data) -> list[str]:
    """What a reader must know about a model that is judged on another trace than it was trained on."""
    meta = run.checkpoint.meta
    if meta["trace"]["fingerprint"] == data.trace.fingerprint():
        return []
    notes = [f"{run.name} was trained on other rows than these, and is applied as it is."]
    if has_seen(meta, data.series, data.split.test):
        notes.append(
            f"{run.name} was trained on days of this test part: where the rows are the same, it has seen them."
        )
    return notes


def model_forecasts(run: Run, data: Data, *, device: torch.device) -> Forecasts:
    """Forecast with a trained model from every scored origin."""
    model, judged = run.checkpoint.trained.to(device), run.judged.to(device)
    source = window_source(data, device)
    training = run.checkpoint.meta["training"]
    return Forecasts(
        name=run.name,
        model=True,
        facts={"folder": run.path, "parameters": training["parameters"], "seconds": training["seconds"]},
        validation=rolling_forecasts(judged, source, data.split.validation)[0],
        test=rolling_forecasts(model, source, data.split.test)[0],
        demand=rolling_demand(model, source, data.split.test)[0] if model.forecasts_demand else None,
    )


def baseline_forecasts(data: Data, *, arima: bool = False) -> list[Forecasts]:
    """Tune every simple baseline on validation, and forecast.

    Args:
        data: what is forecast.
        arima: also AutoARIMA and AutoETS, which are slow and need an extra; see training/statistical.py.
    """
    ground = ground_of(data)
    found = run_baselines(
        ground.series,
        context=data.wide_context,
        horizon=data.config.horizon,
        levels=data.config.levels,
        validation=ground.validation,
        test=ground.test,
        only=(*NAMES, *statistical.NAMES) if arima else None,
    )
    return [
        Forecasts(
            name=baseline.name,
            model=False,
            facts={"settings": baseline.settings},
            validation=baseline.validation,
            test=baseline.test,
        )
        for baseline in found
    ]
