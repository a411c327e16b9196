"""Pinball loss (Koenker and Bassett 1978, "Regression Quantiles")."""

from __future__ import annotations

import torch


def pinball_loss(
    quantiles: torch.Tensor, target: torch.Tensor, levels: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean pinball loss; its minimum over all forecasts is the true quantiles, however windows are weighed.

    Args:
        quantiles: (B, H, C, Q).
        target: (B, H, C).
        levels: (Q,).
        weight: (B, 1, C) how much each window counts; None for all the same.
    """
    below = target[..., None] - quantiles
    loss = torch.maximum(levels * below, (levels - 1) * below)
    return (loss if weight is None else loss * weight[..., None]).mean()
