"""What stands in for the model while it cannot be asked: quantiles of what was seen, or of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .inputs import MAX_VALUE
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_STEPS = 8
"""Steps seen from which their own quantiles are worth more than the training series'."""


def in_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rounded, also in a host that has numpy raise (`np.seterr`) where something becomes 0."""
    with np.errstate(under="ignore"):
        return values.astype(np.float32)


def fallback(steps: NDArray[np.float32], manifest: Manifest, *, seen: int) -> tuple[NDArray[np.float32], str]:
    """A forecast that repeats one step's quantiles over the horizon.

    A forecast step of several bins takes the quantiles of one bin times their number: on the safe side for high levels.

    Args:
        steps: (n, C) float32, the last steps seen, n <= L.
        manifest: shapes, levels and the prior.
        seen: steps seen since the last gap, n or more.

    Returns:
        (H, C, Q) float32, finite, non-negative, non-decreasing over Q; and `fallback:empirical` or `fallback:prior`.
    """
    if seen >= MIN_STEPS:
        quantiles = np.quantile(steps.astype(np.float64), manifest.levels, axis=0).T
        source = "fallback:empirical"
    else:
        quantiles = manifest.prior.astype(np.float64)
        source = "fallback:prior"
    quantiles = quantiles * manifest.steps_per_forecast_step
    # The interpolation may round a higher level to just below a lower one.
    step = in_float32(np.minimum(np.maximum.accumulate(quantiles, axis=1), MAX_VALUE))
    return np.tile(step, (manifest.horizon, 1, 1)), source
