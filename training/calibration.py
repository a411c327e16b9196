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

from training.backtest import in_halves
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

    def run(picks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context, time_s, target = source.gather(picks)
        return model.scaled_quantiles(context, time_s), model.targets(target)

    parts = torch.from_numpy(origins).to(source.home).split(batch)
    found, came = zip(*(in_halves(run, picks, source.device) for picks in parts), strict=True)
    quantiles, targets = torch.cat(found), torch.cat(came)
    kind = _choose(model, quantiles, targets)
    model.offset.copy_(_offsets(model, quantiles, targets, kind))
    return kind


def _choose(model: QuantileModel, quantiles: torch.Tensor, targets: torch.Tensor) -> str:
    """The kind of offsets that loses least, in raw units, on the half it was not fitted on."""
    if len(targets) < max(_LEAST_WINDOWS, 4 * model.horizon):  # else the early half has no windows to fit on
        return NONE
    middle = len(targets) // 2
    early, late = slice(0, middle - model.horizon), slice(middle, None)  # no target in both
    losses = {kind: 0.0 for kind in (NONE, SHARED, PER_STEP)}
    for kind in losses:
        for fitted, judged in ((early, late), (late, early)):
            offset = _offsets(model, quantiles[fitted], targets[fitted], kind)
            losses[kind] += _loss(model, quantiles[judged] + model.spread[:, None] * offset, targets[judged])
    return min(losses, key=lambda kind: losses[kind])


def _loss(model: QuantileModel, quantiles: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean over the values of the wQL in raw units; scaled (n, H, V, Q) and (n, H, V)."""
    forecast = model.scaling.from_scale(model.ordered(quantiles))
    target = model.scaling.from_scale(targets[..., None])
    levels = torch.tensor(model.levels, device=forecast.device)
    miss = target - forecast
    loss = torch.maximum(levels * miss, (levels - 1) * miss).mean(3).sum((0, 1))
    return float((loss / target.sum((0, 1, 3)).clamp_min(1e-9)).mean())


def _offsets(model: QuantileModel, quantiles: torch.Tensor, targets: torch.Tensor, kind: str) -> torch.Tensor:
    """(H, V, Q): at each level, that quantile of the misses, with the finite-sample rank."""
    if kind == NONE:
        return torch.zeros_like(model.offset)
    miss = (targets[..., None] - quantiles) / model.spread[:, None]
    windows = len(miss)
    if kind == SHARED:
        miss = miss.flatten(0, 1)[:, None]
    ordered = miss.sort(dim=0).values
    ranks = [min(math.ceil((windows + 1) * level), windows) / windows for level in model.levels]
    picked = [ordered[max(math.ceil(rank * len(ordered)) - 1, 0), ..., q] for q, rank in enumerate(ranks)]
    return torch.stack(picked, dim=-1).expand_as(model.offset)
