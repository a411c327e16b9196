"""A tuned baseline as a run folder, like that of a trained model: what `fcast-train --model damped_holt` writes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.backtest import thin
from training.baseline_weights import to_model, window_steps
from training.baselines import BaselineForecast
from training.checkpoint import META, WEIGHTS, Checkpoint, load_checkpoint, save_checkpoint, save_weights
from training.config import RunConfig
from training.facts import data_facts, library_versions
from training.run import KEPT_WINDOWS, Data, check_finished
from training.skill import measure_skill
from training.windows import WindowSource

_KEPT_NUMBERS, _LEAST_KEPT = 1 << 22, 64


def save_baseline(
    data: Data,
    config: RunConfig,
    folder: Path,
    tuned: BaselineForecast,
    *,
    scores: dict[str, Any],
    resume: bool = False,
) -> Checkpoint:
    """Write a tuned baseline into its run folder.

    The context of the run is what the baseline looks back, not `data.config.context`; where fewer than half of the
    validation and test windows have so much history in their segment, it is what half of them have.

    Args:
        data: what it was tuned on.
        config: of this run; its model is the baseline's name.
        folder: run folder, made.
        tuned: from `training.baselines.run_baselines`.
        scores: of its forecasts on validation and test, from `training.metrics.scores`; with forecasts of windows whose
            segment is shorter than the context among them.
        resume: check that what the folder holds is this run.

    Raises:
        CheckpointError: what the folder holds is another run.
    """
    if resume and (folder / META).exists():
        return check_finished(data, config, folder)
    started = time.perf_counter()
    ratio, horizon, levels = data.config.ratio, data.config.horizon, data.config.levels
    reach = _history(data)
    half = int(np.sort(reach)[len(reach) // 2])
    steps = min(window_steps(tuned.name, tuned.chosen, horizon), half // ratio)
    model = to_model(tuned, horizon=horizon, levels=levels, steps=steps, ratio=ratio)
    save_weights(folder / WEIGHTS, model)
    meta: dict[str, Any] = {
        **data_facts(data),
        "context": steps * ratio,
        "model": {"name": tuned.name, "params": _params(data, tuned)},
        "config": config.to_dict(),
        "training": {"device": "cpu", "seconds": round(time.perf_counter() - started, 3), "settings": tuned.settings},
        "scores": scores,
        "skill": measure_skill(data.wide, data.wide_split, data.config, found=scores["validation"]),
        "libraries": library_versions(),
    }
    save_checkpoint(folder, meta, _kept_windows(data, reach, context=steps * ratio))
    return load_checkpoint(folder)


def _params(data: Data, tuned: BaselineForecast) -> dict[str, float | int]:
    """What tuning chose, by `setting[channel]`."""
    by_channel = zip(data.series.channels, tuned.chosen, strict=True)
    return {f"{key}[{channel}]": value for channel, setting in by_channel for key, value in setting.items()}


def _origins(data: Data) -> np.ndarray:
    return np.concatenate((data.split.validation, data.split.test))


def _history(data: Data) -> np.ndarray:
    """Bins of history that each validation and test origin has in its segment, (n,) int64."""
    segment = data.series.segment
    return _origins(data) - np.searchsorted(segment, segment[_origins(data) - 1])


def _kept_windows(data: Data, reach: np.ndarray, *, context: int) -> dict[str, np.ndarray]:
    """Real windows for the parity proof; fewer of long ones, to keep the file small."""
    source = WindowSource(
        data.series, context=context, horizon=data.config.horizon, ratio=data.config.ratio, device=torch.device("cpu")
    )
    most = max(_LEAST_KEPT, _KEPT_NUMBERS // (context * len(data.series.channels)))
    origins = thin(_origins(data)[reach >= context], min(KEPT_WINDOWS, most))
    found = source.gather(torch.from_numpy(origins))
    return {name: tensor.numpy() for name, tensor in zip(("context", "time_s", "target"), found, strict=True)}
