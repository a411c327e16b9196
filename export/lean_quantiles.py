"""From the network's state to raw quantiles with every constant folded; see `training.quantile_model`.

The head gives the median and positive distances outwards, and one matrix adds them up. Where the calibration may push
quantiles across each other, they are put in order outwards from the median by one running maximum, which is a pooling:
below the median on negated values, with columns of -1e30 between the two sides.

Axes: B batch, H horizon, V values forecast per step, C channels, Q levels, D state, K columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from export.lean_scaling import added, constant, linear
from training.forecaster import Forecaster
from training.quantile_model import MIN_STEP, QuantileModel
from training.scaling import MAX_LOG

_NOWHERE = -1e30
_STRAIGHT_FROM = 80.0  # exp(80) is within float32, and softplus(x) = x long before
_BELOW_ONE = 1 - 2**-24  # the float32 before 1
_ABOVE_ZERO = 4e-6


class LeanHead(nn.Module):
    """State (B, D) and level (B, C) -> (B, H, V, Q): the median, and softplus of the distances.

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
            torch.cat((median, distances), dim=2).flatten(0, 2),
            torch.cat((bias[..., k : k + 1], bias[..., others]), dim=2).flatten(),
        )
        # Of the median exp gives 0, and the log of 0 + 0 is below everything: the maximum leaves it as it is.
        one, cap = torch.ones(self.shape), torch.full(self.shape, _STRAIGHT_FROM)
        one[..., 0], cap[..., 0] = 0, _NOWHERE
        self.one, self.cap = constant(one.flatten()), constant(cap.flatten())

    def forward(self, state: torch.Tensor, level: torch.Tensor | None = None) -> torch.Tensor:
        """State and level, or one tensor of both."""
        x = self.head(state if level is None else torch.cat((state, level), dim=1))
        # Softplus in vectorised operations: the operator takes three times as long as all of these.
        x = torch.maximum(x, torch.log(torch.exp(torch.minimum(x, self.cap)) + self.one))
        return x.reshape(-1, *self.shape)


def median_and_distances(levels: int, median: int) -> torch.Tensor:
    """(Q, Q): what `LeanHead` gives, added up to quantiles."""
    matrix = torch.zeros(levels, levels, dtype=torch.float64)
    matrix[0] = 1
    for q in range(median + 1, levels):
        matrix[median + 1 : q + 1, q] = 1
    for q in range(median):
        # The head lists the distances below the median outwards.
        matrix[1 : 1 + median - q, q] = -1
    return matrix


class Order(nn.Module):
    """Quantiles pushed apart from the median outwards, as `QuantileModel.ordered`: the running maximum and the way out.

    The way in is left to the caller, who folds it into what comes before: quantiles @ into + start, (..., V, K).
    """

    def __init__(
        self, levels: int, median: int, *, least: torch.Tensor, basis: torch.Tensor, moved: torch.Tensor
    ) -> None:
        """Lay the columns out.

        Args:
            levels: Q.
            median: its place.
            least: (V,), the smallest distance between neighbours.
            basis: (Q, n), what the quantiles in order are multiplied with.
            moved: (H, V, n), what is then added.
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
        basis = basis.double()
        self.out, self.end = constant(out @ basis), constant(end @ basis + moved)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Put in order: (B, H, V, K) -> (B, H, V, n)."""
        return functional.max_pool2d(columns, (1, self.reach), stride=1) @ self.out + self.end


