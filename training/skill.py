"""How much better than repeating the last value a model is: the `confidence` of the documented Python API."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.baselines import run_baselines
from training.config import DataConfig
from training.metrics import wql_steps
from training.series import Series
from training.windows import Split


def measure_skill(series: Series, split: Split, config: DataConfig, *, found: dict[str, Any]) -> dict[str, Any]:
    """Compare a model's validation scores with two baselines on the same windows.

    The confidence of a step ahead is its skill over the last value, `clip(1 - wQL(model) / wQL(last value), 0, 1)`, wQL
    as the mean over the channels: 0 for a model that is no better than repeating the last request, 1 for a perfect
    one. The last value has quantiles from its own validation residuals, which flatters it a little. Not the best
    baseline: on single requests that is close to unbeatable, and most models would share a confidence of 0.

    Args:
        series: the series.
        split: its split.
        config: levels, context and horizon.
        found: the model's scores on validation, from `metrics.scores`.

    Returns:
        `confidence` [H], and `wql` of `model` and `last_value`, the mean over steps and channels.
    """
    target = series.values[split.validation[:, None] + np.arange(config.horizon)]
    (repeated,) = run_baselines(
        series,
        context=config.context // config.ratio,
        horizon=config.horizon,
        levels=config.levels,
        validation=split.validation,
        test=split.test[:0],
        only=("last_value",),
    )
    ours = np.array(found["wql_steps"]["mean"])
    last = wql_steps(repeated.validation, target, config.levels).mean(axis=1)
    ratio = np.divide(ours, last, out=np.ones_like(last), where=last > 0)
    return {
        "confidence": np.clip(1.0 - ratio, 0.0, 1.0).tolist(),
        "wql": {"model": float(ours.mean()), "last_value": float(last.mean())},
    }
