"""The whole forecaster: raw context in, raw quantiles out, everything in one graph.

scaling -> architecture -> monotone quantile head -> calibration -> inverse scaling. Monotone by construction: the head
gives the median and positive distances outwards (Gasthaus et al. 2019, "Probabilistic Forecasting with Spline Quantile
Function RNNs", section 3, for the idea of cumulated positive increments), so quantiles can't cross.

Axes: B batch, L context bins, S context steps, C channels, H horizon, Q levels, D features of the
architecture, V values forecast per step.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.anchor import EmpiricalAnchor
from training.errors import ConfigError, nearest
from training.quantile_model import MIN_STEP, QuantileModel
from training.registry import model_class, model_params
from training.scaling import Scaling
from training.series import Series
from training.windows import Split


class Forecaster(QuantileModel):
    """One architecture between the shared scaling and the shared quantile head."""

    def __init__(
        self,
        *,
        model: str,
        params: dict[str, Any],
        channels: int,
        context: int,
        horizon: int,
        levels: tuple[float, ...],
        log: bool = True,
        center: bool = True,
        calendar: tuple[str, ...] = (),
        ratio: int = 1,
        demand: bool = False,
        anchored: bool = False,
        recent: int = 0,
    ) -> None:
        """Build a forecaster with random weights.

        Args:
            model: registered name of the architecture.
            params: its hyper-parameters; missing ones take their defaults.
            channels: C.
            context: L, bins.
            horizon: H.
            levels: Q quantile levels, ascending, in (0, 1).
            log: see `Scaling`.
            center: see `Scaling`.
            calendar: see `Scaling`.
            ratio: context bins in a forecast step.
            demand: also forecast sums and peaks.
            anchored: start from the empirical quantiles of the context, see training/anchor.py; not with demand.
            recent: the architecture sees so many of the last steps; 0 for all.

        Raises:
            ConfigError: an unknown architecture or hyper-parameter, or a value of the wrong type.
        """
        super().__init__(channels=channels, horizon=horizon, levels=levels, demand=demand)
        self.anchored, self.context = anchored, context
        self.scaling = Scaling(channels, log=log, center=center, calendar=calendar, ratio=ratio)
        self.anchor = EmpiricalAnchor(channels=channels, context=context, levels=levels) if anchored else None
        self.recent = min(recent or context, context // ratio)
        width = self.scaling.features + (channels * len(levels) if anchored else 0)
        self.network = build_network(
            model, params, channels=width, context=self.recent, horizon=horizon, values=channels
        )
        features = _probe(model, self.network, context=self.recent, features=width)
        self.head = nn.Linear(features.shape[1], horizon * self.values * len(levels))
        self._start_at_a_normal_distribution()

    def scaled_quantiles(self, context: torch.Tensor, time_s: torch.Tensor | None = None) -> torch.Tensor:
        """Quantiles (B, H, V, Q) on the working scale, where the loss is taken, before calibration."""
        x, level = self.scaling(context, time_s)
        x = x[:, -self.recent :]
        spread = self.spread[:, None]
        if self.anchor is not None:
            base = self.anchor(self.scaling.to_scale(context))
            shape = ((base - level.transpose(1, 2)) / spread).flatten(1)
            x = torch.cat((x, shape[:, None].expand(-1, x.shape[1], -1)), dim=2)
        out = self.head(last_state(self.network(x))).view(-1, self.horizon, self.values, len(self.levels))
        if self.anchor is not None:
            return self.ordered(base[:, None] + spread * out)
        return self.around(out, level)

    def around(self, out: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Quantiles (B, H, V, Q) from what the head gives, in that shape, and the level (B, 1, C)."""
        spread = self.spread[:, None]
        level = level.repeat(1, 1, self.values // self.channels)
        median = level[..., None] + spread * out[..., self.median : self.median + 1]
        away = spread * functional.softplus(out) + MIN_STEP
        above = median + away[..., self.median + 1 :].cumsum(3)
        below = median - away[..., : self.median].cumsum(3).flip(3)
        return torch.cat((below, median, above), dim=3)

    @torch.no_grad()
    def fit_statistics(self, series: Series, split: Split, *, unit: str = "auto", sample: int = 1024) -> None:
        """Set what is measured rather than learnt: scaling on the training part, the anchor on validation.

        Args:
            series: the series.
            split: its split; nothing of the test part is read.
            unit: see `Scaling.fit`.
            sample: number of evenly spaced windows for the anchor.
        """
        context = self.context
        self.scaling.fit(series, split, context=context, horizon=self.horizon, unit=unit)
        if self.anchor is not None:
            windows = split.validation
            picks = windows[np.linspace(0, len(windows) - 1, min(sample, len(windows))).astype(np.int64)]
            at = torch.from_numpy(picks)[:, None]
            values = torch.from_numpy(series.values)
            self.anchor.fit(values[at + torch.arange(-context, 0)], values[at + torch.arange(self.horizon)])

    @torch.no_grad()
    def _start_at_a_normal_distribution(self) -> None:
        scores = torch.tensor([NormalDist().inv_cdf(level) for level in self.levels])
        # Distances below the median are listed outwards, as `scaled_quantiles` cumulates them.
        below, above = scores[: self.median + 1].diff().flip(0), scores[self.median :].diff()
        bias = torch.cat((below.expm1().log(), torch.zeros(1), above.expm1().log()))
        self.head.bias.copy_(bias.repeat(self.horizon * self.values))
        self.head.weight.mul_(0.1)
        if self.anchor is not None:  # which is a distribution already
            self.head.bias.zero_()
            self.head.weight.zero_()


def last_state(out: torch.Tensor) -> torch.Tensor:
    """What an architecture gave, (B, D) or (B, S, D), as features of the head (B, D)."""
    return out[:, -1] if out.dim() == 3 else out


def _probe(model: str, network: nn.Module, *, context: int, features: int) -> torch.Tensor:
    """What an architecture makes of two windows of zeros: (2, D)."""
    was_training = network.training
    try:
        with torch.no_grad():
            out = last_state(network.eval()(torch.zeros(2, context, features)))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{model}: expected an architecture for (B, {context}, {features}), got: {reason}; correct its forward"
        ) from error
    network.train(was_training)
    if out.dim() != 2 or len(out) != 2:
        raise ConfigError(
            f"{model}: expected features (B, D) or (B, L, D), got {tuple(out.shape)}; correct its forward"
        )
    return out


