"""Pinball loss (Koenker and Bassett 1978, "Regression Quantiles")."""

from __future__ import annotations

import torch


def pinball_loss(quantiles: torch.Tensor, target: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Mean pinball loss; its minimum over all forecasts is the true quantiles.

    Args:
        quantiles: (B, H, C, Q).
        target: (B, H, C).
        levels: (Q,).
    """
    below = target[..., None] - quantiles
    return torch.maximum(levels * below, (levels - 1) * below).mean()
