"""Rolling-origin forecasts of a trained model over a part of the series."""

from __future__ import annotations

import numpy as np
import torch

from training.forecaster import Forecaster
from training.windows import WindowSource

MOST_ORIGINS = 20_000


def thin(origins: np.ndarray, most: int = MOST_ORIGINS) -> np.ndarray:
    """At most `most` origins, evenly spaced in order; all of them when there are fewer."""
    if len(origins) <= most:
        return origins
    return origins[np.linspace(0, len(origins) - 1, most).astype(np.int64)]


@torch.inference_mode()
def rolling_forecasts(
    model: Forecaster, source: WindowSource, origins: np.ndarray, *, batch: int = 1024
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
    for picks in torch.from_numpy(origins).to(source.device).split(batch):
        context, time_s, target = source.gather(picks)
        forecasts.append(model(context, time_s).cpu().numpy())
        targets.append(target.cpu().numpy())
    return np.concatenate(forecasts), np.concatenate(targets)
