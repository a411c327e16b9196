"""A stateful forecaster with every constant folded: some new steps and a state -> forecast and the state after them.

The running means are a recurrent layer themselves: sums and weights are never negative, so a layer of `relu` with a
diagonal matrix is exactly their recurrence, in one node for any number of steps. What centres and scales the features
is multiplied into the weights of the first recurrent layer. From a cold state over a whole context the same module is
the model of windows.

Axes: B batch, T steps, L context, C channels, N running means, K clock features, D hidden size, H horizon, V values, Q
levels. Inside, time comes first, as ONNX's recurrent operators have it.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from export.lean_quantiles import LeanHead, LeanQuantiles, Order
from export.lean_scaling import constant, linear
from training.quantile_model import MIN_STEP
from training.scaling import HARMONICS, Scaling
from training.stateful import StatefulForecaster


class LeanStep(nn.Module):
    """(B, T, C)[, (B, T)], states (1, B, n) -> forecast[, demand], states."""

    def __init__(self, model: StatefulForecaster) -> None:
        """Fold a trained model."""
        super().__init__()
        self.columns = LeanColumns(model)
        self.means = LeanMeans(model)
        self.clock = StepClock(model.scaling) if model.takes_time else None
        layers = list(_layers(model))
        self.layers = nn.ModuleList(layers)
        self.quantiles = LeanQuantiles(model, anchored=model.anchored, share=1.0)
        self.head: nn.Module = LeanHead(model)
        if model.anchored:
            self.head = DistributionHead(model, basis=self.quantiles.basis, moved=self.quantiles.moved)
        kinds = ("hidden", "cell") if isinstance(layers[0], nn.LSTM) else ("hidden",)
        self.state: dict[str, int] = {"means": 2 * len(model.means.decay)} | {
            f"{kind}_{i}": layer.hidden_size for i, layer in enumerate(layers) for kind in kinds
        }

    def forward(self, rows: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take in steps.

        Args:
            rows: (B, T, C), raw units.
            given: with a calendar the time of each step (B, T) float64; then each state of `state`, or none of them
                for a cold one.
        """
        times, states = (None, list(given)) if self.clock is None else (given[0], list(given[1:]))
        scaled, columns = self.columns(rows.transpose(0, 1))
        means, after = self.means(columns, states.pop(0) if states else None)
        parts = [scaled, means]
        if self.clock is not None:
            assert times is not None
            parts.append(self.clock(times.transpose(0, 1)))
        found, following = torch.cat(parts, dim=2), [after]
        for layer in self.layers:
            if isinstance(layer, nn.LSTM):
                found, own = layer(found, (states.pop(0), states.pop(0)) if states else None)
            else:
                found, hidden = layer(found, states.pop(0) if states else None)
                own = (hidden,)
            following += own
            last = own[0]
        outputs = self.quantiles(self.head(last.squeeze(0), means[-1]))
        return (*(outputs if isinstance(outputs, tuple) else (outputs,)), *following)


