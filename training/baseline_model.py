"""The simple baselines as graphs: raw context in, raw quantiles out, so that one that wins is exported like a model.

Every point baseline is linear in the window, in raw units or in log(y + 1); its residual quantiles are then one factor
and one shift per step, channel and level. The last K requests' own quantiles are a sort. All numbers are buffers, set
by training/baseline_weights.py or a checkpoint; nothing is trained.

Axes: B batch, L context bins, R bins in a forecast step, W = L / R steps of the window, H horizon, C channels, Q
levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LOG, SORTED = "kalman_log1p", "recent_quantiles"
"""The baselines that work on log(y + 1), and on the sorted window."""
_MOST_LOG = 80.0  # as training/kalman.py; float32 ends near exp(88)
_MOST = 1e30  # keeps weighted sums within float32, whatever the context holds


class BaselineModel(nn.Module):
    """(B, L, C) raw units -> (B, H, C, Q) raw units, finite, non-negative, non-decreasing over Q."""

    def __init__(self, *, horizon: int, levels: tuple[float, ...], ratio: int) -> None:
        """Set what every baseline knows.

        Args:
            horizon: H.
            levels: Q quantile levels, ascending, in (0, 1).
            ratio: R.
        """
        super().__init__()
        self.horizon, self.levels, self.ratio = horizon, levels, ratio
        self.median = min(range(len(levels)), key=lambda q: abs(levels[q] - 0.5))

    @property
    def takes_time(self) -> bool:
        """No baseline reads the clock."""
        return False

    def _steps(self, context: torch.Tensor) -> torch.Tensor:
        """Bins (B, L, C) as forecast steps (B, W, C)."""
        if self.ratio == 1:
            return context
        return context.unflatten(1, (context.shape[1] // self.ratio, self.ratio)).sum(2)


class PointBaseline(BaselineModel):
    """A weighted sum of the window, at least 0, then the quantiles of its validation residuals.

    Additive residuals move the point by their quantile s: factor 1, shift s. Log-ratios r with offset c give
    (point + c) exp(r) - c: factor exp(r), shift c (exp(r) - 1). Both rise with the level, so quantiles stay in order.
    """

    weights: torch.Tensor
    factor: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, *, channels: int, context: int, horizon: int, levels: tuple[float, ...], ratio: int = 1, log: bool = False
    ) -> None:
        """Build with weights of 0.

        Args:
            channels: C.
            context: L, bins.
            horizon: H.
            levels: Q quantile levels, ascending.
            ratio: R.
            log: the weights are those of log(y + 1).
        """
        super().__init__(horizon=horizon, levels=levels, ratio=ratio)
        self.log = log
        self.register_buffer("weights", torch.zeros(channels, context // ratio, horizon))
        self.register_buffer("factor", torch.ones(horizon, channels, len(levels)))
        self.register_buffer("shift", torch.zeros(horizon, channels, len(levels)))

    def forward(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """Forecast.

        Args:
            context: (B, L, C) float32, raw units, oldest first.
            time_s: not read; other models take it.

        Returns:
            (B, H, C, Q) float32.
        """
        steps = self._steps(context).clamp_max(_MOST)
        if self.log:
            steps = torch.log(steps + 1)
        point = (steps.permute(2, 0, 1) @ self.weights).permute(1, 2, 0)
        if self.log:  # no expm1: the legacy ONNX exporter lacks it
            point = torch.exp(point.clamp_max(_MOST_LOG)) - 1
        quantiles = point.clamp_min(0.0)[..., None] * self.factor + self.shift
        return quantiles.clamp(0.0, torch.finfo(torch.float32).max)


class RecentQuantiles(BaselineModel):
    """Sample quantiles of each channel's last K steps, as `np.quantile` takes them, for every step of the horizon."""

    low: torch.Tensor
    share: torch.Tensor

    def __init__(self, *, counts: list[int], horizon: int, levels: tuple[float, ...]) -> None:
        """Build; there is nothing to set.

        Args:
            counts: K of each channel, at least 2; the window is as long as the largest.
            horizon: H.
            levels: Q quantile levels, ascending.
        """
        super().__init__(horizon=horizon, levels=levels, ratio=1)
        self.counts = counts
        # Each level lies between two of the sorted steps, at `low` and the next one: (C, Q), found in double.
        place = torch.tensor(levels, dtype=torch.float64) * (torch.tensor(counts)[:, None] - 1)
        self.register_buffer("low", place.long())
        self.register_buffer("share", place.frac().float())

    def forward(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """Forecast; see `PointBaseline.forward`."""
        channels = []
        for c, count in enumerate(self.counts):
            ordered = torch.sort(context[:, -count:, c], dim=1).values
            below, above = ordered[:, self.low[c]], ordered[:, self.low[c] + 1]
            # No more than the value above: rounding must not lift a level over the next one.
            channels.append(torch.minimum(below + self.share[c] * (above - below), above))
        return torch.stack(channels, dim=1)[:, None].expand(-1, self.horizon, -1, -1)


def build_baseline(meta: dict[str, Any]) -> BaselineModel:
    """The baseline that a checkpoint's facts describe; its buffers come from the checkpoint.

    Args:
        meta: content of `checkpoint.json`, with a baseline's name in `model`.
    """
    model, horizon, levels = meta["model"], meta["horizon"], tuple(meta["levels"])
    if model["name"] == SORTED:
        counts = [min(model["params"][f"steps[{channel}]"], meta["context"]) for channel in meta["channels"]]
        return RecentQuantiles(counts=counts, horizon=horizon, levels=levels)
    return PointBaseline(
        channels=len(meta["channels"]),
        context=meta["context"],
        horizon=horizon,
        levels=levels,
        ratio=1 if meta["bin_s"] is None else round(meta["step_s"] / meta["bin_s"]),
        log=model["name"] == LOG,
    )
