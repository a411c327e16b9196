"""DLinear (Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?", arXiv:2205.13504).

B batch, L context, F input features, H horizon.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training.registry import register_model


@register_model("dlinear")
class DLinear(nn.Module):
    """Trend (moving average) and remainder, each mapped linearly from L to H, the same map for every channel."""

    def __init__(self, channels: int, context: int, horizon: int, *, kernel_size: int = 25) -> None:
        super().__init__()
        kernel = min(kernel_size, context)
        # The moving average with repeated edges is linear: one (L, L) matrix, exported as a single MatMul.
        rows = torch.arange(context)[:, None] + torch.arange(kernel)[None, :] - (kernel - 1) // 2
        average = torch.zeros(context, context)
        average.index_put_(
            (torch.arange(context)[:, None].expand_as(rows), rows.clamp(0, context - 1)),
            torch.tensor(1.0 / kernel),
            accumulate=True,
        )
        self.register_buffer("average", average, persistent=False)
        self.average: torch.Tensor
        self.trend = nn.Linear(context, horizon)
        self.remainder = nn.Linear(context, horizon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, F) -> (B, F * H)."""
        # trend(average x) + remainder(x - average x), with the average multiplied into the weights: one pass over x.
        weight = (self.trend.weight - self.remainder.weight) @ self.average + self.remainder.weight
        return functional.linear(x.transpose(1, 2), weight, self.trend.bias + self.remainder.bias).flatten(1)