class LeanWindow(nn.Module):
    """The same from a cold state over a context, without the state after it: what model.onnx is made of."""

    def __init__(self, model: StatefulForecaster) -> None:
        """Fold a trained model."""
        super().__init__()
        self.step = LeanStep(model)
        self.outputs = 2 if model.forecasts_demand else 1
        age = torch.arange(model.context - 1, -1, -1, dtype=torch.float64)
        self.ages_s = nn.Buffer(age * model.bin_s) if model.takes_time and model.bin_s is not None else None

    def forward(
        self, context: torch.Tensor, time_s: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """As the trained model's."""
        times = [] if time_s is None or self.ages_s is None else [time_s[:, None] - self.ages_s]
        found = self.step(context, *times)[: self.outputs]
        return found if self.outputs > 1 else found[0]


class LeanColumns(nn.Module):
    """Raw steps (T, B, C) -> on the working scale, and what running means are taken of (T, B, N)."""

    def __init__(self, model: StatefulForecaster) -> None:
        """Fold the units, and the quantiles of training."""
        super().__init__()
        scaling: Scaling = model.scaling
        self.log, self.anchored = scaling.log, model.anchored
        self.scale = constant(1 / scaling.unit.double())
        if model.anchored:
            above, wide = model.above.double(), model.wide.double()
            matrix = torch.zeros(*above.shape[:1], *above.shape, dtype=torch.float64)
            for channel in range(len(above)):
                matrix[channel, channel] = 1 / wide[channel]
            self.matrix = constant(matrix.flatten(1))
            self.start = constant((0.5 - above / wide).flatten())

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale."""
        x = rows * self.scale
        x = torch.log(x + 1) if self.log else x
        if not self.anchored:
            return x, x
        return x, torch.cat((x, (x @ self.matrix + self.start).clamp(0.0, 1.0)), dim=2)


class StepClock(nn.Module):
    """Times (T, B) float64 -> the calendar's sines and cosines (T, B, K); a cosine is a sine a quarter turn on."""

    def __init__(self, scaling: Scaling) -> None:
        """Fold cycles and harmonics."""
        super().__init__()
        turns, ahead = [], []
        for cycle_s in scaling.cycles_s:
            turns += [harmonic / cycle_s for harmonic in range(1, HARMONICS + 1)] * 2
            ahead += [0.0] * HARMONICS + [0.25] * HARMONICS
        self.speed = nn.Buffer(torch.tensor(turns, dtype=torch.float64) * (2 * math.pi))
        self.ahead = nn.Buffer(torch.tensor(ahead, dtype=torch.float64) * (2 * math.pi))

    def forward(self, time_s: torch.Tensor) -> torch.Tensor:
        """All in double, which tells 1e-9 of a turn after a century."""
        return torch.sin(time_s[..., None] * self.speed + self.ahead).float()


class LeanMeans(nn.Module):
    """(T, B, N) and sums and weights (1, B, 2N) -> means (T, B, N), sums and weights; see `training.running`."""

    def __init__(self, model: StatefulForecaster) -> None:
        """Make the recurrent layer."""
        super().__init__()
        means = model.means
        columns = len(means.decay)
        self.layer = nn.RNN(columns, 2 * columns, nonlinearity="relu")
        decay = means.decay.detach().double()
        eye, nothing = torch.eye(columns, dtype=torch.float64), torch.zeros(columns, columns, dtype=torch.float64)
        self.layer.weight_ih_l0.data = torch.cat((eye, nothing)).float()
        self.layer.weight_hh_l0.data = torch.diag(decay.repeat(2)).float()
        self.layer.bias_ih_l0.data = torch.cat((nothing[0], torch.ones_like(decay))).float()
        self.layer.bias_hh_l0.data = torch.zeros(2 * columns)
        worth = means.worth.double()
        self.start = constant(torch.cat((worth * means.prior.double(), worth))) if bool(worth.any()) else None

    def forward(self, columns: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in steps."""
        found, state = self.layer(columns, state)
        total, weight = (found if self.start is None else found + self.start).chunk(2, dim=2)
        return total / weight, state


class DistributionHead(nn.Module):
    """State (B, D) and running means (B, N) -> quantiles on the working scale (B, H, C, Q), in order."""

    def __init__(self, model: StatefulForecaster, *, basis: torch.Tensor, moved: torch.Tensor) -> None:
        """Fold the quantiles of training, and the shares above them, into the head; the rest is as in `LeanMoves`.

        Args:
            model: the trained one.
            basis: (Q, K), what the quantiles are multiplied with.
            moved: (H, C, K), what is then added.
        """
        super().__init__()
        self.shape = model.horizon, model.values, len(model.levels)
        unit = model.spread.double()[:, None].expand(self.shape).flatten()
        shares = model.channels * self.shape[2]
        weight = model.head.weight.detach().double() * unit[:, None]
        hidden, share = weight.split([weight.shape[1] - shares, shares], dim=1)
        base = model.above.double().flatten().repeat(model.horizon)
        usual = model.means.prior[model.channels :].double()
        bias = model.head.bias.detach().double() * unit + base - share @ usual
        level = weight.new_zeros(len(weight), model.channels)
        self.head = linear(torch.cat((hidden, level, share), dim=1), bias)
        least = torch.full((self.shape[1],), MIN_STEP, dtype=torch.float64)
        self.order = Order(self.shape[2], model.median, least=least, basis=basis, moved=moved)
        self.into = constant(self.order.into)
        self.start = constant(self.order.start.expand(*self.shape[:2], -1))

    def forward(self, state: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """The quantiles of training, moved."""
        x = self.head(torch.cat((state, means), dim=1)).reshape(-1, *self.shape)
        return self.order(x @ self.into + self.start)


def _layers(model: StatefulForecaster) -> list[nn.RNNBase]:
    """The recurrent layers one by one, the first with the scaling of its features folded in."""
    rnn = model.network.rnn
    assert isinstance(rnn, (nn.LSTM, nn.GRU))
    channels, scaling = model.channels, model.scaling
    columns = len(model.means.decay)
    layers: list[nn.RNNBase] = []
    for i in range(rnn.num_layers):
        weight, bias = (getattr(rnn, f"{name}_ih_l{i}").detach().double() for name in ("weight", "bias"))
        if i == 0:
            own, level, clock = weight.split([channels, channels, weight.shape[1] - 2 * channels], dim=1)
            own, level = own / scaling.spread.double(), level / scaling.level_spread.double()
            bias = bias - level @ scaling.level_mean.double()
            shares = weight.new_zeros(len(weight), columns - channels)
            weight = torch.cat((own, level - own, shares, clock), dim=1)
        layer = type(rnn)(weight.shape[1], rnn.hidden_size)
        layer.weight_ih_l0.data, layer.bias_ih_l0.data = weight.float(), bias.float()
        for name in ("weight_hh", "bias_hh"):
            getattr(layer, f"{name}_l0").data = getattr(rnn, f"{name}_l{i}").detach().clone()
        layers.append(layer)
    return layers
