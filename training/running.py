"""Running means: what a window's statistics become when a state is carried from one step to the next.

Each column keeps a sum and a weight, both fading by a factor per step, so that their quotient is the exponentially
weighted mean of all steps so far, without a bias towards the start from nothing (as in Adam, Kingma and Ba 2015). A
column may start from an opinion worth some steps instead.

Axes: B batch, T steps, N columns.
"""

from __future__ import annotations

import torch
from torch import nn

PIECE = 64
"""Steps taken at once: in one triangular matrix for each column."""


class RunningMeans(nn.Module):
    """(B, T, N) -> means of all steps up to each, (B, T, N)."""

    decay: torch.Tensor
    prior: torch.Tensor
    worth: torch.Tensor

    def __init__(self, columns: int) -> None:
        """Create; `decay`, `prior` and `worth`, (N,) each, are set by whoever fits.

        Args:
            columns: N.
        """
        super().__init__()
        self.register_buffer("decay", torch.full((columns,), 0.5))
        self.register_buffer("prior", torch.zeros(columns))
        self.register_buffer("worth", torch.zeros(columns))

    def forward(self, values: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in steps.

        Args:
            values: (B, T, N).
            state: (B, 2N), sums and weights from the steps before; None for none.

        Returns:
            means (B, T, N) and the state after the last step.
        """
        if state is None:
            state = values.new_zeros(len(values), 2 * values.shape[2])
        total, weight = state.chunk(2, dim=1)
        age = torch.arange(min(PIECE, values.shape[1]), device=values.device)
        ages = age[:, None] - age
        # (N, T, T), of column n: what step u counts in the sum after step t.
        fading = torch.where(ages >= 0, self.decay[:, None, None] ** ages.clamp_min(0), 0.0)
        before = self.decay ** (age + 1)[:, None]  # (T, N)
        steps = fading.sum(2).T
        means = []
        for piece in values.split(PIECE, dim=1):
            n = piece.shape[1]
            totals = (fading[:, :n, :n] @ piece.permute(2, 1, 0)).permute(2, 1, 0) + before[:n] * total[:, None]
            weights = steps[:n] + before[:n] * weight[:, None]
            means.append((totals + self.worth * self.prior) / (weights + self.worth))
            total, weight = totals[:, -1], weights[:, -1]
        return torch.cat(means, dim=1), torch.cat((total, weight), dim=1)
