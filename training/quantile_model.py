"""What every forecaster does with quantiles on the working scale: calibrate, keep in order, bring back to raw units.

A `load` model forecasts three things of every channel: the steps, their sum up to each step and the largest of them up
to each step. The last two are the demand until a replica is ready, forecast directly, since quantiles of a sum do not
follow from the quantiles of its parts.

Axes: B batch, L context bins, C channels, H horizon, Q levels, V values forecast per step: C, or 3 C with demand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import nn

from training.scaling import Scaling

MIN_STEP = 4e-6  # on the log scale: keeps quantiles ordered through float32 rounding, 0.0004 % of the value


class QuantileModel(nn.Module, ABC):
    """(B, L, C) raw units -> (B, H, C, Q) raw units, non-negative, non-decreasing over Q.

    With `demand` the result is a pair: beside the forecast, (B, H, 2C, Q) quantiles of the sum of each channel over the
    first h steps, then of its largest step among them.

    Attributes:
        anchored: untrained, it is a good forecaster already; see training/anchor.py.
        scaling: sets the working scale.
        offset: (H, V, Q) calibration in units of the spread, added on the working scale; see training/calibration.py.
    """

    anchored = False
    scaling: Scaling
    offset: torch.Tensor
    steps: torch.Tensor

    def __init__(self, *, channels: int, horizon: int, levels: tuple[float, ...], demand: bool) -> None:
        """Set the shapes.

        Args:
            channels: C.
            horizon: H.
            levels: Q quantile levels, ascending, in (0, 1).
            demand: also forecast sums and peaks.
        """
        super().__init__()
        self.horizon, self.channels, self.levels = horizon, channels, levels
        self.median = min(range(len(levels)), key=lambda q: abs(levels[q] - 0.5))
        self.forecasts_demand = demand
        self.values = channels * (3 if demand else 1)
        self.register_buffer("offset", torch.zeros(horizon, self.values, len(levels)))
        self.register_buffer("steps", torch.arange(1.0, horizon + 1)[:, None], persistent=False)

    @property
    def takes_time(self) -> bool:
        """Whether `forward` needs `time_s`."""
        return bool(self.scaling.cycles_s)

    @property
    def spread(self) -> torch.Tensor:
        """(V,), the unit of the working scale."""
        return self.scaling.spread.repeat(self.values // self.channels)

    @abstractmethod
    def scaled_quantiles(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """Quantiles (B, H, V, Q) on the working scale, where the loss is taken, before calibration."""

    def forward(
        self, context: torch.Tensor, time_s: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Forecast in raw units, calibrated.

        Args:
            context: (B, L, C) float32, raw units, oldest first.
            time_s: (B,) float64, time of the last bin; needed by models with a calendar.

        Returns:
            (B, H, C, Q) float32; with demand, also (B, H, 2C, Q).
        """
        quantiles = self.scaled_quantiles(context, time_s) + self.spread[:, None] * self.offset
        raw = self.scaling.from_scale(self.ordered(quantiles))
        if not self.forecasts_demand:
            return raw
        forecast, mean, peak = raw.split(self.channels, dim=2)
        return forecast, torch.cat((mean * self.steps[..., None], peak), dim=2)

    def targets(self, target: torch.Tensor) -> torch.Tensor:
        """What came, (B, H, C) raw units, as the V values forecast on the working scale: (B, H, V).

        Sums count as means over their steps, so that they are on the scale of one step.
        """
        if self.forecasts_demand:
            target = torch.cat((target, target.cumsum(1) / self.steps, target.cummax(1).values), dim=2)
        return self.scaling.to_scale(target)

    @torch.no_grad()
    def importance(self, context: torch.Tensor, mean: torch.Tensor | None = None) -> torch.Tensor:
        """How much each window of a batch counts in a score in raw units: (B, 1, V), 1 on average.

        Args:
            context: (B, L, C) raw units.
            mean: (1, C) mean size of the windows that they are a part of; None when they are all of them.
        """
        size = self.scaling.size(context)
        return (size / (size.mean(0) if mean is None else mean)).repeat(1, 1, self.values // self.channels)

    def ordered(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Quantiles (..., Q) pushed apart from the median outwards until they are in order."""
        levels = list(quantiles.split(1, dim=-1))
        for q in range(self.median + 1, len(levels)):
            levels[q] = torch.maximum(levels[q], levels[q - 1] + MIN_STEP)
        for q in range(self.median - 1, -1, -1):
            levels[q] = torch.minimum(levels[q], levels[q + 1] - MIN_STEP)
        return torch.cat(levels, dim=-1)


class Ensemble(QuantileModel):
    """The mean of the quantiles of several forecasters of the same series (Lichtendahl et al. 2013).

    Their scaling is the same, as it depends on the series and its split alone. It has a calibration of its own: the
    members' own is left out, since the mean of calibrated quantiles is too wide.
    """

    def __init__(self, members: list[QuantileModel]) -> None:
        """Combine trained forecasters.

        Args:
            members: forecasters with the same shapes and settings of scaling.
        """
        first = members[0]
        super().__init__(
            channels=first.channels, horizon=first.horizon, levels=first.levels, demand=first.forecasts_demand
        )
        self.members = nn.ModuleList(members)

    @property
    def scaling(self) -> Scaling:  # type: ignore[override]
        """That of the members."""
        first = self.members[0]
        assert isinstance(first, QuantileModel)
        return first.scaling

    def scaled_quantiles(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """The members' mean, (B, H, V, Q)."""
        members = cast("list[QuantileModel]", list(self.members))
        return torch.stack([member.scaled_quantiles(context, time_s) for member in members]).mean(0)
