"""A recurrent forecaster whose state can be carried from one step to the next, in O(1) per step.

What a window's own statistics are to other forecasters, running means are to this one: each step is centred on the
level as it was then, so nothing of the past is ever looked at again. A model of single requests starts from the
distribution of training, moved by how many of the last requests lay above each of its quantiles; that share is a
running mean too.

Read from a cold state over exactly the context it is a model of windows, and is trained, calibrated and scored as one.
Carried on past the context it is another model: training measures both (`training.carried`).

Axes: B batch, T steps, C channels, F features, N running means, D hidden size, H horizon, V values, Q levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from training.backtest import thin
from training.forecaster import Forecaster, last_state
from training.running import RunningMeans
from training.scaling import ALPHAS
from training.series import Series
from training.windows import Split

_RATES = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_WORTHS = (20.0, 100.0, 500.0)
_MOST_STEPS = 50_000
_LEAST_DENSITY = 0.02


class State(NamedTuple):
    """All that is carried."""

    means: torch.Tensor
    """(B, 2N), of `RunningMeans`."""
    network: Any
    """As torch's recurrent layer gives it."""


class StatefulForecaster(Forecaster):
    """A `Forecaster` with running statistics around an LSTM or GRU."""

    above: torch.Tensor
    wide: torch.Tensor

    def __init__(self, *, bin_s: float | None, anchored: bool, **settings: Any) -> None:
        """Build a forecaster with random weights.

        Args:
            bin_s: width of a step of a load series, seconds; None for requests.
            anchored: start from the distribution of training and the shares above its quantiles; not with demand.
            settings: as `Forecaster`.

        Raises:
            ConfigError: as `Forecaster`.
        """
        super().__init__(anchored=False, **settings)
        self.anchored, self.bin_s = anchored, bin_s
        self.scaling.alphas = ALPHAS[1:]  # a mean of all steps ever would stand still
        columns = self.channels + (self.channels * len(self.levels) if anchored else 0)
        self.means = RunningMeans(columns)
        if anchored:
            self.register_buffer("above", torch.zeros(self.channels, len(self.levels)))
            self.register_buffer("wide", torch.ones(self.channels, 1))
            self.head = nn.Linear(self.head.in_features + columns - self.channels, self.head.out_features)
            with torch.no_grad():
                self.head.weight.zero_()
                self.head.bias.zero_()

    def scaled_quantiles(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """See `QuantileModel`: from a cold state over the context."""
        features, means, _ = self._features(context, self.step_times(time_s, context.shape[1]), None)
        return self._quantiles(last_state(self.network(features)), means[:, -1])

    def carry(
        self, rows: torch.Tensor, time_s: torch.Tensor | None, state: State | None
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Take in steps and go on from a state.

        Args:
            rows: (B, T, C) raw units.
            time_s: (B, T) float64, time of each step; needed with a calendar.
            state: after the steps before; None for a cold one.

        Returns:
            what `forecast_from` needs after each step, (B, T, D) and (B, T, N), and the state after the last.
        """
        features, means, means_state = self._features(rows, time_s, None if state is None else state.means)
        network: Any = self.network
        found, network_state = network.carry(features, None if state is None else state.network)
        return found, means, State(means_state, network_state)

    def forecast_from(
        self, hidden: torch.Tensor, means: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The forecast, as `forward` gives it, after a step: of (B, D) and (B, N)."""
        return self.raw(self._quantiles(hidden, means))

    def step_times(self, time_s: torch.Tensor | None, steps: int) -> torch.Tensor | None:
        """The time of each step (B, T) from that of the last (B,); None where no calendar needs it."""
        if not self.scaling.cycles_s:
            return None
        assert time_s is not None
        assert self.bin_s is not None
        return time_s[:, None] - self.bin_s * torch.arange(steps - 1, -1, -1, dtype=torch.float64, device=time_s.device)

    def _features(
        self, rows: torch.Tensor, time_s: torch.Tensor | None, state: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scaling, channels = self.scaling, self.channels
        scaled = scaling.to_scale(rows)
        columns = [scaled]
        if self.anchored:
            columns.append(self._shares_above(scaled).flatten(2))
        means, state = self.means(torch.cat(columns, dim=2), state)
        level = means[..., :channels]
        features = [(scaled - level) / scaling.spread, (level - scaling.level_mean) / scaling.level_spread]
        for cycle_s in scaling.cycles_s:
            assert time_s is not None
            turns = time_s / cycle_s
            phase = ((turns - torch.floor(turns)) * (2 * torch.pi)).to(rows.dtype)[..., None] * scaling.harmonics
            features += [torch.sin(phase), torch.cos(phase)]
        return torch.cat(features, dim=2), means, state

    def _shares_above(self, scaled: torch.Tensor) -> torch.Tensor:
        """Whether each value lies above each quantile of training, (B, T, C, Q); what lies close counts in part."""
        return ((scaled[..., None] - self.above) / self.wide + 0.5).clamp(0.0, 1.0)

    def _quantiles(self, hidden: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        shape = -1, self.horizon, self.values, len(self.levels)
        if not self.anchored:
            return self.around(self.head(hidden).view(shape), means[:, None])
        shares = means[:, self.channels :] - self.means.prior[self.channels :]
        out = self.head(torch.cat((hidden, shares), dim=1)).view(shape)
        return self.ordered(self.above + self.spread[:, None] * out)

    @torch.no_grad()
    def fit_statistics(self, series: Series, split: Split, *, unit: str = "auto", sample: int = 1024) -> None:
        """See `Forecaster`; the level is that of the scaling, as it runs."""
        self.scaling.fit(series, split, context=self.context, horizon=self.horizon, unit=unit)
        self.means.decay[: self.channels] = 1 - self.scaling.alpha
        if self.anchored:
            self._fit_shares(series, split, sample)

    def _fit_shares(self, series: Series, split: Split, sample: int) -> None:
        """Set the quantiles of training, and how far and how fast the shares above move them.

        Rate and worth of each column are those that are best on validation, carried and cold together.
        """
        channels, levels = self.channels, torch.tensor(self.levels)
        scaled = self.scaling.to_scale(torch.from_numpy(series.values[: split.validation_end]))
        train = scaled[: split.train_end]
        quantiles = np.quantile(train.numpy(), self.levels, axis=0).T.astype(np.float32)
        self.above.copy_(torch.from_numpy(quantiles))
        self.wide.copy_(self.spread[:, None])
        shares = self._shares_above(scaled)  # (T, C, Q)
        usual = shares[: split.train_end].mean(0)
        near = ((train[..., None] - self.above).abs() < self.wide / 2).float().mean(0)
        gain = self.wide / near.clamp_min(_LEAST_DENSITY)
        picks = thin(split.validation, sample)
        first = max(int(picks[0]) - _MOST_STEPS, 0)
        at = torch.from_numpy(picks)
        target = scaled[at[:, None] + torch.arange(self.horizon)][..., None]  # (n, H, C, 1)
        windows = shares[at[:, None] + torch.arange(-self.context, 0)].flatten(2)
        column = slice(channels, None)
        self.means.prior[column] = usual.flatten()
        best = torch.full(usual.shape, torch.inf)
        tried, kept = RunningMeans(usual.numel()), self.means
        tried.prior.copy_(usual.flatten())
        for rate in _RATES:
            for worth in _WORTHS:
                tried.decay.fill_(1 - rate)
                tried.worth.fill_(worth)
                carried = tried(shares[None, first:].flatten(2))[0][0, at - 1 - first]
                cold = tried(windows)[0][:, -1]
                loss = torch.zeros_like(usual)
                for means in (carried, cold):
                    moved = self.above + gain * (means.view(-1, *usual.shape) - usual)
                    miss = target - moved[:, None]
                    loss += torch.maximum(levels * miss, (levels - 1) * miss).mean((0, 1))
                better = loss < best
                best = torch.where(better, loss, best)
                kept.decay[column] = torch.where(better.flatten(), tried.decay, kept.decay[column])
                kept.worth[column] = torch.where(better.flatten(), tried.worth, kept.worth[column])
        own = torch.diag((gain / self.spread[:, None]).flatten())
        self.head.weight[:, -usual.numel() :] = own.repeat(self.horizon, 1)
