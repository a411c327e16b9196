"""What a model is measured against, and what speaks in its place when it is measurably worse. No training is needed.

- `recent_quantiles`: the quantiles of the steps in the window, the same for every step ahead.
- `last_value`: the last step, plus quantiles of how far the series moved within the window over as many steps. They
  are taken for one step ahead and for the farthest, and grow between with the root of the steps: as those of a random
  walk do, and those of independent steps, which do not grow. What lies farther than half the window moves as that.

A forecast step of several bins is compared with every run of as many bins in the window, or with bins times their
number where there are too few.

Axes: L context, H steps ahead, C channels, Q levels, N steps in the window.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .fallback import MIN_STEPS, in_float32
from .inputs import MAX_VALUE
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("recent_quantiles", "last_value")


class Rivals:
    """The rivals of models of one shape.

    Args:
        horizon: H.
        ratio: context steps in a forecast step: step_s / bin_s.
        context: L.
        levels: Q.

    Attributes:
        levels: (Q,).
    """

    def __init__(self, *, horizon: int, ratio: int, context: int, levels: tuple[float, ...]) -> None:
        self._horizon, self._ratio = horizon, ratio
        self._whole_steps = ratio > 1 and context - ratio >= MIN_STEPS
        self.levels = np.array(levels)
        steps = context - ratio + 1 if self._whole_steps else context
        self._farthest = max(1, min(horizon * ratio, steps // 2))
        self._nearest = min(ratio, self._farthest)
        self._of_steps, self._of_near, self._of_far = (
            _between(self.levels, max(1, steps - lag)) for lag in (0, self._nearest, self._farthest)
        )
        roots = np.sqrt(np.minimum(np.arange(1, horizon + 1) * ratio, self._farthest))
        growth = roots[-1] - np.sqrt(self._nearest)
        self._grown = ((roots - np.sqrt(self._nearest)) / growth if growth > 0 else 0.0 * roots)[:, None, None]

    def beside(self, values: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float64]:
        """A model's forecast, and theirs, to be judged.

        Args:
            values: (H, C, Q) raw units.
            window: (L, C) that it was made from.

        Returns:
            (3, H, C, Q): the model, then in the order of `NAMES`; finite and non-negative.
        """
        steps = self._steps(window)
        found = np.empty((3, *values.shape))
        found[0] = values
        found[1] = _quantiles(steps, self._of_steps)
        found[2] = self._last_value(steps)
        return found

    def forecast(self, rival: int, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of them, to be given.

        Args:
            rival: where it stands in `NAMES`.
            window: (L, C) raw units.

        Returns:
            (H, C, Q) float32, finite, non-negative, non-decreasing over Q.
        """
        steps = self._steps(window)
        if rival == 1:
            values = self._last_value(steps)
        else:
            values = np.tile(_quantiles(steps, self._of_steps), (self._horizon, 1, 1))
        # The interpolation may round a higher level to just below a lower one.
        return in_float32(np.minimum(np.maximum.accumulate(values, axis=-1), MAX_VALUE))

    def _steps(self, window: NDArray[np.float32]) -> NDArray[np.float64]:
        """(C, N): what forecast steps within the window would have been."""
        rows: NDArray[np.float64] = window.T.astype(np.float64)
        if self._whole_steps:
            # Not as differences of running sums: after one absurd value those are nothing but rounding.
            sums: NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(rows, self._ratio, axis=1).sum(axis=-1)
            return sums
        return rows * self._ratio

    def _last_value(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H, C, Q)."""
        last = steps[:, -1:]
        if steps.shape[1] == 1:  # nothing in the window tells how far the series moves
            return np.broadcast_to(last, (self._horizon, len(last), len(self.levels)))
        near = _quantiles(steps[:, self._nearest :] - steps[:, : -self._nearest], self._of_near)
        far = _quantiles(steps[:, self._farthest :] - steps[:, : -self._farthest], self._of_far)
        found: NDArray[np.float64] = np.maximum(last + near + self._grown * (far - near), 0.0)
        return found


@lru_cache(maxsize=16)
def _rivals(horizon: int, ratio: int, context: int, levels: tuple[float, ...]) -> Rivals:
    return Rivals(horizon=horizon, ratio=ratio, context=context, levels=levels)


def rivals_of(manifest: Manifest) -> Rivals:
    """Those of an artifact's shape, made once."""
    return _rivals(manifest.horizon, manifest.steps_per_forecast_step, manifest.context, manifest.levels)


def _between(levels: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Which of `count` sorted numbers lie below and above each level, and how far it is from one to the other."""
    at = levels * (count - 1)
    below = at.astype(np.intp)
    return below, np.minimum(below + 1, count - 1), at - below


def _quantiles(
    rows: NDArray[np.float64], between: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """(C, Q) of (C, N), as np.quantile gives them, in a fourth of its time."""
    below, above, part = between
    rows = np.sort(rows, axis=1)
    low = rows.take(below, axis=1)
    found: NDArray[np.float64] = low + (rows.take(above, axis=1) - low) * part
    return found
