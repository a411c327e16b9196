"""Quantiles that keep their promise while traffic drifts: each finished step corrects the forecasts that follow.

A model's 0.9 covers 0.9 of what training held; a new day may be rougher. So every forecast that was really made is
judged when its steps are over, and each level moves up by a rate times its level after a miss and down by the rate
times the rest after a hit: it stands still when the share of hits is the level, whatever the data are. Two such
integrators add up:

- one for each step ahead, slow: the shape of the correction over the horizon;
- one for all steps ahead together, fast: a rough hour shows in all of them, and the nearest step tells first.

After Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift" (arXiv:2106.00170), and the
quantile tracking of Angelopoulos, Candès and Tibshirani 2023, "Conformal PID control for time series prediction"
(arXiv:2307.16895). Over a run of T forecasts the coverage differs from the level by at most the way that the offset
went, over rate times T. docs/runtime.md has what that gives on a real trace and what it costs.

Axes: H steps ahead, C channels, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .fallback import in_float32
from .fields import show
from .inputs import MAX_VALUE
from .ring import Ring
from .snapshot import Numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP_RATE, _COMMON_RATE = 0.1, 0.4  # standard deviations of a forecast per judged one
_BOUGHT_FROM = 0.8
_ELSEWHERE = 0.1
"""Capacity is bought at high levels, where coverage must hold within hours. Below them a tenth of the rates holds it
within days: each move costs accuracy, most of all at the median."""
_FARTHEST = 8.0  # standard deviations; what needs more is no longer a forecast of this series
_USUAL, _LEAST = 0.01, 0.01
_MAX_PENDING = 1 << 25


class AdaptiveQuantiles:
    """Corrects forecasts online; numpy alone, no artifact needed. Not thread-safe.

    Time goes by in context steps (bins, or requests). A forecast step covers `ratio` of them. Per finished step and
    per forecast the work is O(H * C * Q); H * H * ratio * C * Q numbers wait to be judged.

    Args:
        levels: Q quantile levels, ascending, in (0, 1).
        horizon: H.
        channels: C.
        ratio: context steps in a forecast step: step_s / bin_s.

    Raises:
        InputError: so many forecasts would wait that they need gigabytes.
    """

    def __init__(self, levels: Sequence[float], *, horizon: int, channels: int, ratio: int = 1) -> None:
        self._levels = np.asarray(levels, dtype=np.float64)
        self._ratio = ratio
        self._span = horizon * ratio  # context steps until the whole of a forecast is over
        shape = horizon, channels, len(levels)
        if self._span * horizon * channels * len(levels) > _MAX_PENDING:
            raise InputError(
                f"adapt: expected at most {_MAX_PENDING} quantiles waiting to be judged, got {self._span} forecasts of "
                f"{shape}; leave adapt off, or take a model with a shorter horizon"
            )
        weight = np.where(self._levels >= _BOUGHT_FROM, 1.0, _ELSEWHERE)
        self._step_rate, self._common_rate = _STEP_RATE * weight, _COMMON_RATE * weight
        self._of_step = np.zeros(shape)
        self._of_all = np.zeros(shape[1:])
        self._low, self._high = (int(np.abs(self._levels - level).argmin()) for level in (0.1, 0.9))
        normal = NormalDist()
        self._width = normal.inv_cdf(levels[self._high]) - normal.inv_cdf(levels[self._low])
        self._usual: NDArray[np.float64] | None = None
        self._steps = np.arange(horizon)
        self._issued = np.zeros((self._span, *shape))
        self._made = np.zeros(self._span)  # how much a forecast counts; 0 where none was made
        self._rows = np.zeros((ratio, channels))
        self._now = 0  # context steps finished
        self._last = -ratio
        self._seen = self._clears = 0  # of the ring in `follow`

    def adjust(self, values: NDArray[np.float32], *, late: int = 0) -> NDArray[np.float32]:
        """Correct a forecast and keep it to be judged.

        Args:
            values: (H, C, Q) finite, non-negative, non-decreasing over Q, raw units; left as it is.
            late: context steps finished since the one that the forecast starts from; what they cover is not judged. Of
                several forecasts from one step the first is judged.

        Returns:
            (H, C, Q) float32, finite, non-negative, non-decreasing over Q.
        """
        plain = values.astype(np.float64)
        moved = plain + self._spread(plain)[..., None] * (self._of_step + self._of_all)
        origin = self._now - late
        if late < self._span and origin > self._last:
            # Judged as moved, not as sorted: sorting would hide from each level of two that crossed what it did.
            self._issued[origin % self._span] = moved
            # Forecasts that overlap tell the same: those of one forecast step count as one.
            self._made[origin % self._span] = min(origin - self._last, self._ratio) / self._ratio
            self._last = origin
        return in_float32(np.sort(np.clip(moved, 0.0, MAX_VALUE), axis=-1))

    def learn(self, row: Sequence[float] | NDArray[np.float32]) -> None:
        """Take in one finished context step and judge the forecasts of what it completes.

        Args:
            row: (C,) raw units.
        """
        self._rows[self._now % self._ratio] = row
        self._now += 1
        slots = (self._now - (self._steps + 1) * self._ratio) % self._span
        counts = self._made[slots]
        if counts.any():
            found, issued = self._rows.sum(axis=0)[:, None], self._issued[slots, self._steps]
            missed = found > issued
            error = np.where(missed, self._levels, self._levels - 1.0)
            # A level at 0 always covers: without this, quiet nights would pull it down without end.
            error[(issued <= 0) & ~missed] = 0.0
            error *= counts[:, None, None]
            self._of_step = np.clip(self._of_step + self._step_rate * error, -_FARTHEST, _FARTHEST)
            self._of_all = np.clip(self._of_all + self._common_rate * error.mean(axis=0), -_FARTHEST, _FARTHEST)
        self._made[self._now % self._span] = 0.0

    def follow(self, steps: Ring) -> None:
        """Learn what a stream has finished since the last call; a gap in it clears.

        Args:
            steps: the stream's, which keeps H * ratio steps or more.
        """
        if steps.clears != self._clears:
            self._clears, self._seen = steps.clears, 0
            self.clear()
        fresh, self._seen = steps.seen - self._seen, steps.seen
        if fresh > self._span:  # a silence that outlasted every forecast: in O(1), however long
            self.clear()
            return
        for row in steps.last(fresh):
            self.learn(row)

    def clear(self) -> None:
        """Forget the forecasts that wait, since what follows is not what they were made for; keep what was learnt."""
        self._made[:] = 0.0
        self._last = self._now - self._ratio

    def state(self, numbers: Numbers) -> dict[str, Any]:
        """All that was learnt and what waits: single values for JSON, arrays into `numbers`."""
        for array in (self._of_step, self._of_all, self._rows, self._made, self._issued[self._made > 0]):
            numbers.put(array)
        if self._usual is not None:
            numbers.put(self._usual)
        return {"now": self._now, "last": self._last, "usual": self._usual is not None}

    def resume(self, state: Mapping[str, Any], numbers: Numbers, seen: int) -> None:
        """Go on, new, from what `state` gave, beside a ring that has seen `seen` rows and was never cleared.

        Raises:
            InputError, KeyError, TypeError: it gives no such thing.
        """
        now, last = state["now"], state["last"]
        if type(now) is not int or type(last) is not int or now < 0 or last > now:
            raise InputError(f"snapshot: expected steps, got {show((now, last))}")
        self._now, self._last, self._seen = now, last, seen
        self._of_step = numbers.take(self._of_step.shape, np.float64, low=-_FARTHEST, high=_FARTHEST)
        self._of_all = numbers.take(self._of_all.shape, np.float64, low=-_FARTHEST, high=_FARTHEST)
        self._rows = numbers.take(self._rows.shape, np.float64)
        self._made = numbers.take(self._made.shape, np.float64, low=0.0, high=1.0)
        made = self._made > 0
        self._issued[made] = numbers.take((int(made.sum()), *self._issued.shape[1:]), np.float64)
        if state["usual"]:
            self._usual = numbers.take(self._of_step.shape[:2], np.float64)

    def _spread(self, plain: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H, C): one standard deviation of the forecast, were it normal between its levels near 0.1 and 0.9.

        A hundredth of the usual one at least: a forecast of nothing but zeros must be able to rise.
        """
        spread: NDArray[np.float64]
        if self._high > self._low:
            spread = (plain[..., self._high] - plain[..., self._low]) / self._width
        else:
            spread = plain[..., self._low]
        self._usual = spread if self._usual is None else self._usual + _USUAL * (spread - self._usual)
        return np.maximum(spread, _LEAST * self._usual)
