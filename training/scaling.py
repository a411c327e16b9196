"""Scaling and its inverse, both inside the exported graph.

Raw values differ by orders of magnitude within a day and between services, so a network sees them
- on a log scale: y = log(x / unit + 1), with one unit per channel. Single requests: 1 token, or a short inter-arrival
  of the training part. Load: the size of one request (1, or its mean tokens), or a tenth of the mean bin, or the mean
  bin, where that suits the training part clearly better: bursts among idle bins want a scale straight near zero;
- centred per window: minus the window's level (after RevIN, Kim et al. 2022, and the mean scaling of DeepAR and
  Chronos), so that a level never seen in training looks like one that was. The level is a weighted mean of the window,
  newer steps weighing more; how much more is what foretells the training part best, as in exponential smoothing;
- divided by a global spread, the standard deviation of centred training values.
The level itself follows as a further feature per channel, scaled globally; then the calendar, where the clock is
known: the first harmonics of the day and the week (Fourier terms, Harvey and Shephard 1993). Where the context is finer
than the forecast steps, R bins are one step: the network sees their sum and, as further features, each of them on the
step's scale.

Axes: B batch, L context bins, S = L / R steps, C channels, F features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from training.series import Series
from training.windows import Split

HARMONICS = 4
CYCLES_S = {"day": 86400.0, "week": 604800.0}
ALPHAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # 0: the plain mean
_JUDGED = (0.1, 0.5, 0.9, 0.99)
_CLEARLY = 0.03  # what another unit must gain over that of one request
MAX_LOG = 30.0  # exp(30) units is 1e13: beyond any load, within float32
_MIN_SPREAD = 1e-2


class Scaling(nn.Module):
    """Raw windows to features, and log-scale numbers back to raw units."""

    unit: torch.Tensor
    alpha: torch.Tensor
    least: torch.Tensor
    spread: torch.Tensor
    level_mean: torch.Tensor
    level_spread: torch.Tensor
    harmonics: torch.Tensor

    def __init__(
        self, channels: int, *, log: bool, center: bool, calendar: tuple[str, ...] = (), ratio: int = 1
    ) -> None:
        """Create with neutral statistics; `fit` or a checkpoint sets them.

        Args:
            channels: C.
            log: work on the log scale.
            center: subtract each window's own mean; otherwise the global mean of the training part.
            calendar: cycles to add as features, of "day" and "week".
            ratio: R, context bins in a forecast step.
        """
        super().__init__()
        self.channels = channels
        self.log = log
        self.center = center
        self.ratio = ratio
        self.alphas: tuple[float, ...] = ALPHAS
        self.cycles_s = [CYCLES_S[cycle] for cycle in calendar]
        for name, start in (
            ("unit", 1.0),
            ("alpha", 0.0),
            ("least", 0.0),
            ("spread", 1.0),
            ("level_mean", 0.0),
            ("level_spread", 1.0),
        ):
            self.register_buffer(name, torch.full((channels,), start))
        self.register_buffer("harmonics", torch.arange(1.0, HARMONICS + 1), persistent=False)

    @property
    def features(self) -> int:
        """F, width of the network's input."""
        channels = len(self.unit)
        return 2 * channels + 2 * HARMONICS * len(self.cycles_s) + (self.ratio * channels if self.ratio > 1 else 0)

    @torch.no_grad()
    def fit(
        self, series: Series, split: Split, *, context: int, horizon: int, unit: str = "auto", sample: int = 4096
    ) -> None:
        """Set the statistics from the training part of a series.

        Args:
            series: the series.
            split: its split; only steps before `split.train_end` are read.
            context: L, bins.
            horizon: H, steps.
            unit: of a load series: "request" for the size of one, "auto" for what suits the training part.
            sample: number of evenly spaced training windows.
        """
        train = torch.from_numpy(series.values[: split.train_end])
        picks = split.train[np.linspace(0, len(split.train) - 1, min(sample, len(split.train))).astype(np.int64)]
        at = torch.from_numpy(picks)[:, None]
        past = self._steps(train[at + torch.arange(-context, 0)]).sum(2)
        future = self._steps(train[at + torch.arange(horizon * self.ratio)]).sum(2)
        units = _units(series, train, self.ratio)
        if series.kind == "load":
            self.least.copy_(units[0] / 2)
        if unit == "request":
            units = units[:1]
        losses = torch.stack([self._fit_level(unit, past, future) for unit in units])
        losses[0] *= 1 - _CLEARLY
        self._fit_level(units[losses.argmin(0), torch.arange(units.shape[1])], past, future)
        windows = self.to_scale(past)
        level = self._level(windows)[:, 0]
        centred = windows - (level[:, None] if self.center else level.mean(0))
        self.spread.copy_(centred.std((0, 1), correction=0).clamp_min(_MIN_SPREAD))
        self.level_mean.copy_(level.mean(0))
        self.level_spread.copy_(level.std(0, correction=0).clamp_min(_MIN_SPREAD))

    def _fit_level(self, unit: torch.Tensor, past: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
        """Set the unit and the level's weights that go with it best.

        Returns:
            (C,) pinball loss in raw units of the level with the quantiles of its errors: how well the scale fits.
        """
        self.unit.copy_(unit)
        windows, target = self.to_scale(past), self.to_scale(future)
        losses = []
        for alpha in self.alphas:
            self.alpha.fill_(alpha)
            losses.append((target - self._level(windows)).abs().mean((0, 1)))
        self.alpha.copy_(torch.tensor(self.alphas)[torch.stack(losses).argmin(0)])
        level = self._level(windows)
        levels = torch.tensor(_JUDGED)
        moves = np.quantile((target - level).flatten(0, 1).numpy(), _JUDGED, axis=0).astype(np.float32)
        quantiles = self.from_scale(level[..., None] + torch.from_numpy(moves).T)
        miss = future[..., None] - quantiles
        return torch.maximum(levels * miss, (levels - 1) * miss).mean((0, 1, 3))

    def _level(self, scaled: torch.Tensor) -> torch.Tensor:
        """The level of windows (B, S, C): (B, 1, C)."""
        age = torch.arange(scaled.shape[1] - 1, -1, -1, dtype=scaled.dtype, device=scaled.device)
        weights = (1 - self.alpha) ** age[:, None]
        return (scaled * (weights / weights.sum(0))).sum(1, keepdim=True)

    def size(self, context: torch.Tensor) -> torch.Tensor:
        """How far a window's errors on the working scale reach in raw units, up to a factor: (B, 1, C)."""
        level = self._level(self.to_scale(self._steps(context).sum(2)))
        return torch.exp(level) if self.log else torch.ones_like(level)

    def _steps(self, context: torch.Tensor) -> torch.Tensor:
        """Bins (B, L, C) grouped into steps (B, S, R, C)."""
        # -1: with `unflatten` the ONNX exporter takes the example's batch for a constant in recurrent models.
        return context.reshape(-1, context.shape[1] // self.ratio, self.ratio, self.channels)

    def to_scale(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw units (..., n * C) to the working scale, logarithmic unless `log` is off."""
        scaled = raw / self.unit.repeat(raw.shape[-1] // self.channels)
        return torch.log(scaled + 1) if self.log else scaled

    def from_scale(self, scaled: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_scale`, (B, H, n * C, Q), clamped to be finite and not negative.

        Requests are whole: what is less than half of one, in a load series, is none.
        """
        if self.log:  # no expm1: the legacy ONNX exporter lacks it
            scaled = torch.exp(scaled.clamp(0.0, MAX_LOG)) - 1
        times = scaled.shape[2] // self.channels
        raw = (scaled * self.unit.repeat(times)[:, None]).clamp_min(0.0)
        return raw * (raw >= self.least.repeat(times)[:, None])

    def forward(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a window and its level.

        Args:
            context: (B, L, C) raw units.
            time_s: (B,) float64, time of the last step; needed with a calendar.

        Returns:
            features (B, S, F), the scaled steps first, and the level (B, 1, C) on the working scale.
        """
        bins = self._steps(context)
        scaled = self.to_scale(bins.sum(2) if self.ratio > 1 else context)
        found = self._level(scaled)
        level = found if self.center else self.level_mean.expand_as(found)
        constants = [(found - self.level_mean) / self.level_spread]
        for cycle_s in self.cycles_s:
            assert time_s is not None
            turns = time_s / cycle_s
            phase = ((turns - torch.floor(turns)) * (2 * torch.pi)).to(context.dtype)[:, None] * self.harmonics
            constants.append(torch.cat((torch.sin(phase), torch.cos(phase)), dim=1)[:, None])
        features = [(scaled - level) / self.spread, torch.cat(constants, dim=2).expand(-1, scaled.shape[1], -1)]
        if self.ratio > 1:
            fine = self.to_scale(bins * self.ratio)
            features.append(((fine - level[:, :, None]) / self.spread).flatten(2))
        return torch.cat(features, dim=2), level


def _units(series: Series, train: torch.Tensor, ratio: int) -> torch.Tensor:
    """Candidates for the unit of each channel, (K, C)."""
    if series.kind == "requests":
        positive = train[:, 0][train[:, 0] > 0].numpy()
        return torch.tensor([[float(np.quantile(positive, 0.1)) if len(positive) else 1.0, 1.0, 1.0]])
    mean = train.mean(0).clamp_min(1e-6) * ratio
    one = mean / mean[0]
    return torch.stack((one, torch.maximum(mean / 10, one), torch.maximum(mean, one)))