def check_params(model: str, params: dict[str, Any]) -> None:
    """Check the names and types of an architecture's hyper-parameters; a `BasePredictor` takes any.

    Raises:
        ConfigError: an unknown name (the nearest is given) or a value of the wrong type.
    """
    if not issubclass(model_class(model), nn.Module):
        return
    known = model_params(model)
    for name, value in params.items():
        if name not in known:
            raise ConfigError(f"{model}: expected a known hyper-parameter, got '{name}'; {nearest(name, known)}")
        wanted = type(known[name])
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if wanted is not type(None) and (not fits or (isinstance(value, bool) and wanted is not bool)):
            raise ConfigError(f"{model}.{name}: expected {wanted.__name__}, got {value!r}; correct it")


def build_network(
    model: str, params: dict[str, Any], *, channels: int, context: int, horizon: int, values: int
) -> nn.Module:
    """Build a registered architecture.

    Args:
        model: its name.
        params: its hyper-parameters.
        channels: F, width of its input.
        context: L.
        horizon: H.
        values: C, the first features of the input, which are the scaled values alone; a `BasePredictor` takes these.

    Raises:
        ConfigError: an unknown name or hyper-parameter, or a value of the wrong type.
    """
    check_params(model, params)
    cls = model_class(model)
    try:
        if not issubclass(cls, nn.Module):
            built: nn.Module = cls.network(model, params, channels=values, context=context, horizon=horizon)
            return built
        return cls(channels, context, horizon, **params)
    except (ValueError, RuntimeError, ZeroDivisionError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{model}: expected hyper-parameters that build a network, got {params}; {error}") from error
