"""Forecasts of a stateful model with its state carried over a series, as a stream has them, and what that is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.backtest import rolling_forecasts
from training.metrics import wql
from training.series import Series
from training.stateful import State, StatefulForecaster
from training.windows import WindowSource

_PIECE = 4096


@torch.inference_mode()
def carried_forecasts(model: StatefulForecaster, series: Series, origins: np.ndarray) -> np.ndarray:
    """Forecast from every origin with the state of all steps before it, from a cold one at the last gap.

    Args:
        model: on any device; left in eval mode.
        series: the whole series.
        origins: (n,) int64, ascending.

    Returns:
        (n, H, C, Q) float32, raw units.
    """
    model.eval()
    device = model.offset.device
    values = torch.from_numpy(series.values)
    time_s = torch.from_numpy(series.time_s) if model.takes_time else None
    starts = np.flatnonzero(np.diff(series.segment, prepend=series.segment[:1] - 1))
    ends = np.append(starts[1:], len(series))
    found = []
    for start, end in zip(starts, ends, strict=True):
        last = origins[(origins > start) & (origins <= end)] - 1
        state: State | None = None
        for at in range(start, int(last[-1]) + 1 if len(last) else start, _PIECE):
            to = min(at + _PIECE, end)
            times = None if time_s is None else time_s[None, at:to].to(device)
            hidden, means, state = model.carry(values[None, at:to].to(device), times, state)
            here = torch.from_numpy(last[(last >= at) & (last < to)] - at)
            if len(here):
                forecast = model.forecast_from(hidden[0, here], means[0, here])
                found.append((forecast[0] if isinstance(forecast, tuple) else forecast).cpu().numpy())
    return np.concatenate(found)


def carried_skill(
    model: StatefulForecaster, source: WindowSource, series: Series, origins: np.ndarray
) -> dict[str, Any]:
    """Mean wQL over the channels from the same origins, read by windows and with the state carried.

    Args:
        model: on the source's device.
        source: windows of the series.
        series: the series.
        origins: (n,) int64, ascending.

    Returns:
        `windows`, how many, and the wQL `windowed` and `carried`.
    """
    forecast, target = rolling_forecasts(model, source, origins)
    carried = carried_forecasts(model, series, origins)
    return {
        "windows": len(origins),
        "windowed": float(wql(forecast, target, model.levels).mean()),
        "carried": float(wql(carried, target, model.levels).mean()),
    }
