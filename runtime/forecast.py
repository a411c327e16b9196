"""A forecast: quantiles of the coming steps, and the questions that schedulers ask of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-9
"""Of a step: a lead time of whole steps may come out a little more when divided by step_s."""


@dataclass(frozen=True, slots=True)
class NextRequest:
    """When the next request comes and how big it is, each at the level asked for on its own."""

    timestamp_s: float | None
    """On the clock of the observed stream; None before anything was observed."""
    request_tokens: float
    response_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """Quantiles at `levels` for H coming steps of each channel. Nothing of it can be changed."""

    values: NDArray[np.float32]
    """(H, C, Q) raw units, non-negative, non-decreasing over Q; read-only."""
    levels: tuple[float, ...]
    channels: tuple[str, ...]
    step_s: float | None
    """Width of a forecast step; None when a step is a request."""
    start_s: float | None
    """`load`: where the first forecast step begins. `requests`: time of the last request. None before that."""
    source: str
    """`model` (`model+adaptive` when it was corrected by how those before turned out), or `fallback:empirical` /
    `fallback:prior` while the model cannot be asked; `fallback:recent_quantiles (why)` / `fallback:last_value (why)`
    while it is measurably worse; `standing:model` is its last one, while the next is late."""
    aggregates: NDArray[np.float32] | None = None
    """(H, 2C, Q) where the model forecasts them: entry h - 1 has quantiles of the sum of each channel over the first h
    steps, then of the largest of them. Raw units, read-only, as the model gave them."""

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        values: NDArray[np.float32],
        *,
        start_s: float | None,
        source: str,
        aggregates: NDArray[np.float32] | None,
    ) -> Forecast:
        """A forecast of an artifact's model; the arrays become read-only."""
        values.setflags(write=False)
        if aggregates is not None:
            aggregates.setflags(write=False)
        made = _new(cls)
        _set_values(made, values)
        _set_levels(made, manifest.levels)
        _set_channels(made, manifest.channels)
        _set_step_s(made, manifest.step_s)
        _set_start_s(made, start_s)
        _set_source(made, source)
        _set_aggregates(made, aggregates)
        return made

    @property
    def kind(self) -> str:
        """`requests` or `load`."""
        return "requests" if self.step_s is None else "load"

    def at(self, level: float) -> NDArray[np.float32]:
        """The quantile at one level.

        Returns:
            (H, C) float32, raw units, a read-only view.

        Raises:
            InputError: `level` is none of `levels`.
        """
        view: NDArray[np.float32] = self.values[:, :, self._level(level)]
        return view

    def _level(self, level: float) -> int:
        """Where a level stands on the axis of levels."""
        if isinstance(level, Real) and not isinstance(level, bool):
            for i, known in enumerate(self.levels):
                if abs(known - level) < 1e-9:
                    return i
        raise InputError(f"level: expected one of {', '.join(map(str, self.levels))}, got {level!r}")

    def next_request(self, level: float = 0.5) -> NextRequest:
        """The next request, at a level that holds for its time and its sizes one by one, not jointly.

        A level of 0.9 for a busy moment is late and large: take a low level for an early arrival.

        Raises:
            InputError: the series is `load`, or `level` is none of `levels`.
        """
        if self.kind != "requests":
            raise InputError("next_request: expected a forecast of a 'requests' series, got 'load'; see demand()")
        first = dict(zip(self.channels, self.at(level)[0].tolist(), strict=True))
        wait_s = first["inter_arrival_s"]
        return NextRequest(
            timestamp_s=None if self.start_s is None else self.start_s + wait_s,
            request_tokens=first["request_tokens"],
            response_tokens=first["response_tokens"],
        )

    def demand(self, lead_time_s: float, *, level: float = 0.9) -> NDArray[np.float64]:
        """The load that arrives before a replica started now is ready, counted from `start_s`.

        With `aggregates` it is the quantile of that sum as the model forecast it, linear within a step, and never less
        for a longer lead time. Without (an older artifact, or a fallback) it is the sum of the per-step quantiles, the
        last step pro rata: the quantile of the sum only when all steps move together. When they move apart, their
        highs and lows partly cancel, and it is too high for high levels (on the safe side) and too low for low ones.

        Args:
            lead_time_s: seconds from the beginning of the first forecast step, at most H * step_s.
            level: one of `levels`.

        Returns:
            (C,) float64, raw units per channel.

        Raises:
            InputError: the series is `requests`, the lead time is negative or beyond the horizon, or `level` is
                none of `levels`.
        """
        steps = self._lead_steps("demand", lead_time_s)
        if self.aggregates is None:
            totals = self.at(level).cumsum(axis=0, dtype=np.float64)
        else:
            sums = self.aggregates[:, : len(self.channels), self._level(level)]
            totals = np.maximum.accumulate(sums.astype(np.float64), axis=0)
        totals = np.concatenate((np.zeros_like(totals[:1]), totals))
        whole = min(math.floor(steps), len(totals) - 2)
        total: NDArray[np.float64] = totals[whole] + (steps - whole) * (totals[whole + 1] - totals[whole])
        return total

    def peak(self, lead_time_s: float, *, level: float = 0.9) -> NDArray[np.float64]:
        """The largest single step of load before a replica started now is ready; the step it gets ready in counts.

        With `aggregates` it is the quantile of that largest step as the model forecast it, and never less for a longer
        lead time. Without (an older artifact, or a fallback) it is the largest of the per-step quantiles, which is too
        low when steps move apart: any one of several may be the high one.

        Args:
            lead_time_s: seconds from the beginning of the first forecast step, at most H * step_s.
            level: one of `levels`.

        Returns:
            (C,) float64, raw units per `step_s`; zeros for a lead time of 0.

        Raises:
            InputError: as `demand`.
        """
        begun = math.ceil(self._lead_steps("peak", lead_time_s) - _ROUNDING)
        if self.aggregates is None:
            steps = self.at(level)
        else:
            steps = self.aggregates[:, len(self.channels) :, self._level(level)]
        largest: NDArray[np.float64] = steps[:begun].max(axis=0, initial=0.0).astype(np.float64)
        return largest

    def _lead_steps(self, question: str, lead_time_s: float) -> float:
        """A lead time in forecast steps, 0 to H."""
        if self.step_s is None:
            raise InputError(f"{question}: expected a forecast of a 'load' series, got 'requests'; see next_request()")
        longest_s = len(self.values) * self.step_s
        number = isinstance(lead_time_s, Real) and not isinstance(lead_time_s, bool)
        if not number or not 0 <= lead_time_s <= longest_s:
            raise InputError(
                f"lead_time_s: expected 0 to {longest_s:g} ({len(self.values)} steps of {self.step_s:g} s), "
                f"got {lead_time_s!r}; a longer lead time needs a model with a longer horizon"
            )
        return float(lead_time_s) / self.step_s

    def to_dict(self) -> dict[str, Any]:
        """The forecast as plain lists, texts and numbers, ready for JSON; `aggregates` where there are some."""
        plain = {
            "source": self.source,
            "kind": self.kind,
            "channels": list(self.channels),
            "levels": list(self.levels),
            "start_s": self.start_s,
            "step_s": self.step_s,
            "values": self.values.tolist(),
        }
        return plain if self.aggregates is None else plain | {"aggregates": self.aggregates.tolist()}


# In the hot loop: a frozen dataclass sets its fields through `object.__setattr__`, which takes twice as long.
_new = object.__new__
_set_values, _set_levels, _set_channels, _set_step_s, _set_start_s, _set_source, _set_aggregates = (
    Forecast.__dict__[field.name].__set__ for field in fields(Forecast)
)
