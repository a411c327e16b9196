"""Rolling-origin forecasts of a trained model over a part of the series."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from training.baseline_model import BaselineModel
from training.device import free_cached_memory, is_out_of_memory
from training.quantile_model import QuantileModel
from training.windows import WindowSource

MOST_ORIGINS = 20_000

OnPicks = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Two tensors from some origins (B,)."""


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

    def run(picks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context, time_s, target = source.gather(picks)
        forecast = model(context, time_s)
        return (forecast[0] if isinstance(forecast, tuple) else forecast).cpu(), target.cpu()

    model.eval()
    return _in_batches(run, source, origins, batch)


@torch.inference_mode()
def rolling_demand(
    model: QuantileModel, source: WindowSource, origins: np.ndarray, *, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the demand up to each step from every origin; see `rolling_forecasts`.

    Returns:
        demand (n, H, 2C, Q) and target (n, H, 2C), float32, raw units: sums of the first h steps, then their peaks.
    """

    def run(picks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context, time_s, target = source.gather(picks)
        demand = model(context, time_s)[1]
        return demand.cpu(), torch.cat((target.cumsum(1), target.cummax(1).values), dim=2).cpu()

    model.eval()
    return _in_batches(run, source, origins, batch)


def _in_batches(run: OnPicks, source: WindowSource, origins: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    parts = torch.from_numpy(origins).to(source.home).split(batch)
    found = [[part.numpy() for part in in_halves(run, picks, source.device)] for picks in parts]
    return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])


def in_halves(run: OnPicks, picks: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward passes over some origins at once, or half by half where memory runs out.

    Args:
        run: gives two tensors, whose first axis is that of the origins.
        picks: (B,) origins.
        device: of the model.
    """
    try:
        return run(picks)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(picks) == 1:
            raise
    free_cached_memory(device)
    first, second = (in_halves(run, half, device) for half in picks.tensor_split(2))
    return torch.cat((first[0], second[0])), torch.cat((first[1], second[1]))
