"""A Kalman filter with a local linear trend, as NVIDIA Dynamo's planner forecasts load with it.

Model: level' = level + trend + w, trend' = trend + u, observation = level + noise, with the variances of w,
u and the noise fixed. Written from the description of `KalmanPredictor` in ai-dynamo 1.6.1
(dynamo/planner/core/load/predictors.py) with the defaults of dynamo/planner/config/defaults.py: q_level
1.0, q_trend 0.1, r 10.0, min_points 5, first covariance 1000, leading zeros skipped, and the last value
while fewer than min_points are seen. `log1p` is the planner's option `load_predictor_log1p` (off by
default). The planner forecasts one window; further steps continue the same line: level + h * trend.
"""

from __future__ import annotations

import math

import numpy as np

Q_LEVEL, Q_TREND, R, MIN_POINTS, FIRST_COVARIANCE = 1.0, 0.1, 10.0, 5, 1000.0


def filter_states(values: np.ndarray, starts: np.ndarray, *, log1p: bool) -> tuple[np.ndarray, np.ndarray]:
    """Run the filter over a series, anew in every segment.

    Args:
        values: (T,) float64 of one channel, raw units, non-negative.
        starts: (S,) first step of each segment, ascending, 0 among them.
        log1p: filter log1p of the values instead of the values.

    Returns:
        level and trend after each step, (T,) float64 each, in the space that was filtered. While the filter
        has fewer than five points, the level is the last value and the trend 0.
    """
    observed = (np.log1p(values) if log1p else values).tolist()
    level, trend = np.empty(len(observed)), np.empty(len(observed))
    gains = _gains()
    for begin, end in zip(starts, [*starts[1:], len(observed)], strict=True):
        _filter(observed[begin:end], gains, level[begin:end], trend[begin:end])
    return level, trend


def extrapolate(level: np.ndarray, trend: np.ndarray, horizon: int, *, log1p: bool) -> np.ndarray:
    """Forecasts (n, H) in raw units, at least 0, from states (n,)."""
    line = level[:, None] + trend[:, None] * np.arange(1, horizon + 1)
    # The cap keeps a line in log space finite; float32 ends near exp(88).
    return np.maximum(np.expm1(np.minimum(line, 80.0)) if log1p else line, 0.0)


def state_weights(history: int) -> np.ndarray:
    """What each value of a window adds to the filter's state after it.

    The gains depend on the variances alone, so the state is linear in the values, the first one's transient included:
    as `filter_states` on a segment that begins with this window, unless it begins with zeros.

    Args:
        history: W, steps of the window.

    Returns:
        (W, 2) float64, oldest first: weights of the level, then of the trend; the last value alone below five steps.
    """
    gains = _gains()
    level, trend = np.zeros(history), np.zeros(history)
    if history < MIN_POINTS:
        level[-1] = 1.0
        return np.stack([level, trend], axis=1)
    level[0] = 1.0
    for step in range(1, history):
        to_level, to_trend = gains[min(step, len(gains) - 1)]
        level += trend
        surprise = -level
        surprise[step] += 1.0
        level += to_level * surprise
        trend += to_trend * surprise
    return np.stack([level, trend], axis=1)


def _filter(
    observed: list[float],
    gains: list[tuple[float, float]],
    level: np.ndarray,
    trend: np.ndarray,
) -> None:
    """One segment. Plain floats: a step costs a tenth of what numpy calls on two numbers would."""
    x = v = 0.0
    seen, last = 0, len(gains) - 1
    for t, z in enumerate(observed):
        if seen == 0:
            x, v = z, 0.0
            seen = 1 if z != 0.0 else 0
        else:
            to_level, to_trend = gains[seen if seen < last else last]
            x += v
            surprise = z - x
            x += to_level * surprise
            v += to_trend * surprise
            seen += 1
        ready = seen >= MIN_POINTS
        level[t], trend[t] = (x, v) if ready else (z, 0.0)


def _gains() -> list[tuple[float, float]]:
    """Gains of level and trend at the n-th observation (the 0th only starts the level), until they settle.

    They depend on the variances alone, not on the data. Covariance [[a, b], [b, d]].
    """
    a = d = FIRST_COVARIANCE
    b = 0.0
    gains = [(1.0, 0.0)]
    while True:
        a, b, d = a + 2.0 * b + d + Q_LEVEL, b + d, d + Q_TREND
        to_level, to_trend = a / (a + R), b / (a + R)
        a, b, d = (1.0 - to_level) * a, (1.0 - to_level) * b, d - to_trend * b
        settled = math.isclose(to_level, gains[-1][0], rel_tol=1e-14) and math.isclose(
            to_trend, gains[-1][1], rel_tol=1e-14
        )
        gains.append((to_level, to_trend))
        if settled or len(gains) > 10_000:
            return gains
