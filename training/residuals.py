"""From a point forecast to quantiles, through the errors it made on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics import pinball

OFFSET_SHARE = 0.1
"""A ratio is taken of values plus this share of the channel's mean, so that zeros have a logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Quantiles of one channel's validation residuals at each step of the horizon."""

    kind: str
    """`additive`: target - point; `log-ratio`: log((target + offset) / (point + offset))."""
    offset: float
    """Raw units; 0 for additive residuals."""
    shifts: np.ndarray
    """(H, Q) float64 quantiles of the residuals."""
    loss: float
    """Mean pinball loss on the windows they were fitted on, raw units."""

    @classmethod
    def fit(cls, point: np.ndarray, target: np.ndarray, *, levels: Sequence[float]) -> Residuals:
        """Both kinds of residuals; the one with the lower pinball loss on these same windows is kept.

        Args:
            point: (n, H) point forecasts of one channel, raw units, non-negative.
            target: (n, H) what happened.
            levels: (Q,) quantile levels, ascending.
        """
        fits = [_fit("additive", 0.0, point, target, levels)]
        offset = OFFSET_SHARE * float(target.mean())
        if offset > 0.0:
            fits.append(_fit("log-ratio", offset, point, target, levels))
        return min(fits, key=lambda fit: fit.loss)

    def quantiles(self, point: np.ndarray) -> np.ndarray:
        """Quantiles (n, H, Q) float32 around points (n, H): finite, at least 0, non-decreasing over Q."""
        return _apply(self.kind, self.offset, self.shifts, point).astype(np.float32)


def _fit(kind: str, offset: float, point: np.ndarray, target: np.ndarray, levels: Sequence[float]) -> Residuals:
    error = target - point if kind == "additive" else np.log((target + offset) / (point + offset))
    shifts = _quantiles(error, np.asarray(levels, dtype=np.float64))
    loss = float(pinball(_apply(kind, offset, shifts, point), target, levels).mean())
    return Residuals(kind=kind, offset=offset, shifts=shifts, loss=loss)


def _quantiles(error: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Sample quantiles over the first axis, (n, H) -> (H, Q); a sort beats `np.quantile` by far here."""
    ordered = np.sort(error.T, axis=1)
    place = levels * (error.shape[0] - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, error.shape[0] - 1)
    return np.asarray(ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low]))


def _apply(kind: str, offset: float, shifts: np.ndarray, point: np.ndarray) -> np.ndarray:
    moved = point[..., None] + offset
    values = moved + shifts if kind == "additive" else moved * np.exp(shifts) - offset
    return np.sort(np.clip(values, 0.0, float(np.finfo(np.float32).max)), axis=-1)
