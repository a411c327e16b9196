"""Means of the recent past over growing spans, and a small network on them.

After the multi-rate pooling of N-HiTS (Challu et al. 2023, arXiv:2201.12886) and the rolling means with which gradient
boosting won M5 (Makridakis et al. 2022): a few spans say what fifty lags do, and overfit less.

B batch, S context steps, F input features, W spans.
"""

from __future__ import annotations

import torch
from torch import nn

from training.registry import register_model

_SPANS = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 240, 480)
_LEAST_STD = 1e-6


@register_model("multiscale")
class MultiScale(nn.Module):
    """Mean and spread of every feature over the last 1, 2, 3, 5, ... steps, then two hidden layers."""

    def __init__(
        self, channels: int, context: int, horizon: int, *, hidden_size: int = 32, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.spans = [span for span in _SPANS if span < context] + [context]
        self.layers = nn.Sequential(
            nn.Linear(channels * (2 * len(self.spans) - 1), hidden_size),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.SiLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, F) -> (B, D)."""
        means = [x[:, -span:].mean(1) for span in self.spans]
        spreads = [
            ((x[:, -span:] - mean[:, None]).square().mean(1) + _LEAST_STD).sqrt()
            for span, mean in zip(self.spans[1:], means[1:], strict=True)
        ]
        return self.layers(torch.cat(means + spreads, dim=1))
