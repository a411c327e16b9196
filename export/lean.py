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

from export.lean_quantiles import LeanHead, LeanMoves, LeanQuantiles
from export.lean_scaling import LeanAnchor, LeanClock, LeanFeatures, LeanLevel, LeanSteps, added, linear
from export.lean_step import LeanWindow
from training.forecaster import Forecaster, last_state
from training.quantile_model import Ensemble, QuantileModel
from training.scaling import Scaling
from training.stateful import StatefulForecaster

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
    if isinstance(model, StatefulForecaster):
        return LeanWindow(model).eval()
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
        self.steps = LeanSteps(first.scaling, bins=first.context)
        self.clock = LeanClock(first.scaling) if first.takes_time else None
        share = 1 / len(members)
        self.quantiles = LeanQuantiles(model, anchored=first.anchored, share=share)
        self.members = nn.ModuleList()
        for k, member in enumerate(members):
            head: nn.Module = LeanHead(member)
            if member.anchored:
                moved = self.quantiles.moved if k == 0 else torch.zeros_like(self.quantiles.moved)
                head = LeanMoves(member, basis=self.quantiles.basis, share=share, moved=moved)
            self.members.append(fold_affine(member, head) or LeanMember(member, head))

    def forward(
        self, context: torch.Tensor, time_s: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As the trained model's."""
        steps = self.steps(context)
        clock = None if time_s is None or self.clock is None else self.clock(time_s)
        found = self.members[0](steps, clock)
        for member in list(self.members)[1:]:
            found = found + member(steps, clock)
        return self.quantiles(found)


class LeanMember(nn.Module):
    """Steps (B, S, E) and clock (B, K) -> what `LeanQuantiles` adds up."""

    def __init__(self, model: Forecaster, head: nn.Module) -> None:
        """Fold a forecaster but for its head, which is given."""
        super().__init__()
        scaling, anchor = model.scaling, model.anchor
        steps, own = model.context // scaling.ratio, own_features(scaling)
        self.start = steps - model.recent
        self.level = LeanLevel(scaling, steps=steps, own=own)
        self.features = LeanFeatures(scaling, own=own, levels=len(model.levels) if anchor is not None else 0)
        self.anchor = None if anchor is None else LeanAnchor(anchor, own=own)
        self.network, self.head = model.network, head

    def forward(self, steps: torch.Tensor, clock: torch.Tensor | None) -> torch.Tensor:
        """Scale further, run the network, read its last state."""
        base = None if self.anchor is None else self.anchor(steps)
        state, level = self.state(steps, clock, base)
        found: torch.Tensor = self.head(state, level if base is None else base)
        return found

    def state(
        self, steps: torch.Tensor, clock: torch.Tensor | None, base: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's last state (B, D), and the level (B, C)."""
        level = self.level(steps.flatten(1))
        if self.start:
            steps = steps[:, self.start :]
        return last_state(self.network(self.features(steps, level, clock, base))), level


class FoldedMember(nn.Module):
    """An affine network with what surrounds it: one matrix from all steps, and the clock, to the head.

    What its rows have in common is computed once: of the 143 that a default DLinear has, 41 are independent.
    """

    def __init__(self, member: LeanMember, matrix: torch.Tensor, start: torch.Tensor, *, steps: int) -> None:
        """Take the matrix apart, and fold what is left into the head.

        Args:
            member: whose head and anchor are used.
            matrix: (D + C, S * E + K + C * Q), from steps, clock and quantiles to state and level.
            start: (D + C,), what is added.
            steps: S * E.
        """
        super().__init__()
        head = copy.deepcopy(member.head)
        assert isinstance(head, LeanHead | LeanMoves)
        self.anchor, self.head = member.anchor, head
        weight = head.head.weight.detach().double()
        matrix, start = matrix[: weight.shape[1]], start[: weight.shape[1]]
        bases = 0 if member.anchor is None else member.anchor.mean.out_features
        own, base = matrix[:, : matrix.shape[1] - bases], weight @ matrix[:, matrix.shape[1] - bases :]
        rows, combined = independent_rows(own)
        self.rows = linear(own[rows, :steps])
        self.clock = linear(own[rows, steps:]) if own.shape[1] > steps else None
        if isinstance(head, LeanMoves):
            head.head = linear(weight @ combined)
            head.base = linear(head.base.weight.detach() + base, head.base.bias.detach() + weight @ start)
        else:
            head.head = linear(weight @ combined, head.head.bias.detach() + weight @ start)

    def forward(self, steps: torch.Tensor, clock: torch.Tensor | None) -> torch.Tensor:
        """As `LeanMember`."""
        flat = steps.flatten(1)
        state = self.rows(flat) if clock is None or self.clock is None else added(self.clock(clock), flat, self.rows)
        found: torch.Tensor = self.head(state) if self.anchor is None else self.head(state, self.anchor(steps))
        return found


@torch.no_grad()
def fold_affine(model: Forecaster, head: nn.Module) -> FoldedMember | None:
    """The folded form of a forecaster whose network is affine, found by trying; None for any other."""
    scaling = model.scaling
    member = LeanMember(model, head)
    exact = copy.deepcopy(member).double().eval()
    length, own = model.context // scaling.ratio, own_features(scaling)
    steps, bases = length * own, 0 if member.anchor is None else member.anchor.mean.out_features
    clocks = scaling.features - own - model.channels
    inputs = steps + clocks + bases

    def state_and_level(flat: torch.Tensor) -> torch.Tensor:
        """(n, S * E + K + C * Q) -> (n, D + C)."""
        clock = flat[:, steps : steps + clocks] if clocks else None
        base = flat[:, steps + clocks :] if bases else None
        return torch.cat(exact.state(flat[:, :steps].view(-1, length, own), clock, base), dim=1)

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
    return FoldedMember(member, matrix.T, zero, steps=steps)


def independent_rows(matrix: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """Rows of which all others are combinations, and the combinations: matrix = combined @ matrix[rows].

    Rows, and not directions that mix them as a singular value decomposition has: so each stays what it was, of its
    channel alone.

    Args:
        matrix: (n, m) float64.

    Returns:
        r places, and (n, r).
    """
    left = matrix.clone()
    rows: list[int] = []
    smallest = _AFFINE * float(matrix.norm(dim=1).max())
    while len(rows) < min(matrix.shape):
        sizes = left.norm(dim=1)
        row = int(sizes.argmax())
        if not sizes[row] > smallest:
            break
        rows.append(row)
        along = left[row] / sizes[row]
        for _ in range(2):  # once more, for what rounding left
            left = left - (left @ along)[:, None] * along
    rows.sort()
    combined = torch.linalg.lstsq(matrix[rows].T, matrix.T).solution.T
    combined[combined.abs() < _AFFINE] = 0
    combined[rows] = torch.eye(len(rows), dtype=matrix.dtype)
    return rows, combined


def own_features(scaling: Scaling) -> int:
    """Features of a step that are its own: its values, and those of its bins where it has several."""
    return scaling.channels * (1 + (scaling.ratio if scaling.ratio > 1 else 0))
