"""Scaling of a window with every constant folded: what `training.scaling.Scaling` does, in a third of its nodes.

Every feature of a step is s * log(a x + 1) + g, where g is the same for all steps of a window: a step's own value has s
= 1 / spread, what is constant over the window has a = s = 0. So one matrix makes the steps' columns from the bins, and
another all g at once from the window's level, the clock and the empirical quantiles.

Axes: B batch, L context bins, R bins in a step, S context steps, C channels, F features, K clock features, Q levels.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from training.anchor import EmpiricalAnchor
from training.scaling import HARMONICS, Scaling


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """A layer with these weights (out, in), in float32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.float().contiguous()
    if bias is not None:
        layer.bias.data = bias.float().contiguous()
    return layer


def constant(values: torch.Tensor) -> nn.Buffer:
    """A constant of the graph, rounded to float32."""
    return nn.Buffer(values.detach().float().contiguous())


class LeanSteps(nn.Module):
    """Bins (B, L, C) -> steps on the working scale (B, S, F), zero where a feature is constant over the window."""

    def __init__(self, scaling: Scaling, *, constants: int, shape: int) -> None:
        """Fold the units.

        Args:
            scaling: the trained one.
            constants: features after the steps' values and before the bins' that are constant over the window.
            shape: further ones after the bins'.
        """
        super().__init__()
        ratio, channels = scaling.ratio, scaling.channels
        self.ratio, self.channels, self.log = ratio, channels, scaling.log
        inverse = torch.diag(1 / scaling.unit.double())
        columns = [inverse.repeat(ratio, 1), torch.zeros(ratio * channels, constants, dtype=torch.float64)]
        if ratio > 1:
            columns.append(torch.block_diag(*[inverse * ratio] * ratio))
        columns.append(torch.zeros(ratio * channels, shape, dtype=torch.float64))
        self.matrix = constant(torch.cat(columns, dim=1))

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """Scale."""
        if self.ratio > 1:
            context = context.reshape(-1, context.shape[1] // self.ratio, self.ratio * self.channels)
        x = context @ self.matrix
        return torch.log(x + 1) if self.log else x


class LeanLevel(nn.Module):
    """Steps (B, S, F) -> the window's level (B, C), before it is replaced where a model is not centred."""

    def __init__(self, scaling: Scaling, *, steps: int, features: int) -> None:
        """Fold the weights."""
        super().__init__()
        age = torch.arange(steps - 1, -1, -1, dtype=torch.float64)[:, None]
        weights = (1 - scaling.alpha.double()) ** age
        weights = weights / weights.sum(0)
        full = torch.zeros(scaling.channels, steps, features, dtype=torch.float64)
        for channel in range(scaling.channels):
            full[channel, :, channel] = weights[:, channel]
        self.mean = linear(full.flatten(1))

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """The weighted mean."""
        return self.mean(steps.flatten(1))


class LeanClock(nn.Module):
    """Times (B,) float64 -> the calendar's sines and cosines (B, K); a cosine is a sine a quarter turn on."""

    def __init__(self, scaling: Scaling) -> None:
        """Fold cycles and harmonics."""
        super().__init__()
        turns, ahead = [], []
        for cycle_s in scaling.cycles_s:
            turns += [harmonic / cycle_s for harmonic in range(1, HARMONICS + 1)] * 2
            ahead += [0.0] * HARMONICS + [0.25] * HARMONICS
        self.turns = nn.Buffer(torch.tensor(turns, dtype=torch.float64))
        self.ahead = nn.Buffer(torch.tensor(ahead, dtype=torch.float64))

    def forward(self, time_s: torch.Tensor) -> torch.Tensor:
        """The phases stay double until whole turns are gone."""
        turned = time_s[:, None] * self.turns + self.ahead
        return torch.sin((turned - torch.floor(turned)).float() * (2 * math.pi))


class LeanAnchor(nn.Module):
    """Steps (B, L, F) -> the mixture of the spans' empirical quantiles (B, C, Q); see training/anchor.py."""

    def __init__(self, anchor: EmpiricalAnchor) -> None:
        """Fold places, shares and the mixture into one matrix for each channel."""
        super().__init__()
        mix = torch.softmax(anchor.mix.detach().double(), dim=0)  # (spans, C, Q)
        self.channels, levels = mix.shape[1], mix.shape[2]
        self.spans = anchor.spans
        self.rows: list[list[int]] = []
        weights = []
        for k, span in enumerate(anchor.spans):
            places = [level * (span - 1) for level in anchor.levels]
            rows = sorted({row for place in places for row in (int(place), min(int(place) + 1, span - 1))})
            weight = torch.zeros(self.channels, len(rows), levels, dtype=torch.float64)
            for q, place in enumerate(places):
                share = place - int(place)
                weight[:, rows.index(int(place)), q] += (1 - share) * mix[k, :, q]
                weight[:, rows.index(min(int(place) + 1, span - 1)), q] += share * mix[k, :, q]
            self.rows.append(rows)
            weights.append(weight)
        self.weights = constant(torch.cat(weights, dim=1))

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Sort each span, pick the rows that levels lie between, and mix them."""
        values = steps[..., : self.channels]
        picked = [
            values[:, -span:].sort(dim=1).values[:, rows] for span, rows in zip(self.spans, self.rows, strict=True)
        ]
        return (torch.cat(picked, dim=1).transpose(1, 2)[:, :, None] @ self.weights)[:, :, 0]


class LeanFeatures(nn.Module):
    """Steps, level, clock and empirical quantiles -> what the network sees, (B, S, F)."""

    def __init__(self, scaling: Scaling, *, levels: int) -> None:
        """Fold.

        Args:
            scaling: the trained one.
            levels: Q where the model is anchored, else 0.
        """
        super().__init__()
        channels, clock = scaling.channels, 2 * HARMONICS * len(scaling.cycles_s)
        fine, shape = scaling.ratio * channels if scaling.ratio > 1 else 0, levels * channels
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
        bias = torch.cat([block for _, block in blocks])
        known = torch.zeros(len(weight), clock + shape, dtype=torch.float64)
        known[2 * channels : 2 * channels + clock, :clock] = torch.eye(clock, dtype=torch.float64)
        if levels:
            known[-shape:, clock:] = torch.diag((1 / spread).repeat_interleave(levels))
        self.constant = linear(torch.cat((weight, known), dim=1), bias)
        scale = torch.zeros(len(weight), dtype=torch.float64)
        scale[:channels] = 1 / spread
        if fine:
            scale[2 * channels + clock : 2 * channels + clock + fine] = (1 / spread).repeat(scaling.ratio)
        self.scale = constant(scale)

    def forward(
        self, steps: torch.Tensor, level: torch.Tensor, clock: torch.Tensor | None, base: torch.Tensor | None
    ) -> torch.Tensor:
        """Put together."""
        known = [level] + ([] if clock is None else [clock]) + ([] if base is None else [base.flatten(1)])
        constant = self.constant(torch.cat(known, dim=1) if len(known) > 1 else level)
        return steps * self.scale + constant[:, None]
