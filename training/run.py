"""From a trace to a trained checkpoint: what `fcast-train` and the Python API call."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.backtest import rolling_forecasts, thin
from training.calibration import NONE, calibrate
from training.carried import carried_skill
from training.checkpoint import (
    JUDGED,
    META,
    WEIGHTS,
    Checkpoint,
    build_forecaster,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from training.config import DataConfig, RunConfig
from training.device import resolve_device
from training.errors import ConfigError
from training.facts import data_facts, library_versions
from training.fit import OnBatch, OnEpoch, fit, stopped_early
from training.forecaster import Forecaster
from training.memory_plan import plan_memory
from training.metrics import scores
from training.quantile_model import QuantileModel
from training.resume import Progress, check_same_run
from training.scaling import CYCLES_S
from training.series import Series, build_series, widen
from training.skill import measure_skill
from training.stateful import StatefulForecaster
from training.trace import Trace
from training.warm_start import Begun, check_fits, has_seen, start_from
from training.windows import Split, WindowSource, split_windows, widen_split
from training.world import from_first, join, this_world

KEPT_WINDOWS = 512
REFIT = "refit"
"""Folder of the training on train and validation together."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A trace made ready for training; shared by every model of one command.

    Attributes:
        trace: the trace.
        series: its series.
        split: origins of train, validation and test; the latter two thinned to at most 20,000 each.
        config: the settings that gave them.
        wide: the series in forecast steps, as the baselines see it; `series` itself when a step is one bin.
        wide_split: the same windows as origins of `wide`.
    """

    trace: Trace
    series: Series
    split: Split
    config: DataConfig
    wide: Series
    wide_split: Split

    @property
    def wide_context(self) -> int:
        """The context in forecast steps."""
        return self.config.context // self.config.ratio


def prepare(trace: Trace, config: DataConfig) -> Data:
    """Build the series and split it.

    Raises:
        TraceError: the trace is too short.
    """
    series = build_series(trace, kind=config.series, bin_s=config.bin_s, gap_s=config.gap_s)
    split = split_windows(
        series,
        context=config.context,
        horizon=config.horizon,
        parts=config.split,
        stride=config.stride,
        ratio=config.ratio,
    )
    split = Split(
        train=split.train,
        validation=thin(split.validation),
        test=thin(split.test),
        known=split.known,
        train_end=split.train_end,
        validation_end=split.validation_end,
    )
    wide = widen(series, config.ratio)
    wide_split = split if config.ratio == 1 else widen_split(split, fine=series, wide=wide)
    return Data(trace=trace, series=series, split=split, config=config, wide=wide, wide_split=wide_split)


def window_source(data: Data, device: torch.device) -> WindowSource:
    """The windows of the data, on a device."""
    config = data.config
    return WindowSource(data.series, context=config.context, horizon=config.horizon, ratio=config.ratio, device=device)


def scored_parts(data: Data) -> dict[str, np.ndarray]:
    """Origins of the parts that are scored; a split without a test part has validation alone."""
    parts = {"validation": data.split.validation, "test": data.split.test}
    return {part: origins for part, origins in parts.items() if len(origins)}


def build_model(data: Data, config: RunConfig) -> Forecaster:
    """The forecaster to train, on the CPU: random weights, scaling fitted.

    Raises:
        ConfigError: it can't be built as asked.
    """
    torch.manual_seed(config.fit.seed)
    model = build_forecaster({**data_facts(data), "model": _model_facts(data, config)})
    assert isinstance(model, Forecaster)
    model.fit_statistics(data.series, data.split, unit=config.model.unit)
    return model


def check_start(data: Data, config: RunConfig, start: Checkpoint) -> None:
    """Check that a run can begin with the weights of another; see `training.warm_start.check_fits`."""
    check_fits(start, {**data_facts(data), "model": _model_facts(data, config)})


def _model_facts(data: Data, config: RunConfig) -> dict[str, Any]:
    """What `training.checkpoint.build_forecaster` builds the model from."""
    return {
        "name": config.model.model,
        "params": config.model.params,
        "log": config.model.log,
        "center": config.model.center,
        "calendar": list(_calendar(config.model.calendar, data)),
        "demand": data.series.kind == "load",
        "anchored": data.series.kind == "requests" and config.model.anchor,
        "recent": config.model.recent,
        **({"stateful": True} if config.model.stateful else {}),
    }


def train_model(
    data: Data,
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    start: Checkpoint | None = None,
    on_batch: OnBatch = lambda windows, loss: None,
    on_epoch: OnEpoch = lambda line: None,
) -> Checkpoint:
    """Train one model into its run folder and score it.

    Args:
        data: from `prepare`.
        config: of this model; its data part is the one of `data`.
        folder: run folder, claimed.
        resume: go on from what the folder holds; a finished run is returned as it is.
        start: begin with these weights rather than random ones; `config.fit.start` is their hash.
        on_batch: see `training.fit`.
        on_epoch: see `training.fit`.

    Raises:
        ConfigError: the model can't be built as asked.
        CheckpointError: what the folder holds is another run.
    """
    world = this_world()
    finished = resume and (folder / META).exists()
    if from_first(world, join(world, resolve_device(config.fit.device)), finished):
        _log.info("%s: finished already, stays as it is", folder.name)
        return check_finished(data, config, folder)
    started = time.perf_counter()
    trained = _train(data, config, folder, resume=resume, start=start, on_batch=on_batch, on_epoch=on_epoch)
    progress, begun = trained.progress, trained.begun
    training = {
        "device": str(trained.model.offset.device),
        "seconds": round(time.perf_counter() - started, 3),
        "epochs_trained": progress.epoch,
        "best_epoch": progress.best_epoch,
        "early_stopped": stopped_early(progress, patience=config.fit.patience),
        "final_train_loss": progress.history[-1]["train_loss"],
        "best_validation_wql": progress.best_wql,
        "from": start.sha256 if start else None,
        "start_saw_test": start is not None and has_seen(start.meta, data.series, data.split.test),
        "statistics": begun.statistics if begun else "new",
    }
    facts = _model_facts(data, config)
    return finish_run(data, config, folder, trained.model, trained.final, facts=facts, training=training)


def follow_model(data: Data, config: RunConfig, *, start: Checkpoint | None = None) -> None:
    """Take part in what `train_model` does in the first process of `torchrun`; in every other one.

    Args:
        data: the same as there.
        config: the same.
        start: the same.
    """
    world = this_world()
    if not from_first(world, join(world, resolve_device(config.fit.device)), False):
        _train(data, config, Path(config.model.model), resume=False, start=start)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """The model that validation judged, the one to ship, and how they came about."""

    model: Forecaster
    final: Forecaster
    progress: Progress
    begun: Begun | None


def _train(
    data: Data,
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    start: Checkpoint | None,
    on_batch: OnBatch = lambda windows, loss: None,
    on_epoch: OnEpoch = lambda line: None,
) -> _Trained:
    """Find the weights; the first process alone has them in the end."""
    world = this_world()
    source = window_source(data, resolve_device(config.fit.device))
    train = partial(
        fit,
        source=source,
        fingerprint=data.trace.fingerprint(),
        resume=resume,
        on_batch=on_batch,
        on_epoch=on_epoch,
    )
    if start is not None:
        check_start(data, config, start)

    def begin() -> tuple[Forecaster, Begun | None]:
        fresh = build_model(data, config).to(source.device)
        return fresh, start_from(fresh, start, source, data.split) if start else None

    model, begun = begin()
    if begun:
        begun.warn()
    plan = plan_memory(model, source, data.split, config=config, world=world)
    plan.say(folder.name)
    fitting = replace(config, fit=replace(config.fit, micro_batch=plan.micro_batch))
    progress = train(model, split=data.split, config=fitting, folder=folder)
    if world.is_first:
        # A run that was killed while it was finished may have its last weights in the place of the best already.
        finishing = resume and (folder / JUDGED).exists()
        load_weights(folder / (JUDGED if finishing else WEIGHTS), model)
    final = model
    if config.fit.refit and progress.best_epoch:
        final, _ = begin()
        again = replace(fitting, fit=replace(fitting.fit, epochs=progress.best_epoch))
        known = replace(data.split, train=data.split.known, validation=data.split.validation[:0])
        if world.is_first:
            (folder / REFIT).mkdir(exist_ok=True)
        train(final, split=known, config=again, folder=folder / REFIT)
        if world.is_first:
            load_weights(folder / REFIT / WEIGHTS, final)
    return _Trained(model=model, final=final, progress=progress, begun=begun)


def check_finished(data: Data, config: RunConfig, folder: Path) -> Checkpoint:
    """Load a finished run that is this one.

    Raises:
        CheckpointError: it is another run, or damaged.
    """
    finished = load_checkpoint(folder)
    check_same_run(
        folder / META,
        saved=RunConfig.from_dict(finished.meta["config"]),
        wanted=config,
        saved_trace=finished.meta["trace"]["fingerprint"],
        trace=data.trace.fingerprint(),
    )
    return finished


def finish_run(
    data: Data,
    config: RunConfig,
    folder: Path,
    judged: QuantileModel,
    final: QuantileModel,
    *,
    facts: dict[str, Any],
    training: dict[str, Any],
) -> Checkpoint:
    """Calibrate a trained model, score it and save it.

    Args:
        data: what it was trained on.
        config: its settings.
        folder: run folder.
        judged: trained without the validation part, which judges it, and calibrates it where there is no refit.
        final: the model to ship: `judged` with the same calibration, or the same trained on validation too.
        facts: what `training.checkpoint.build_forecaster` builds it from.
        training: facts of its training.
    """
    source = window_source(data, judged.offset.device)
    # Errors of a model that has not seen validation are not those of one that has: offsets from them made both the wQL
    # and the coverage of the latter worse.
    wanted = config.model.calibrate and not config.fit.refit
    kind = calibrate(judged, source, data.split.validation) if wanted else NONE
    final.offset.copy_(judged.offset)
    meta: dict[str, Any] = {
        **data_facts(data),
        "model": facts,
        "config": config.to_dict(),
        "training": {
            **training,
            "parameters": sum(p.numel() for p in final.parameters()),
            "calibration": kind,
            "threads": torch.get_num_threads(),
        },
        "scores": {
            part: scores(*rolling_forecasts(model, source, origins), data.config.levels, data.series.channels)
            for (part, origins), model in zip(scored_parts(data).items(), (judged, final), strict=False)
        },
        "libraries": library_versions(),
    }
    if isinstance(final, StatefulForecaster):
        assert isinstance(judged, StatefulForecaster)
        meta["carried"] = {
            part: carried_skill(model, source, data.series, origins)
            for (part, origins), model in zip(scored_parts(data).items(), (judged, final), strict=False)
        }
    meta["skill"] = measure_skill(data.wide, data.wide_split, data.config, found=meta["scores"]["validation"])
    (folder / JUDGED).unlink(missing_ok=True)
    if config.fit.refit:
        save_weights(folder / JUDGED, judged)
    save_weights(folder / WEIGHTS, final)
    save_checkpoint(folder, meta, _kept_windows(data, source))
    return load_checkpoint(folder)


def _calendar(choice: str, data: Data) -> tuple[str, ...]:
    series = data.series
    epoch_load = series.clock == "epoch" and series.kind == "load"
    if choice == "none" or (choice == "auto" and not epoch_load):
        return ()
    if choice == "auto":
        assert series.bin_s is not None
        seen_s = data.split.train_end * series.bin_s  # missing data does not count
        return tuple(name for name, cycle_s in CYCLES_S.items() if seen_s >= 2 * cycle_s)
    if series.clock != "epoch":
        raise ConfigError(
            f"calendar: expected a trace with wall-clock times, got relative ones; use calendar=none, not {choice}"
        )
    return tuple(choice.split("+"))


def _kept_windows(data: Data, source: WindowSource) -> dict[str, np.ndarray]:
    origins = thin(np.concatenate((data.split.validation, data.split.test)), KEPT_WINDOWS)
    context, time_s, target = source.gather(torch.from_numpy(origins))
    return {"context": context.cpu().numpy(), "time_s": time_s.cpu().numpy(), "target": target.cpu().numpy()}
