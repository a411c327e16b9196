"""Exponential smoothing, simple or with Holt's damped trend, as one linear map of a window of history.

Level' = alpha y + (1 - alpha)(level + phi trend), trend' = beta (level' - level) + (1 - beta) phi trend (Gardner and
McKenzie 1985); without beta and phi it is simple smoothing. It starts at the window's first value, without trend.

Letters: G settings, W steps of history, H horizon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

HISTORY = 2048
"""Steps that smoothing looks back; what lies before weighs less than 4e-5 at the smallest alpha."""


def state_weights(settings: Sequence[Mapping[str, float | int]], history: int) -> np.ndarray:
    """What each value of a window adds to the state after it.

    Args:
        settings: G settings with `alpha`, and `beta` and `phi` where there is a trend.
        history: W, steps of the window.

    Returns:
        (W, 2G) float64, oldest first: the first G columns for the levels, the last G for the trends.
    """
    alpha, beta, phi = (np.array([setting.get(k, 0.0) for setting in settings]) for k in ("alpha", "beta", "phi"))
    level, trend = alpha.copy(), alpha * beta
    weights = np.empty((history, 2 * len(settings)))
    # The answer to a unit impulse that lies further and further back; then what is left of the starting
    # level.
    for row in range(history - 1, -1, -1):
        weights[row] = np.concatenate([level, trend])
        level, trend = _decay(level, trend, alpha, beta, phi)
    start_level, start_trend = np.ones(len(settings)), np.zeros(len(settings))
    for _ in range(history):
        start_level, start_trend = _decay(start_level, start_trend, alpha, beta, phi)
    weights[0] += np.concatenate([start_level, start_trend])
    return weights


def damping(settings: Sequence[Mapping[str, float | int]], horizon: int) -> np.ndarray:
    """How many times the trend counts in each step ahead, phi + phi^2 + ... + phi^h: (G, H) float64."""
    phi = np.array([setting.get("phi", 0.0) for setting in settings])
    return np.cumsum(phi[:, None] ** np.arange(1, horizon + 1), axis=1)


def _decay(
    level: np.ndarray, trend: np.ndarray, alpha: np.ndarray, beta: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One step of damped Holt that observes 0."""
    new = (1.0 - alpha) * (level + phi * trend)
    return new, beta * (new - level) + (1.0 - beta) * phi * trend
