"""Scaling of a window with every constant folded: what `training.scaling.Scaling` does, in a third of its nodes.

Every feature of a step is s * log(a x + 1) + g, where g is the same for all steps of a window and s is 0 for what is
constant over it. So one matrix makes the features from what is a step's own, and others, each adding to the one before,
all g at once from the window's level, the clock and the empirical quantiles.

Axes: B batch, L context bins, R bins in a step, S context steps, E values that are a step's own: C, or C + R C, C
channels, F features, K clock features, Q levels.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from training.anchor import EmpiricalAnchor
from training.scaling import HARMONICS, Scaling

_WHOLE = 64
"""Steps of a span that are not worth picking some of."""


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """A layer with these weights (out, in), in float32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.float().contiguous()
    if bias is not None:
        layer.bias.data = bias.float().contiguous()
    return layer


def added(x: torch.Tensor, more: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """x + layer(more), for a layer without bias, as the one node that adds a product."""
    return torch.addmm(x, more, layer.weight.t())


def constant(values: torch.Tensor) -> nn.Buffer:
    """A constant of the graph, rounded to float32."""
    return nn.Buffer(values.detach().float().contiguous())


class LeanSteps(nn.Module):
    """Bins (B, L, C) -> what is a step's own on the working scale (B, S, E): its values, and its bins' where R > 1."""

    def __init__(self, scaling: Scaling, *, bins: int) -> None:
        """Fold the units.

        Args:
            scaling: the trained one.
            bins: L.
        """
        super().__init__()
        ratio, channels = scaling.ratio, scaling.channels
        self.width, self.log = ratio * channels, scaling.log
        self.length = bins // ratio
        inverse = 1 / scaling.unit.double()
        self.own = channels if ratio == 1 else channels + ratio * channels
        # At full size, here and elsewhere: at batch 1, broadcasting takes longer than the operation.
        self.scale = constant(inverse.expand(self.length, channels)) if ratio == 1 else None
        if ratio > 1:
            columns = torch.diag(inverse).repeat(ratio, 1), torch.diag((inverse * ratio).repeat(ratio))
            self.matrix = constant(torch.cat(columns, dim=1))
        self.one = constant(torch.ones(self.length, self.own))

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """Scale."""
        if self.scale is not None:
            x = context * self.scale
        else:
            x = context.reshape(-1, self.length, self.width) @ self.matrix
        return torch.log(x + self.one) if self.log else x


class LeanLevel(nn.Module):
    """Steps (B, S * E) -> the window's level (B, C), before it is replaced where a model is not centred."""

    def __init__(self, scaling: Scaling, *, steps: int, own: int) -> None:
        """Fold the weights."""
        super().__init__()
        age = torch.arange(steps - 1, -1, -1, dtype=torch.float64)[:, None]
        weights = (1 - scaling.alpha.double()) ** age
        weights = weights / weights.sum(0)
        full = torch.zeros(scaling.channels, steps, own, dtype=torch.float64)
        for channel in range(scaling.channels):
            full[channel, :, channel] = weights[:, channel]
        self.mean = linear(full.flatten(1))

    def forward(self, flat: torch.Tensor) -> torch.Tensor:
        """The weighted mean."""
        return self.mean(flat)


class LeanClock(nn.Module):
    """Times (B,) float64 -> the calendar's sines and cosines (B, K); a cosine is a sine a quarter turn on."""

    def __init__(self, scaling: Scaling) -> None:
        """Fold cycles and harmonics."""
        super().__init__()
        turns, ahead = [], []
        for cycle_s in scaling.cycles_s:
            turns += [harmonic / cycle_s for harmonic in range(1, HARMONICS + 1)] * 2
            ahead += [0.0] * HARMONICS + [0.25] * HARMONICS
        self.speed = nn.Buffer(torch.tensor(turns, dtype=torch.float64)[:, None] * (2 * math.pi))
        self.ahead = nn.Buffer(torch.tensor(ahead, dtype=torch.float64)[:, None] * (2 * math.pi))

    def forward(self, time_s: torch.Tensor) -> torch.Tensor:
        """All in double, which tells 1e-9 of a turn after a century."""
        return torch.sin(time_s * self.speed + self.ahead).float().t()


class LeanAnchor(nn.Module):
    """Steps (B, L, E) -> the mixture of the spans' empirical quantiles (B, C * Q); see training/anchor.py."""

    def __init__(self, anchor: EmpiricalAnchor, *, own: int) -> None:
        """Fold places, shares and the mixture into one matrix.

        Args:
            anchor: the trained one.
            own: E.
        """
        super().__init__()
        mix = torch.softmax(anchor.mix.detach().double(), dim=0)  # (spans, C, Q)
        self.channels, levels = mix.shape[1], mix.shape[2]
        self.own, self.spans = own, anchor.spans
        self.rows: list[list[int]] = []
        weights = []
        for k, span in enumerate(anchor.spans):
            places = [level * (span - 1) for level in anchor.levels]
            rows = sorted({row for place in places for row in (int(place), min(int(place) + 1, span - 1))})
            if span <= _WHOLE:
                rows = list(range(span))
            weight = torch.zeros(len(rows), self.channels, self.channels, levels, dtype=torch.float64)
            for q, place in enumerate(places):
                share = place - int(place)
                for channel in range(self.channels):
                    at = weight[:, channel, channel, q]
                    at[rows.index(int(place))] += (1 - share) * mix[k, channel, q]
                    at[rows.index(min(int(place) + 1, span - 1))] += share * mix[k, channel, q]
            self.rows.append(rows)
            weights.append(weight)
        self.mean = linear(torch.cat(weights).flatten(0, 1).flatten(1).T)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Sort each span, pick the rows that levels lie between, and mix them."""
        values = steps if self.channels == self.own else steps[..., : self.channels]
        picked = []
        for span, rows in zip(self.spans, self.rows, strict=True):
            ordered = (values if span == self.spans[-1] else values[:, -span:]).sort(dim=1).values
            picked.append(ordered if len(rows) == span else ordered[:, rows])
        found: torch.Tensor = self.mean((torch.cat(picked, dim=1) if len(picked) > 1 else picked[0]).flatten(1))
        return found


class LeanFeatures(nn.Module):
    """Steps, level, clock and empirical quantiles -> what the network sees, (B, S, F)."""

    def __init__(self, scaling: Scaling, *, own: int, levels: int) -> None:
        """Fold.

        Args:
            scaling: the trained one.
            own: E.
            levels: Q where the model is anchored, else 0.
        """
        super().__init__()
        channels, clock = scaling.channels, 2 * HARMONICS * len(scaling.cycles_s)
        fine, shape = own - channels, levels * channels
        spread, mean, wide = (x.double() for x in (scaling.spread, scaling.level_mean, scaling.level_spread))
        eye = torch.eye(channels, dtype=torch.float64)
        if scaling.center:  # minus the window's level, or the mean of all
            down, shift = -eye / spread[:, None], torch.zeros_like(mean)
        else:
            down, shift = torch.zeros_like(eye), -mean / spread
        blocks = [  # in the network's order, from the level: weights and what is added
            (down, shift),
            (eye / wide[:, None], -mean / wide),
            (eye.new_zeros(clock, channels), mean.new_zeros(clock)),
            (down.repeat(fine // channels, 1), shift.repeat(fine // channels)),
            (down.repeat_interleave(levels, 0), shift.repeat_interleave(levels)),
        ]
        weight = torch.cat([block for block, _ in blocks])
        self.level = linear(weight, torch.cat([block for _, block in blocks]))
        at = 2 * channels + clock
        self.clock = linear(torch.eye(len(weight), dtype=torch.float64)[:, 2 * channels : at]) if clock else None
        self.base = None
        if levels:
            base = torch.zeros(len(weight), shape, dtype=torch.float64)
            base[-shape:] = torch.diag((1 / spread).repeat_interleave(levels))
            self.base = linear(base)
        scale = torch.zeros(own, len(weight), dtype=torch.float64)
        scale[:channels, :channels] = torch.diag(1 / spread)
        if fine:
            scale[channels:, at : at + fine] = torch.diag((1 / spread).repeat(scaling.ratio))
        self.scale = constant(scale)

    def forward(
        self, steps: torch.Tensor, level: torch.Tensor, clock: torch.Tensor | None, base: torch.Tensor | None
    ) -> torch.Tensor:
        """Put together."""
        constant = self.level(level)
        if clock is not None and self.clock is not None:
            constant = added(constant, clock, self.clock)
        if base is not None and self.base is not None:
            constant = added(constant, base, self.base)
        return steps @ self.scale + constant[:, None]
