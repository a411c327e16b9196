"""From the network's state to raw quantiles with every constant folded; see `training.quantile_model`.

The head gives the median and positive distances outwards. Median and distances go through one softplus together, since
x = softplus(x) - softplus(-x), and one matrix adds them up. Where the calibration may push quantiles across each other,
they are put in order outwards from the median by one running maximum, which is a pooling: below the median on negated
values, with columns of -1e30 between the two sides.

Axes: B batch, H horizon, V values forecast per step, C channels, Q levels, D state, K columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from export.lean_scaling import constant, linear
from training.forecaster import Forecaster
from training.quantile_model import MIN_STEP, QuantileModel
from training.scaling import MAX_LOG

_NOWHERE = -1e30
_STRAIGHT_FROM = 80.0  # exp(80) is within float32, and softplus(x) = x long before


class LeanHead(nn.Module):
    """State (B, D) and level (B, C) -> (B, H, V, 1 + Q): softplus of the median, of its negative and of the distances.

    In units of the spread; `median_and_distances` adds them up.
    """

    def __init__(self, model: Forecaster) -> None:
        """Fold the level, and the global mean of a model that is not centred, into the head."""
        super().__init__()
        self.shape = model.horizon, model.values, len(model.levels)
        weight = model.head.weight.detach().double().view(*self.shape, -1)
        bias = model.head.bias.detach().double().view(self.shape)
        k, channels, spread = model.median, model.channels, model.spread.double()
        level = torch.zeros(*self.shape[:2], 1, channels, dtype=torch.float64)
        for value in range(model.values):
            level[:, value, 0, value % channels] = 1 / spread[value]
        if not model.scaling.center:
            mean = model.scaling.level_mean.double().repeat(model.values // channels) / spread
            bias[..., k] += mean
            level = torch.zeros_like(level)
        others = [q for q in range(len(model.levels)) if q != k]
        median = torch.cat((weight[:, :, k : k + 1], level), dim=3)
        distances = torch.cat((weight[:, :, others], torch.zeros_like(level).expand(-1, -1, len(others), -1)), dim=3)
        self.head = linear(
            torch.cat((median, -median, distances), dim=2).flatten(0, 2),
            torch.cat((bias[..., k : k + 1], -bias[..., k : k + 1], bias[..., others]), dim=2).flatten(),
        )

    def forward(self, state: torch.Tensor, level: torch.Tensor | None = None) -> torch.Tensor:
        """State and level, or one tensor of both."""
        horizon, values, levels = self.shape
        x = self.head(state if level is None else torch.cat((state, level), dim=1))
        # Softplus in vectorised operations: the operator takes twice as long as all of these.
        x = torch.maximum(x, torch.log(torch.exp(x.clamp(max=_STRAIGHT_FROM)) + 1))
        return x.reshape(-1, horizon, values, levels + 1)


def median_and_distances(levels: int, median: int) -> torch.Tensor:
    """(1 + Q, Q): what `LeanHead` gives, added up to quantiles."""
    matrix = torch.zeros(levels + 1, levels, dtype=torch.float64)
    matrix[0], matrix[1] = 1, -1
    for q in range(median + 1, levels):
        matrix[1 + median + 1 : 1 + q + 1, q] = 1
    for q in range(median):
        # The head lists the distances below the median outwards.
        matrix[2 : 2 + median - q, q] = -1
    return matrix


class Order(nn.Module):
    """Quantiles pushed apart from the median outwards, as `QuantileModel.ordered`: the running maximum and the way out.

    The way in is left to the caller, who folds it into what comes before: quantiles @ into + start, (..., V, K).
    """

    def __init__(self, levels: int, median: int, *, least: torch.Tensor) -> None:
        """Lay the columns out.

        Args:
            levels: Q.
            median: its place.
            least: (V,), the smallest distance between neighbours.
        """
        super().__init__()
        below, above = range(median, -1, -1), range(median, levels)
        gap = max(len(below), len(above)) - 1
        self.reach = gap + 1
        width = 2 * gap + len(below) + len(above)
        self.into = torch.zeros(levels, width, dtype=torch.float64)
        self.start = torch.full((len(least), width), _NOWHERE, dtype=torch.float64)
        out = torch.zeros(width - gap, levels, dtype=torch.float64)
        end = torch.zeros(len(least), levels, dtype=torch.float64)
        for side, first, sign in ((below, gap, -1.0), (above, 2 * gap + len(below), 1.0)):
            for away, level in enumerate(side):
                self.into[level, first + away] = sign
                self.start[:, first + away] = -away * least
                if away or sign > 0:  # the median is taken from one side
                    out[first - gap + away, level] = sign
                    end[:, level] = sign * away * least
        self.out, self.end = constant(out), constant(end)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Put in order: (B, H, V, K) -> (B, H, V, Q)."""
        return functional.max_pool2d(columns, (1, self.reach), stride=1) @ self.out + self.end


