"""The empirical quantiles of the last requests, as the place from which a model of single requests starts.

When the next request comes and how big it is hardly depends on the last few requests; how such numbers are distributed
lately says most. So the forecast is these quantiles, from spans of several lengths mixed with learnt weights, plus what
the architecture adds; untrained, it is the baseline `recent_quantiles`.

Axes: B batch, L context, C channels, Q levels, K spans.
"""

from __future__ import annotations

import torch
from torch import nn

SPANS = (50, 100, 200, 500, 1000, 2000)
_FIRST_CHOICE = 5.0  # logit of the span that is best alone; the others share what is left


class EmpiricalAnchor(nn.Module):
    """(B, L, C) on the working scale -> (B, C, Q), non-decreasing over Q."""

    share: torch.Tensor

    def __init__(self, *, channels: int, context: int, levels: tuple[float, ...]) -> None:
        """Create with equal weights.

        Args:
            channels: C.
            context: L.
            levels: Q quantile levels, ascending.
        """
        super().__init__()
        self.spans = [span for span in SPANS if span < context] + [context]
        self.levels = levels
        self.mix = nn.Parameter(torch.zeros(len(self.spans), channels, len(levels)))
        # Between two steps of a span in order; a buffer, as a tensor made in `forward` is no part of an exported graph.
        self._places = [[level * (span - 1) for level in levels] for span in self.spans]
        share = torch.tensor([[place - int(place) for place in places] for places in self._places])
        self.register_buffer("share", share[..., None], persistent=False)  # (K, Q, 1)

    def forward(self, scaled: torch.Tensor) -> torch.Tensor:
        """The mixture of the spans' quantiles."""
        return (self._each(scaled) * torch.softmax(self.mix, dim=0)).sum(1)

    @torch.no_grad()
    def fit(self, context: torch.Tensor, target: torch.Tensor) -> None:
        """Begin at the span that is best for each channel, chosen as the baseline chooses its own.

        Args:
            context: (n, L, C) windows of the validation part, raw units, in which forecasts are judged.
            target: (n, H, C) what followed.
        """
        levels = torch.tensor(self.levels)
        miss = target[:, None, :, :, None] - self._each(context)[:, :, None]  # (n, K, H, C, Q)
        loss = torch.maximum(levels * miss, (levels - 1) * miss).mean((0, 2, 4))  # (K, C)
        self.mix.zero_()
        for channel, span in enumerate(loss.argmin(0).tolist()):
            self.mix[span, channel] = _FIRST_CHOICE

    def _each(self, values: torch.Tensor) -> torch.Tensor:
        """Quantiles of each span, interpolated as numpy does: (B, K, C, Q)."""
        found = []
        for k, (span, places) in enumerate(zip(self.spans, self._places, strict=True)):
            share = self.share[k]
            ordered = values[:, -span:].sort(dim=1).values
            low = [int(place) for place in places]
            high = [min(place + 1, span - 1) for place in low]
            found.append((ordered[:, low] * (1 - share) + ordered[:, high] * share).transpose(1, 2))
        return torch.stack(found, dim=1)
