"""Rolling-origin forecasts of a trained model over a part of the series."""

from __future__ import annotations

import numpy as np
import torch

from training.baseline_model import BaselineModel
from training.device import free_cached_memory, is_out_of_memory
from training.quantile_model import QuantileModel
from training.windows import WindowSource

MOST_ORIGINS = 20_000


def thin(origins: np.ndarray, most: int = MOST_ORIGINS) -> np.ndarray:
    """At most `most` origins, evenly spaced in order; all of them when there are fewer."""
    if len(origins) <= most:
        return origins
    return origins[np.linspace(0, len(origins) - 1, most).astype(np.int64)]


@torch.inference_mode()
def rolling_forecasts(
    model: QuantileModel | BaselineModel, source: WindowSource, origins: np.ndarray, *, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast from every origin.

    Args:
        model: the forecaster, on the source's device; left in eval mode.
        source: windows of the series.
        origins: (n,) int64.
        batch: windows per forward pass.

    Returns:
        forecast (n, H, C, Q) and target (n, H, C), float32, raw units.
    """
    model.eval()
    forecasts, targets = [], []
    for picks in torch.from_numpy(origins).to(source.home).split(batch):
        forecast, target = _forecast(model, source, picks)
        forecasts.append(forecast)
        targets.append(target)
    return np.concatenate(forecasts), np.concatenate(targets)


def _forecast(
    model: QuantileModel | BaselineModel, source: WindowSource, picks: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and targets of some origins; in halves where memory runs out."""
    try:
        context, time_s, target = source.gather(picks)
        forecast = model(context, time_s)
        return (forecast[0] if isinstance(forecast, tuple) else forecast).cpu().numpy(), target.cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(picks) == 1:
            raise
    free_cached_memory(source.device)
    halves = [_forecast(model, source, half) for half in picks.tensor_split(2)]
    return np.concatenate([forecast for forecast, _ in halves]), np.concatenate([target for _, target in halves])


@torch.inference_mode()
def rolling_demand(
    model: QuantileModel, source: WindowSource, origins: np.ndarray, *, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the demand up to each step from every origin; see `rolling_forecasts`.

    Returns:
        demand (n, H, 2C, Q) and target (n, H, 2C), float32, raw units: sums of the first h steps, then their peaks.
    """
    model.eval()
    demands, targets = [], []
    for picks in torch.from_numpy(origins).to(source.home).split(batch):
        context, time_s, target = source.gather(picks)
        demands.append(model(context, time_s)[1].cpu().numpy())
        targets.append(torch.cat((target.cumsum(1), target.cummax(1).values), dim=2).cpu().numpy())
    return np.concatenate(demands), np.concatenate(targets)
