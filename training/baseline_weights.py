"""From a tuned baseline to its graph: how far it must look back, and what each step of that window weighs.

A window is as long as the baseline needs: the last value 2 steps, a mean its k, the seasonal naive a day, the last K
requests K. Smoothing and the Kalman filter never forget entirely: they get as many steps as leave less than 1e-4 of the
weight outside, and what is left counts for the oldest one, as if the series began there.

Axes: W steps of the window, H horizon, C channels, Q levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training import kalman, smoothing
from training.baseline_model import LOG, SORTED, BaselineModel, PointBaseline, RecentQuantiles
from training.baselines import BaselineForecast, Setting

FORGOTTEN = 1e-4
"""Weight, of any step ahead, that may lie before the window."""
_LEAST, _KALMAN_HISTORY = 2, 512


def window_steps(name: str, chosen: Sequence[Setting], horizon: int) -> int:
    """W, the steps of history that a tuned baseline needs.

    Args:
        name: the baseline's.
        chosen: its settings for each channel.
        horizon: H; the further ahead, the more an old step weighs through the trend.
    """
    return max(_LEAST, *(_needed(name, setting, horizon) for setting in chosen))


def _needed(name: str, setting: Setting, horizon: int) -> int:
    if "steps" in setting:
        return int(setting["steps"])
    longest = _KALMAN_HISTORY if name.startswith("kalman") else smoothing.HISTORY
    before = np.abs(_weights(name, setting, longest, horizon)).cumsum(axis=0).max(axis=1)  # up to and with each step
    return longest - int((before < FORGOTTEN).sum())


def to_model(
    tuned: BaselineForecast, *, horizon: int, levels: tuple[float, ...], steps: int, ratio: int = 1
) -> BaselineModel:
    """A tuned baseline as a graph.

    Args:
        tuned: from `training.baselines.run_baselines`.
        horizon: H.
        levels: Q quantile levels, ascending.
        steps: W, from `window_steps`, or fewer where the series has no longer history: it then forecasts as from a
            segment that begins with its window.
        ratio: context bins in a forecast step.
    """
    if tuned.name == SORTED:
        counts = [min(int(setting["steps"]), steps) for setting in tuned.chosen]
        return RecentQuantiles(counts=counts, horizon=horizon, levels=levels)
    model = PointBaseline(
        channels=len(tuned.chosen),
        context=steps * ratio,
        horizon=horizon,
        levels=levels,
        ratio=ratio,
        log=tuned.name == LOG,
    )
    weights = np.stack([_weights(tuned.name, setting, steps, horizon) for setting in tuned.chosen])
    logs = np.array([residuals.kind == "log-ratio" for residuals in tuned.residuals])[:, None, None]
    offsets = np.array([residuals.offset for residuals in tuned.residuals])[:, None, None]
    found = np.stack([residuals.shifts for residuals in tuned.residuals])  # (C, H, Q)
    factor = np.exp(np.where(logs, found, 0.0))
    shift = np.where(logs, offsets * (factor - 1.0), found)
    for buffer, array in (
        (model.weights, weights),
        (model.factor, factor.transpose(1, 0, 2)),
        (model.shift, shift.transpose(1, 0, 2)),
    ):
        buffer.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return model


def _weights(name: str, setting: Setting, steps: int, horizon: int) -> np.ndarray:
    """What each step of the window, oldest first, adds to each step ahead: (W, H) float64."""
    if name.startswith("kalman"):
        level, trend = kalman.state_weights(steps).T
        return level[:, None] + trend[:, None] * np.arange(1, horizon + 1)
    if "alpha" in setting:
        level, trend = smoothing.state_weights([setting], steps).T
        return level[:, None] + trend[:, None] * smoothing.damping([setting], horizon)
    weights = np.zeros((steps, horizon))
    if name == "seasonal_naive":
        day, ahead = int(setting["steps"]), np.arange(horizon)
        weights[steps - day + ahead % day, ahead] = 1.0
    else:
        count = min(int(setting["steps"]), steps)
        weights[steps - count :] = 1.0 / count
    return weights
