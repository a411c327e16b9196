"""The same function in fewer operations: what is exported in place of the trained model.

A forecaster of traffic is small: at batch 1 a graph's time is its number of nodes, about half a microsecond each, far
more than their arithmetic. So constants are multiplied into one another (in float64, rounded once), the loops over
levels become one matrix and one pooling, and a network that turns out to be affine becomes one matrix with what
surrounds it. The parity gate compares what comes out with the trained model, as it does with any export.

Axes: B batch, L context bins, S context steps, C channels, F features, D state of the architecture, H horizon,
V values forecast per step, Q levels.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from export.lean_quantiles import LeanHead, LeanMoves, LeanQuantiles, median_and_distances
from export.lean_scaling import LeanAnchor, LeanClock, LeanFeatures, LeanLevel, LeanSteps, linear
from training.forecaster import Forecaster, last_state
from training.quantile_model import Ensemble, QuantileModel
from training.scaling import Scaling

_MOST_FOLDED = 1 << 16
"""Weights of a folded network: a larger matrix takes longer than the nodes it saves."""
_AFFINE = 1e-9


def lean(model: nn.Module) -> nn.Module:
    """The leaner form of a trained model, in eval mode; the model itself where there is none.

    Args:
        model: forward(context[, time_s]) -> forecast (B, H, C, Q) float32, or a tuple of it and demand (B, H, 2C, Q).
    """
    if not isinstance(model, QuantileModel):
        return model
    members = list(model.members) if isinstance(model, Ensemble) else [model]
    forecasters = [member for member in members if isinstance(member, Forecaster)]
    return LeanModel(model, forecasters).eval() if len(forecasters) == len(members) else model


class LeanModel(nn.Module):
    """Scaling once, each member's network and head, the mean of their quantiles, and the way back to raw units."""

    def __init__(self, model: QuantileModel, members: list[Forecaster]) -> None:
        """Fold a trained model.

        Args:
            model: the forecaster, or the ensemble.
            members: itself, or the ensemble's.
        """
        super().__init__()
        first = members[0]
        folded = fold_affine(first) if len(members) == 1 else None
        levels = len(first.levels) if first.anchored else 0
        constants = 0 if folded is not None else first.scaling.features - _own_features(first.scaling)
        self.steps = LeanSteps(first.scaling, constants=constants, shape=levels * first.channels)
        self.clock = LeanClock(first.scaling) if first.takes_time else None
        self.members = nn.ModuleList([folded] if folded is not None else [LeanMember(member) for member in members])
        basis = median_and_distances(len(first.levels), first.median)
        if first.anchored:
            basis = torch.eye(len(first.levels), dtype=torch.float64)
        self.quantiles = LeanQuantiles(model, basis=basis, share=1 / len(members))

    def forward(
        self, context: torch.Tensor, time_s: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As the trained model's."""
        steps = self.steps(context)
        clock = None if self.clock is None else self.clock(time_s)
        found = self.members[0](steps, clock)
        for member in list(self.members)[1:]:
            found = found + member(steps, clock)
        return self.quantiles(found)


class LeanMember(nn.Module):
    """Steps (B, S, F) and clock (B, K) -> what `LeanQuantiles` adds up, (B, H, V, n)."""

    def __init__(self, model: Forecaster) -> None:
        """Fold a forecaster."""
        super().__init__()
        scaling, anchor = model.scaling, model.anchor
        levels = len(model.levels) if anchor is not None else 0
        features = scaling.features + levels * model.channels
        self.start = model.context // scaling.ratio - model.recent
        self.level = LeanLevel(scaling, steps=model.context // scaling.ratio, features=features)
        self.features = LeanFeatures(scaling, levels=levels)
        self.anchor = None if anchor is None else LeanAnchor(anchor)
        self.network = model.network
        self.head = LeanHead(model) if anchor is None else LeanMoves(model)

    def forward(self, steps: torch.Tensor, clock: torch.Tensor | None) -> torch.Tensor:
        """Scale further, run the network, read its last state."""
        level = self.level(steps)
        base = None if self.anchor is None else self.anchor(steps)
        if self.start:
            steps = steps[:, self.start :]
        state = last_state(self.network(self.features(steps, level, clock, base)))
        return self.head(state, level if base is None else base)


class FoldedMember(nn.Module):
    """An affine network with what surrounds it: one matrix from all steps (and the clock) to state and level."""

    def __init__(self, matrix: nn.Linear, head: LeanHead) -> None:
        """Set both."""
        super().__init__()
        self.matrix, self.head = matrix, head

    def forward(self, steps: torch.Tensor, clock: torch.Tensor | None) -> torch.Tensor:
        """As `LeanMember`, of steps without columns for what is constant."""
        flat = steps.flatten(1)
        found = self.matrix(flat if clock is None else torch.cat((flat, clock), dim=1))
        return self.head(found)


@torch.no_grad()
def fold_affine(model: Forecaster) -> FoldedMember | None:
    """The folded form of a forecaster whose network is affine, found by trying; None for any other."""
    if model.anchored:
        return None
    scaling = model.scaling
    own = _own_features(scaling)
    length, clocks = model.context // scaling.ratio, scaling.features - own - model.channels
    inputs = length * own + clocks
    member = copy.deepcopy(LeanMember(model)).double().eval()

    def state_and_level(flat: torch.Tensor) -> torch.Tensor:
        """(n, S * own + K) -> (n, D + C)."""
        steps = flat[:, : length * own].view(-1, length, own)
        nothing = steps.new_zeros(len(flat), length, scaling.features - own)
        full = torch.cat((steps[..., : model.channels], nothing, steps[..., model.channels :]), dim=2)
        level, clock = member.level(full), flat[:, length * own :] if clocks else None
        features = member.features(full[:, member.start :], level, clock, None)
        return torch.cat((last_state(member.network(features)), level), dim=1)

    try:
        some = torch.rand(3, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 8
        probe = torch.cat((torch.zeros_like(some[:1]), some, some[:1] + some[1:2], some[2:] * -3))
        zero, a, b, c, both, scaled = state_and_level(probe).unbind()
    except RuntimeError:  # a network that insists on float32
        return None
    size = float(torch.stack((a, b, c)).abs().max())
    off = max(float((a + b - zero - both).abs().max()), float((-3 * (c - zero) - (scaled - zero)).abs().max()))
    if not off <= _AFFINE * size or inputs * len(zero) > _MOST_FOLDED:
        return None
    matrix = state_and_level(torch.eye(inputs, dtype=torch.float64)) - zero
    return FoldedMember(linear(matrix.T, zero), LeanHead(model))


def _own_features(scaling: Scaling) -> int:
    """Features of a step that are its own: its values, and those of its bins where it has several."""
    return scaling.channels * (1 + (scaling.ratio if scaling.ratio > 1 else 0))