class LeanMoves(nn.Module):
    """State (B, D) and empirical quantiles (B, C, Q) -> quantiles in units of the spread (B, H, C, Q), in order."""

    def __init__(self, model: Forecaster) -> None:
        """Take the head, and fold what is between it and the order."""
        super().__init__()
        self.shape = model.horizon, model.values, len(model.levels)
        self.head = model.head
        spread = model.spread.double()
        self.scale = constant((1 / spread)[:, None].expand(self.shape[1:]))
        self.order = Order(self.shape[2], model.median, least=MIN_STEP / spread)
        self.into, self.start = constant(self.order.into), constant(self.order.start)

    def forward(self, state: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """The empirical quantiles, moved."""
        x = self.head(state).reshape(-1, *self.shape) + (base * self.scale)[:, None]
        return self.order(x @ self.into + self.start)


class LeanQuantiles(nn.Module):
    """What the members gave, summed -> forecast (B, H, C, Q) and, where the model gives it, demand (B, H, 2C, Q)."""

    def __init__(self, model: QuantileModel, *, basis: torch.Tensor, share: float) -> None:
        """Fold spread, calibration, order and inverse scaling.

        Args:
            model: the trained one.
            basis: (n, Q), the quantiles in units of the spread from what a member gives.
            share: of each member.
        """
        super().__init__()
        levels, scaling = len(model.levels), model.scaling
        horizon, values, channels = model.horizon, model.values, model.channels
        spread = model.spread.double()[:, None]
        matrix, moved = basis, spread * model.offset.double()  # (n, Q) and (H, V, Q)
        if len(basis) > levels:  # of a head's distances, which are MIN_STEP or more
            moved = moved + MIN_STEP * (torch.arange(levels) - model.median)
        self.order = None
        if bool((moved.diff(dim=2) < 0).any()):
            self.order = Order(levels, model.median, least=torch.full((values,), MIN_STEP, dtype=torch.float64))
            matrix, moved = basis @ self.order.into, moved @ self.order.into + self.order.start
        self.matrix = constant(matrix)
        # At full size: at batch 1, broadcasting over an inner axis takes longer than the multiplication.
        self.scale = constant((spread * share).expand(horizon, values, matrix.shape[1]))
        self.moved = constant(moved)
        times = torch.ones(horizon, values, levels, dtype=torch.float64)
        if model.forecasts_demand:
            times[:, channels : 2 * channels] = torch.arange(1, horizon + 1)[:, None, None]
        repeats = values // channels
        self.unit = constant(times * scaling.unit.double().repeat(repeats)[:, None])
        self.whole = bool((scaling.least > 0).any())
        self.least = constant(times * scaling.least.double().repeat(repeats)[:, None])
        self.log = scaling.log
        self.split = (channels, values - channels) if model.forecasts_demand else None

    def forward(self, found: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Back to raw units."""
        x = (found @ self.matrix) * self.scale + self.moved
        if self.order is not None:
            x = self.order(x)
        # At least 0 before the last product, which then cannot give -0.
        x = torch.exp(x.clamp(0.0, MAX_LOG)) - 1 if self.log else x.clamp_min(0.0)
        x = x * self.unit
        if self.whole:
            x = x * (x >= self.least)
        if self.split is None:
            return x
        forecast, demand = x.split(self.split, dim=2)
        return forecast, demand