class LeanMoves(nn.Module):
    """State (B, D) and empirical quantiles (B, C * Q) -> quantiles on the working scale (B, H, C, Q), in order."""

    def __init__(self, model: Forecaster, *, basis: torch.Tensor, share: float, moved: torch.Tensor) -> None:
        """Take the head, and fold what is before and behind the order.

        Args:
            model: the trained one.
            basis: (Q, K), what the quantiles are multiplied with.
            share: likewise.
            moved: (H, C, K), what is then added.
        """
        super().__init__()
        self.shape = model.horizon, model.values, len(model.levels)
        spread = model.spread.double()[:, None]
        unit = spread.expand(self.shape).flatten()
        self.head = linear(model.head.weight.detach().double() * unit[:, None])
        base = torch.eye(self.shape[1] * self.shape[2], dtype=torch.float64).repeat(self.shape[0], 1)
        self.base = linear(base, model.head.bias.detach().double() * unit)
        least = torch.full((self.shape[1],), MIN_STEP, dtype=torch.float64)
        self.order = Order(self.shape[2], model.median, least=least, basis=basis * share, moved=moved)
        self.into = constant(self.order.into)
        self.start = constant(self.order.start.expand(*self.shape[:2], -1))

    def forward(self, state: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """The empirical quantiles, moved."""
        x = added(self.base(base), state, self.head).reshape(-1, *self.shape)
        return self.order(x @ self.into + self.start)


class LeanQuantiles(nn.Module):
    """What the members gave, summed -> forecast (B, H, C, Q) and, where the model gives it, demand (B, H, 2C, Q).

    Attributes:
        basis: (n, K), what a member's numbers are to be multiplied with, in units of the spread.
        moved: (H, V, K), what is then added.
    """

    def __init__(self, model: QuantileModel, *, anchored: bool, share: float) -> None:
        """Fold spread, calibration, order and inverse scaling.

        Args:
            model: the trained one.
            anchored: its members multiply with `basis` themselves, and the first adds `moved`.
            share: of each member.
        """
        super().__init__()
        levels, scaling = len(model.levels), model.scaling
        horizon, values, channels = model.horizon, model.values, model.channels
        spread = model.spread.double()[:, None]
        basis, moved = torch.eye(levels, dtype=torch.float64), spread * model.offset.double()
        if not anchored:  # distances are MIN_STEP or more
            basis = median_and_distances(levels, model.median)
            moved = moved + MIN_STEP * (torch.arange(levels) - model.median)
        times = torch.ones(horizon, values, levels, dtype=torch.float64)
        if model.forecasts_demand:
            times[:, channels : 2 * channels] = torch.arange(1, horizon + 1)[:, None, None]
        repeats = values // channels
        unit = times * scaling.unit.double().repeat(repeats)[:, None]
        least = times * scaling.least.double().repeat(repeats)[:, None]
        self.log, self.whole = scaling.log, bool((scaling.least > 0).all())
        # Where there is a least, everything is counted in it: what is then less than 1 is none.
        self.unit = constant(least if self.whole else unit)
        ahead = (unit / least).log() if self.whole and self.log else torch.zeros_like(unit)
        self.less = constant(ahead.exp())
        # Of the log of what is forecast; the lowest so much above 0 that no rounding makes exp of it less.
        self.lowest, self.highest = constant(ahead + _ABOVE_ZERO), constant(ahead + MAX_LOG)
        self.bounds = None
        if bool((ahead == ahead.flatten()[0]).all()):
            self.bounds = float(ahead.flatten()[0]) + _ABOVE_ZERO, float(ahead.flatten()[0]) + MAX_LOG
        self.times = constant(unit / least if self.whole else torch.ones_like(unit))
        self.least = None if self.whole or not bool((scaling.least > 0).any()) else constant(least)
        self.order = None
        if bool((moved.diff(dim=2) < 0).any()):
            steps = torch.full((values,), MIN_STEP, dtype=torch.float64)
            self.order = Order(levels, model.median, least=steps, basis=torch.eye(levels), moved=ahead)
            basis, moved = basis @ self.order.into, moved @ self.order.into + self.order.start
        else:
            moved = moved + ahead
        self.basis, self.moved = basis, moved
        self.matrix = None if anchored else constant(basis)
        self.scale = constant((spread * share).expand(horizon, values, basis.shape[1]))
        self.added = constant(moved)
        self.split = (channels, values - channels) if model.forecasts_demand else None

    def forward(self, found: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Back to raw units."""
        x = found
        if self.matrix is not None:
            x = (x @ self.matrix) * self.scale + self.added
        if self.order is not None:
            x = self.order(x)
        if self.whole:
            if not self.log:
                x = (x * self.times).clamp_min(0.0)
            elif self.bounds is None:
                x = torch.exp(torch.minimum(torch.maximum(x, self.lowest), self.highest)) - self.less
            else:  # a number for a bound takes half the time of a tensor
                x = torch.exp(x.clamp(*self.bounds)) - self.less
            # The minimum keeps what is no number, which compares like one that is too small.
            x = torch.minimum(x, torch.where(x > _BELOW_ONE, x, 0.0))
        else:
            # At least 0 before the last product, which then cannot give -0.
            x = torch.exp(x.clamp(0.0, MAX_LOG)) - self.less if self.log else x.clamp_min(0.0)
        x = x * self.unit
        if self.least is not None:
            x = x * (x >= self.least)
        if self.split is None:
            return x
        forecast, demand = x.split(self.split, dim=2)
        return forecast, demand
