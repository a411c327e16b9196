"""How good a quantile forecast is: wQL, coverage, WAPE and the score of Dynamo's planner.

Shapes: n forecasts, H steps, C channels, Q quantile levels. A forecast is (n, H, C, Q), its target (n, H, C),
both in raw units. Everything is computed in float64.

A channel whose targets are all 0 has no scale to divide by. Its weighted losses are then the plain mean
losses in raw units, so a forecast of exactly 0 scores 0, any other scores its distance, and nothing is ever
NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.errors import ConfigError


def pinball(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Quantile (pinball) loss of every single value.

    Args:
        forecast: (..., Q) quantiles at `levels`, raw units.
        target: (...) what happened, raw units.
        levels: (Q,) quantile levels, each in (0, 1).

    Returns:
        (..., Q) float64, raw units: `level * miss` above the forecast, `(1 - level) * -miss` below it.
    """
    tau = np.asarray(levels, dtype=np.float64)
    miss = np.asarray(target, dtype=np.float64)[..., None] - forecast
    return np.asarray(np.maximum(tau * miss, (tau - 1.0) * miss))


def wql(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mean weighted quantile loss: `2 * sum(pinball) / sum(|target|)`, averaged over the levels.

    Args:
        forecast: (n, H, C, Q), raw units.
        target: (n, H, C), raw units.
        levels: (Q,).

    Returns:
        (C,) float64, one per channel over all steps of the horizon; 0 is perfect.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    _check(forecast, target, levels)
    return _weighted(quantile_loss(forecast, target, levels), target, axis=(0, 1))


def wql_steps(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """The same as `wql` for each step of the horizon by itself: (H, C) float64."""
    _check(forecast, target, levels)
    return _weighted(quantile_loss(forecast, target, levels), target, axis=(0,))


def quantile_loss(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Twice the pinball loss of every step, averaged over the levels: what `wql` sums up.

    Args:
        forecast: (n, H, C, Q), raw units.
        target: (n, H, C), raw units.
        levels: (Q,).

    Returns:
        (n, H, C) float64, raw units; one level at a time is worked on, to stay small.
    """
    total = np.zeros(target.shape, dtype=np.float64)
    for q, level in enumerate(levels):
        total += pinball(forecast[..., q : q + 1], target, [level])[..., 0]
    return 2.0 * total / len(levels)


def coverage(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Share of targets at or below each quantile: (C, Q) float64; close to `levels` when calibrated.

    Targets with many equal values (zeros, say) can lie above a level without any fault of the forecast.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    _check(forecast, target, levels)
    return np.stack([(target <= forecast[..., q]).mean(axis=(0, 1)) for q in range(forecast.shape[-1])], axis=-1)


def wape(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted absolute percentage error: `sum(|target - median|) / sum(|target|)`, (C,) float64.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    _check(forecast, target, levels)
    return _weighted(np.abs(target - median(forecast, levels)), target, axis=(0, 1))


def median(forecast: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """The forecast at level 0.5: (..., Q) -> (...) float64.

    Between two levels it is interpolated, beyond the last one that level stands in.
    """
    tau = np.asarray(levels, dtype=np.float64)
    high = int(np.clip(np.searchsorted(tau, 0.5), 0, len(tau) - 1))
    low = max(high - 1, 0)
    if tau[high] <= 0.5 or low == high:
        return np.asarray(forecast[..., high], dtype=np.float64)
    share = (0.5 - tau[low]) / (tau[high] - tau[low])
    below = np.asarray(forecast[..., low], dtype=np.float64)
    return np.asarray(below + share * (forecast[..., high] - below))


def planner_loss(
    forecast: np.ndarray,
    target: np.ndarray,
    levels: Sequence[float] | np.ndarray,
    channels: Sequence[str],
) -> float:
    """How NVIDIA Dynamo's planner scores a one-window load forecast; the median's first step is judged.

    With e(p, y) = |log1p(p) - log1p(y)|, n requests in a window and mean lengths isl and osl, the loss of a
    window is 0.4 e(n*isl) + 0.4 e(n*osl) + 0.1 e(isl) + 0.1 e(osl). Here n*isl and n*osl are the token
    totals, and the mean lengths are totals over requests, 0 in a window without requests.
    Source of the formula: ai-dynamo 1.6.1, dynamo/planner/simulation/load_predictor.py, `window_loss`.

    Args:
        forecast: (n, H, C, Q) of a load series, raw units.
        target: (n, H, C).
        levels: (Q,).
        channels: C names, `requests`, `request_tokens` and `response_tokens` among them.

    Raises:
        ConfigError: a channel is missing or the shapes do not fit together.
    """
    _check(forecast, target, levels)
    missing = [name for name in _PLANNER if name not in channels]
    if missing:
        raise ConfigError(
            f"planner_loss: expected the channels {', '.join(_PLANNER)}, got {', '.join(channels)}; "
            "use a load series of a trace with token counts"
        )
    order = [list(channels).index(name) for name in _PLANNER]
    predicted = np.maximum(median(forecast[:, 0], levels)[:, order], 0.0)
    actual = np.maximum(np.asarray(target[:, 0], dtype=np.float64)[:, order], 0.0)
    totals = np.abs(np.log1p(predicted[:, 1:]) - np.log1p(actual[:, 1:]))
    lengths = np.abs(np.log1p(_mean_length(predicted)) - np.log1p(_mean_length(actual)))
    return float((0.4 * totals + 0.1 * lengths).sum(axis=-1).mean())


def capacity_ratio(point: np.ndarray, target: np.ndarray, *, under: float = 0.01) -> float:
    """Capacity over demand when the forecast, times one factor, falls short in a share `under` of the bins.

    The factor is matched on the same bins, so forecasts are compared at one rate of under-provisioning and
    not by how boldly they were calibrated. 1.0 is perfect; `inf` when no factor gets there (0 forecast for
    real demand).

    Args:
        point: (n,) forecast of one step and channel, raw units, non-negative.
        target: (n,) demand in the same bins.
        under: share of bins that may exceed their capacity, in (0, 1).
    """
    point, target = np.asarray(point, dtype=np.float64), np.asarray(target, dtype=np.float64)
    return float(capacity_over_demand(matched_factors(point, target, [under]), point, target)[0])


def matched_factors(point: np.ndarray, target: np.ndarray, shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """The factor on a forecast with which it falls short in each of some shares of the bins.

    Args:
        point: (n,) forecast of one step and channel, raw units, non-negative.
        target: (n,) demand in the same bins.
        shares: (S,) shares of bins that may exceed their capacity, in [0, 1).

    Returns:
        (S,) float64; `inf` where no factor gets there.
    """
    need = needed_factors(point, target)
    allowed = (np.asarray(shares, dtype=np.float64) * len(need)).astype(np.int64)
    return np.asarray(np.sort(need)[len(need) - 1 - allowed])


def needed_factors(point: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The factor on a forecast (n,) that just meets the demand (n,) of each bin: (n,) float64.

    A bin without demand needs no capacity; one with demand and a forecast of 0 can never be met: `inf`.
    """
    return np.asarray(np.divide(target, point, out=np.where(target > 0.0, np.inf, 0.0), where=point > 0.0))


def capacity_over_demand(factors: np.ndarray, point: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Capacity over demand when a forecast (n,) is provisioned times each factor (S,): (S,) float64, maybe `inf`."""
    provisioned, demand = float(point.sum()), float(target.sum())
    if demand == 0.0:
        return np.full(len(factors), 1.0 if provisioned == 0.0 else np.inf)
    met = np.isfinite(factors)
    return np.where(met, np.where(met, factors, 0.0) * provisioned / demand, np.inf)


def scores(
    forecast: np.ndarray,
    target: np.ndarray,
    levels: Sequence[float] | np.ndarray,
    channels: Sequence[str],
) -> dict[str, Any]:
    """Every score of one forecaster, as plain numbers that JSON can hold.

    Args:
        forecast: (n, H, C, Q), raw units.
        target: (n, H, C), raw units.
        levels: (Q,).
        channels: C names.

    Returns:
        `n`, `levels`, `wql` and `wape` (each `{"mean": x, "channels": {name: x}}`), `wql_steps` (`{"mean":
        [H], "channels": {name: [H]}}`), `coverage` (`{name: [Q]}`), for a load series `capacity_ratio` of the requests
        at the last step of the horizon (`{"0.01": x, "0.05": x}`; None for infinity) and, where it has tokens,
        `planner_loss`.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    _check(forecast, target, levels)
    if len(channels) != target.shape[2]:
        raise ConfigError(f"scores: expected {target.shape[2]} channel names, got {len(channels)}; name each one")
    steps = wql_steps(forecast, target, levels)
    covered = coverage(forecast, target, levels)
    result: dict[str, Any] = {
        "n": int(target.shape[0]),
        "levels": [float(level) for level in levels],
        "wql": _by_channel(wql(forecast, target, levels), channels),
        "wape": _by_channel(wape(forecast, target, levels), channels),
        "wql_steps": {
            "mean": steps.mean(axis=1).tolist(),
            "channels": {name: steps[:, c].tolist() for c, name in enumerate(channels)},
        },
        "coverage": {name: covered[c].tolist() for c, name in enumerate(channels)},
    }
    if all(name in channels for name in _PLANNER):
        result["planner_loss"] = planner_loss(forecast, target, levels, channels)
    if channels[0] == "requests":
        point = median(forecast[:, -1, 0], levels)
        ratios = {f"{under:g}": capacity_ratio(point, target[:, -1, 0], under=under) for under in (0.01, 0.05)}
        result["capacity_ratio"] = {under: ratio if np.isfinite(ratio) else None for under, ratio in ratios.items()}
    return result


_PLANNER = ("requests", "request_tokens", "response_tokens")


def _mean_length(totals: np.ndarray) -> np.ndarray:
    """Tokens per request, (n, 2), from (n, 3) requests and token totals."""
    requests = totals[:, :1]
    empty = np.zeros_like(totals[:, 1:])
    return np.asarray(np.divide(totals[:, 1:], requests, out=empty, where=requests > 0.0))


def _weighted(loss: np.ndarray, target: np.ndarray, *, axis: tuple[int, ...]) -> np.ndarray:
    """Sum of losses over sum of |target|; the mean loss where every target is 0."""
    scale = np.abs(np.asarray(target, dtype=np.float64)).sum(axis=axis)
    total = loss.sum(axis=axis)
    count = float(np.prod([loss.shape[a] for a in axis]))
    return np.asarray(total / np.where(scale > 0.0, scale, count))


def _by_channel(values: np.ndarray, channels: Sequence[str]) -> dict[str, Any]:
    return {
        "mean": float(values.mean()),
        "channels": {name: float(value) for name, value in zip(channels, values, strict=True)},
    }


def _check(forecast: np.ndarray, target: np.ndarray, levels: Sequence[float] | np.ndarray) -> None:
    if target.ndim != 3 or forecast.shape != (*target.shape, len(levels)) or 0 in forecast.shape:
        raise ConfigError(
            f"metrics: expected a forecast (n, H, C, {len(levels)}) and a target (n, H, C), "
            f"got {forecast.shape} and {target.shape}; score at least one window"
        )
