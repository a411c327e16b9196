"""LSTM (Hochreiter and Schmidhuber 1997, "Long Short-Term Memory").

B batch, L context, F input features, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.registry import register_model


@register_model("lstm")
class LSTM(nn.Module):
    """The hidden state after the last step of the context."""

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rnn = nn.LSTM(
            channels, hidden_size, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, F) -> (B, D)."""
        _, (state, _) = self.rnn(x)
        return self.dropout(state[-1])

    def carry(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """(B, T, F) and the layer's state after the steps before, None for none -> after each step (B, T, D), state."""
        found, state = self.rnn(x, state)
        return self.dropout(found), state
