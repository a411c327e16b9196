"""Calibration: one offset per step, value and level, fitted on validation and part of the graph ever after.

Split-conformal (Romano, Patterson and Candes 2019, "Conformalized Quantile Regression"): moving a quantile by the same
quantile of its own errors on data that training has not seen makes its coverage right there, whatever the model. Errors
are taken on the working scale. Windows overlap and days differ, so the fit is checked on the other half of the
validation part: offsets per step, offsets shared by all steps, or none, whichever is best there.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from training.quantile_model import QuantileModel
from training.windows import WindowSource

NONE, SHARED, PER_STEP = "none", "shared", "per step"
_LEAST_WINDOWS = 200


@torch.no_grad()
def calibrate(model: QuantileModel, source: WindowSource, origins: np.ndarray, *, batch: int = 1024) -> str:
    """Fit a model's offsets.

    Args:
        model: trained, on the source's device; its `offset` is set.
        source: windows of the series.
        origins: (n,) int64 of the validation part, in time order.
        batch: windows per forward pass.

    Returns:
        The kind of offsets that was kept: "none", "shared" or "per step".
    """
    model.eval()
    errors = []
    for picks in torch.from_numpy(origins).to(source.device).split(batch):
        context, time_s, target = source.gather(picks)
        found = model.scaled_quantiles(context, time_s)
        errors.append((model.targets(target)[..., None] - found) / model.spread[:, None])
    miss = torch.cat(errors).cpu().numpy()
    kind = _choose(miss, model.levels)
    model.offset.copy_(torch.from_numpy(_offsets(miss, model.levels, kind)))
    return kind


def _choose(miss: np.ndarray, levels: tuple[float, ...]) -> str:
    """The kind of offsets that loses least on the half it was not fitted on."""
    if len(miss) < _LEAST_WINDOWS:
        return NONE
    horizon = miss.shape[1]
    middle = len(miss) // 2
    early, late = miss[: middle - horizon], miss[middle:]  # no target in both
    losses = {kind: 0.0 for kind in (NONE, SHARED, PER_STEP)}
    for kind in losses:
        for fitted, judged in ((early, late), (late, early)):
            losses[kind] += _pinball(judged - _offsets(fitted, levels, kind), levels)
    return min(losses, key=lambda kind: losses[kind])


def _pinball(miss: np.ndarray, levels: tuple[float, ...]) -> float:
    tau = np.array(levels)
    return float(np.maximum(tau * miss, (tau - 1) * miss).mean())


def _offsets(miss: np.ndarray, levels: tuple[float, ...], kind: str) -> np.ndarray:
    """(H, V, Q) float32: at each level, that quantile of the misses (n, H, V, Q), with the finite-sample rank."""
    windows, horizon, values, count = miss.shape
    if kind == NONE:
        return np.zeros((horizon, values, count), np.float32)
    pooled = miss if kind == PER_STEP else miss.reshape(windows * horizon, 1, values, count)
    ordered = np.sort(pooled, axis=0)
    ranks = [min(math.ceil((windows + 1) * level), windows) / windows for level in levels]
    picked = [ordered[max(math.ceil(rank * len(ordered)) - 1, 0), ..., q] for q, rank in enumerate(ranks)]
    return np.broadcast_to(np.stack(picked, axis=-1), (horizon, values, count)).astype(np.float32)
