"""Transformer encoder (Vaswani et al. 2017, arXiv:1706.03762), pre-norm (Xiong et al. 2020, arXiv:2002.04745).

B batch, L context, F input features, D model width, N heads.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from training.errors import ConfigError
from training.registry import register_model


@register_model("transformer")
class Transformer(nn.Module):
    """Self-attention over the context; the last step's state is the features."""

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        d_model: int = 64,
        nhead: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if d_model % nhead or d_model % 2:
            raise ConfigError(
                f"d_model: expected an even multiple of nhead ({nhead}), got {d_model}; change one of them"
            )
        self.embed = nn.Linear(channels, d_model)
        self.register_buffer("position", _sinusoids(context, d_model), persistent=False)
        self.position: torch.Tensor
        self.layers = nn.ModuleList(_Layer(d_model, nhead, context, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, F) -> (B, D)."""
        x = self.embed(x) + self.position
        for layer in self.layers[:-1]:
            x = layer(x)
        # Of the last layer only the last step is read, which asks all and answers none.
        return self.norm(self.layers[-1](x, last_only=True)[:, 0])


class _Layer(nn.Module):
    # Written out rather than nn.TransformerEncoderLayer: its fast path breaks torch.jit.trace's own check.
    def __init__(self, d_model: int, nhead: int, length: int, dropout: float) -> None:
        super().__init__()
        self.d_model, self.nhead, self.length = d_model, nhead, length
        self.head_size = d_model // nhead
        self.norm_attention = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.merge = nn.Linear(d_model, d_model)
        self.norm_mlp = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * d_model, d_model)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, *, last_only: bool = False) -> torch.Tensor:
        """(B, L, D) -> (B, L, D), or (B, 1, D) of the last step."""
        normed = self.norm_attention(x)
        if last_only:
            weight, bias, d = self.qkv.weight, self.qkv.bias, self.d_model
            key, value = self._heads(functional.linear(normed, weight[d:], bias[d:]), 2)
            query = functional.linear(normed[:, -1], weight[:d], bias[:d]).reshape(-1, self.nhead, 1, self.head_size)
            x = x[:, -1:]
        else:
            query, key, value = self._heads(self.qkv(normed), 3)
        if self.training:
            attended = functional.scaled_dot_product_attention(query, key, value)
        else:  # the same in fewer nodes of an exported graph
            scores = (query * self.head_size**-0.5) @ key.transpose(2, 3)
            attended = torch.softmax(scores, dim=-1) @ value
        attended = (
            attended.reshape(-1, 1, self.d_model)
            if last_only
            else attended.transpose(1, 2).reshape(-1, self.length, self.d_model)
        )
        x = x + self.dropout(self.merge(attended))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))

    def _heads(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(B, L, parts * D) -> for each part (B, N, L, D / N)."""
        # -1, and a length that is no tensor's: the graph needs no shapes of its own.
        x = x.reshape(-1, self.length, parts * self.nhead, self.head_size).transpose(1, 2)
        return x.split(self.nhead, dim=1)


def _sinusoids(length: int, width: int) -> torch.Tensor:
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)
