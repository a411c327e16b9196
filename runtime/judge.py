"""How the forecasts of one stream turned out, beside what its rivals would have said: one at a time, once it is over.

Nothing waits but one forecast with the window that it was made from. So what is judged does not overlap, the price is
paid once for each horizon that passes, and an idle stream pays nothing. It is looked at when the stream is asked for a
forecast, never when it observes.

Axes: L context, H steps ahead, C channels, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .fallback import in_float32
from .fields import is_integer, show
from .inputs import MAX_VALUE
from .manifest import Manifest
from .ring import Ring
from .rivals import rivals_of
from .snapshot import Numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 32
"""Judged forecasts that are remembered."""
SPACING = 12
"""Steps between two that are judged, at least, so that nine of ten forecasts pay nothing, however short they reach."""

_MOST = 1 << 53


class Judge:
    """Scores of the last `WINDOW` forecasts of one stream that could be judged. Not thread-safe.

    Attributes:
        manifest: of the model whose forecasts they are.
        judged: how many were.

    Args:
        manifest: likewise.
    """

    __slots__ = "_clears", "_next", "_over", "_rows", "_values", "_window", "judged", "manifest"

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.judged = 0
        self._rows: NDArray[np.float32] | None = None  # made when needed: most streams of a fleet are idle
        self._values: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None
        # Of the one that waits, in steps seen by the ring: when it is over. And when the next is taken.
        self._over = self._next = self._clears = 0

    @staticmethod
    def keep(manifest: Manifest) -> int:
        """Steps that the ring given to `look` must keep: those of two horizons, so that some may be asked for late."""
        return 2 * manifest.horizon * manifest.steps_per_forecast_step

    def due(self, seen: int, clears: int) -> bool:
        """Whether a forecast made after so many steps of the ring would be taken."""
        return self._values is None and (seen >= self._next or clears != self._clears)

    def take(self, values: NDArray[np.float32], window: NDArray[np.float32], *, seen: int, clears: int) -> None:
        """Have a forecast judged when it is over, if one is due.

        Args:
            values: (H, C, Q), kept as it is.
            window: (L, C) that it was made from, likewise.
            seen: of the ring, when it was made.
            clears: likewise.
        """
        if self.due(seen, clears):
            self._values, self._window, self._clears = values, window, clears
            self._over = seen + self.manifest.horizon * self.manifest.steps_per_forecast_step
            self._next = seen + SPACING

    def look(self, steps: Ring) -> bool:
        """Judge the forecast that waits if its steps are over; whether one was judged.

        Never across a gap, nor when the ring no longer has all of its steps, nor where they hold no traffic at all:
        a loss has nothing to be measured by then, and a quiet night says little of the day.
        """
        values, window = self._values, self._window
        if values is None or window is None or (steps.seen < self._over and steps.clears == self._clears):
            return False
        self._values = self._window = None
        span = self.manifest.horizon * self.manifest.steps_per_forecast_step
        since = steps.seen - self._over + span
        if steps.clears != self._clears or since > steps.length:
            return False
        rows = steps.last(since)[:span].astype(np.float64)
        found = rows.reshape(len(values), -1, rows.shape[1]).sum(axis=1)
        if not found.any():
            return False
        self._add(values, window, found)
        return True

    def rows(self, count: int) -> NDArray[np.float64]:
        """The scores of the last `count` judged forecasts, as many as there are: (n, see `Score`)."""
        n = min(count, self.judged, WINDOW)
        if self._rows is None or n == 0:
            return np.zeros((0, width(self.manifest)))
        return self._rows.take(np.arange(self.judged - n, self.judged), axis=0, mode="wrap").astype(np.float64)

    def _add(self, values: NDArray[np.float32], window: NDArray[np.float32], found: NDArray[np.float64]) -> None:
        rivals = rivals_of(self.manifest)
        error = found[:, :, None] - rivals.beside(values, window)
        missed = error > 0
        losses = np.einsum("khcq,khcq->kc", error, rivals.levels - 1.0 + missed) * (2.0 / len(rivals.levels))
        misses = missed.sum(axis=(1, 2)) / found.size
        row = np.concatenate((found.sum(axis=0), losses.ravel(), misses[0], misses[1:, -1]))
        if self._rows is None:
            self._rows = np.zeros((WINDOW, len(row)), dtype=np.float32)
        self._rows[self.judged % WINDOW] = in_float32(np.minimum(row, MAX_VALUE))
        self.judged += 1

    def state(self, steps: Ring, numbers: Numbers) -> dict[str, Any]:
        """All that was judged and what waits: single values for JSON, arrays into `numbers`."""
        numbers.put(self.rows(WINDOW).astype(np.float32))
        now = self._clears == steps.clears
        if now and self._values is not None and self._window is not None:
            numbers.put(self._values)
            numbers.put(self._window)
            over = self._over
        else:
            over = None
        return {"judged": self.judged, "over": over, "next": self._next if now else 0}

    def resume(self, state: Mapping[str, Any], numbers: Numbers) -> None:
        """Go on, new, from what `state` gave, beside a ring that was never cleared.

        Raises:
            InputError, KeyError, TypeError: it gives no such thing.
        """
        judged, over, due, m = state["judged"], state["over"], state["next"], self.manifest
        if not (is_integer(judged) and 0 <= judged < _MOST and is_integer(due) and (over is None or is_integer(over))):
            raise InputError(f"snapshot: expected judged forecasts, got {show((judged, over, due))}")
        n = min(judged, WINDOW)
        rows = numbers.take((n, width(m)), np.float32, low=0.0)
        self.judged, self._next = judged, due
        if n:
            self._rows = np.zeros((WINDOW, width(m)), dtype=np.float32)
            self._rows[np.arange(judged - n, judged) % WINDOW] = rows
        if over is not None:
            self._over = over
            self._values = numbers.take((m.horizon, len(m.channels), len(m.levels)), np.float32, low=0.0)
            self._window = numbers.take((m.context, len(m.channels)), np.float32, low=0.0)


class Score:
    """What some judged forecasts come to.

    Args:
        rows: (n, width), one for each, as `Judge.rows`: what came of each channel; of the model, then of each rival,
            its loss by channel; the share that the model missed of each level; that of the highest for each rival.
        manifest: channels and levels.

    Attributes:
        count: n.
        wql: (3,) of the model and the rivals; channels without traffic do not count.
        missed: (Q,) share of steps above each level of the model.
        top: (n, 3) of each forecast, that above the highest level; of the model, then the rivals.
    """

    __slots__ = "_losses", "_weights", "count", "missed", "top", "wql"

    def __init__(self, rows: NDArray[np.float64], manifest: Manifest) -> None:
        channels, levels = len(manifest.channels), len(manifest.levels)
        self.count = len(rows)
        sums = rows.sum(axis=0)
        came = sums[:channels]
        self._weights = np.divide(1.0, came, out=np.zeros(channels), where=came > 0) / max(1, np.count_nonzero(came))
        self._losses = rows[:, channels : 4 * channels]
        self.top = rows[:, 4 * channels + levels - 1 :]
        self.wql = sums[channels : 4 * channels].reshape(3, channels) @ self._weights
        self.missed = sums[4 * channels : 4 * channels + levels] / max(1, self.count)

    def losses(self) -> NDArray[np.float64]:
        """(n, 3): what each forecast adds to `wql`."""
        losses: NDArray[np.float64] = self._losses.reshape(self.count, 3, -1) @ self._weights
        return losses


def width(manifest: Manifest) -> int:
    """Numbers that one judged forecast comes to."""
    return 4 * len(manifest.channels) + len(manifest.levels) + 2
