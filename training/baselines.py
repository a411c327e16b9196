"""Simple forecasters that every model must stand beside, as carefully tuned as the models.

Every setting is tuned on validation, per channel, by the score that is reported (wQL), and a point forecast becomes
quantiles through its own validation residuals, per channel and step of the horizon. The scores of a baseline on
*validation* are therefore in-sample and flatter it a little; test is clean.

Letters: T steps, n origins, H horizon, C channels, Q levels, G settings of a grid, W steps of history.
A forecast at origin i reads only steps before i, and only those of i's segment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training import kalman, smoothing, statistical
from training.backtest import thin
from training.errors import ConfigError
from training.metrics import pinball
from training.residuals import Residuals
from training.series import Series

NAMES = (
    "last_value",
    "mean_of_last",
    "exponential_smoothing",
    "damped_holt",
    "kalman",
    "kalman_log1p",
    "seasonal_naive",
    "recent_quantiles",
)
Setting = dict[str, float | int]
DAY_S = 86_400.0
MEAN_STEPS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 60, 120, 250, 500, 1000, 2000)
QUANTILE_STEPS = (50, 100, 200, 500, 1000, 2000)
SIMPLE_ALPHA = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HOLT_ALPHA = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
HOLT_BETA = (0.01, 0.03, 0.1, 0.2, 0.4)
HOLT_PHI = (0.8, 0.9, 0.95, 0.98, 1.0)
TUNING_ORIGINS = 2000
"""Validation origins, evenly spaced, on which settings are compared."""
CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineForecast:
    """What one baseline forecasts, in raw units, non-negative and non-decreasing over Q."""

    name: str
    settings: dict[str, float | int | str]
    """What tuning chose; a setting that is chosen per channel is called `setting[channel]`."""
    validation: np.ndarray
    """(n, H, C, Q) float32; in-sample, because settings and residuals come from these windows."""
    test: np.ndarray
    """(m, H, C, Q) float32."""
    chosen: tuple[Setting, ...]
    """What tuning chose for each channel."""
    residuals: tuple[Residuals, ...]
    """Of each channel; none where the forecast is not a point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Past:
    """The series as the baselines read it."""

    values: np.ndarray  # (T, C) float64
    starts: np.ndarray  # (S,) first step of each segment
    horizon: int
    levels: tuple[float, ...]

    def first(self, origins: np.ndarray) -> np.ndarray:
        """First step of the segment that holds the step before each origin."""
        return np.asarray(self.starts[np.searchsorted(self.starts, origins - 1, side="right") - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """A baseline and the settings to choose from; `points` forecasts (G, n, H) for one channel."""

    name: str
    grid: list[Setting]
    points: Callable[[np.ndarray, int, list[Setting]], np.ndarray]


def run_baselines(
    series: Series,
    *,
    context: int,
    horizon: int,
    levels: tuple[float, ...],
    validation: np.ndarray,
    test: np.ndarray,
    only: Collection[str] | None = None,
) -> list[BaselineForecast]:
    """Tune every baseline on validation and forecast both parts.

    Args:
        series: what is forecast.
        context: steps of history that every origin has in its segment; baselines may look further back.
        horizon: steps ahead, H.
        levels: (Q,) quantile levels, ascending.
        validation: (n,) int64 origins i, each forecasting steps i..i+H-1; settings are tuned here.
        test: (m,) int64 origins, perhaps none; nothing is tuned here.
        only: names of the baselines wanted; if None, all but `auto_arima` and `auto_ets`, which are slow.

    Returns:
        One forecast per baseline. `left_out` says which ones do not apply and why.

    Raises:
        ConfigError: there are no origins, or an origin lacks context or horizon in its segment.
    """
    past = _past(series, context=context, horizon=horizon, levels=levels, origins=(validation, test))
    wanted = NAMES if only is None else only
    forecasts = [
        _point_baseline(family, past, series.channels, validation, test)
        for family in _families(series, past)
        if family.name in wanted
    ]
    if "seasonal_naive" in wanted and _season_problem(series, past, (validation, test)) is None:
        day = round(DAY_S / float(series.bin_s or DAY_S))
        season = _Family(
            name="seasonal_naive",
            grid=[{"steps": day}],
            points=lambda origins, c, grid: _seasonal(past, origins, c, grid),
        )
        forecasts.append(_point_baseline(season, past, series.channels, validation, test))
    if "recent_quantiles" in wanted and series.kind == "requests":
        forecasts.append(_recent_quantiles(past, series.channels, validation, test))
    for name in statistical.NAMES:
        if name in wanted and statistical.problem(past.starts, validation[0]) is None:
            family = _statistical(name, past, validation)
            forecasts.append(_point_baseline(family, past, series.channels, validation, test))
    return forecasts


def left_out(
    series: Series, *, validation: np.ndarray, test: np.ndarray, only: Collection[str] | None = None
) -> dict[str, str]:
    """Baselines that `run_baselines` leaves out for these origins: name -> reason, for the report."""
    past = _Past(values=series.values, starts=_starts(series.segment), horizon=1, levels=())
    slow = statistical.problem(past.starts, validation[0])
    if only is None:
        slow = "slow, so it runs only when asked for by name" + (f"; {slow}" if slow else "")
    reasons = {
        "seasonal_naive": _season_problem(series, past, (validation, test)),
        "recent_quantiles": None
        if series.kind == "requests"
        else "quantiles of the last requests belong to a `requests` series",
        **dict.fromkeys(statistical.NAMES, slow),
    }
    return {name: why for name, why in reasons.items() if why is not None and (only is None or name in only)}


def _past(
    series: Series,
    *,
    context: int,
    horizon: int,
    levels: tuple[float, ...],
    origins: tuple[np.ndarray, np.ndarray],
) -> _Past:
    for name, part in zip(("validation", "test"), origins, strict=True):
        if len(part) == 0 and name == "validation":
            raise ConfigError(f"baselines: expected {name} origins, got none; use a longer trace or a shorter horizon")
        first, last = part - max(context, 1), part + horizon - 1
        inside = (first >= 0) & (last < len(series.segment))
        bad = np.flatnonzero(~inside | (series.segment[first * inside] != series.segment[last * inside]))
        if len(bad):
            raise ConfigError(
                f"baselines: expected {context} steps before and {horizon} from every {name} origin in its "
                f"segment, got origin {int(part[bad[0]])}; leave such origins out"
            )
    return _Past(
        values=series.values.astype(np.float64),
        starts=_starts(series.segment),
        horizon=horizon,
        levels=levels,
    )


def _starts(segment: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.flatnonzero(np.diff(segment)) + 1])


def _families(series: Series, past: _Past) -> list[_Family]:
    return [
        _Family(name="last_value", grid=[{"steps": 1}], points=lambda o, c, grid: _means(past, o, c, grid)),
        _Family(
            name="mean_of_last",
            grid=[{"steps": k} for k in MEAN_STEPS],
            points=lambda o, c, grid: _means(past, o, c, grid),
        ),
        _Family(
            name="exponential_smoothing",
            grid=[{"alpha": a} for a in SIMPLE_ALPHA],
            points=lambda o, c, grid: _smoothed(past, o, c, grid),
        ),
        _Family(
            name="damped_holt",
            grid=[{"alpha": a, "beta": b, "phi": p} for a in HOLT_ALPHA for b in HOLT_BETA for p in HOLT_PHI],
            points=lambda o, c, grid: _smoothed(past, o, c, grid),
        ),
        _kalman(past, log1p=False),
        _kalman(past, log1p=True),
    ]


def _point_baseline(
    family: _Family, past: _Past, channels: Sequence[str], validation: np.ndarray, test: np.ndarray
) -> BaselineForecast:
    """Choose the settings of each channel, then turn its points into quantiles."""
    settings: dict[str, float | int | str] = {}
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    chosen, fitted = [], []
    tune = thin(validation, TUNING_ORIGINS)
    for c, channel in enumerate(channels):
        best = family.grid[0]
        if len(family.grid) > 1:
            target = _targets(past, tune, c)
            losses = [
                Residuals.fit(point, target, levels=past.levels).loss for point in family.points(tune, c, family.grid)
            ]
            best = family.grid[int(np.argmin(losses))]
            settings |= {f"{key}[{channel}]": value for key, value in best.items()}
        point = family.points(validation, c, [best])[0]
        residuals = Residuals.fit(point, _targets(past, validation, c), levels=past.levels)
        settings[f"residuals[{channel}]"] = residuals.kind
        chosen.append(best)
        fitted.append(residuals)
        parts[0].append(residuals.quantiles(point))
        later = family.points(test, c, [best])[0] if len(test) else np.empty((0, past.horizon))
        parts[1].append(residuals.quantiles(later))
    return BaselineForecast(
        name=family.name,
        settings=settings,
        validation=np.stack(parts[0], axis=2),
        test=np.stack(parts[1], axis=2),
        chosen=tuple(chosen),
        residuals=tuple(fitted),
    )


def _targets(past: _Past, origins: np.ndarray, channel: int) -> np.ndarray:
    """(n, H) of what happened."""
    return np.asarray(past.values[origins[:, None] + np.arange(past.horizon), channel])


def _means(past: _Past, origins: np.ndarray, channel: int, grid: list[Setting]) -> np.ndarray:
    """Mean of the last `steps` values, of fewer where the segment has fewer: (G, n, H)."""
    first = past.first(origins)
    total = np.concatenate([[0.0], np.cumsum(past.values[:, channel])])
    result = np.empty((len(grid), len(origins), past.horizon))
    for g, setting in enumerate(grid):
        begin = np.maximum(first, origins - int(setting["steps"]))
        if setting["steps"] == 1:
            mean = past.values[origins - 1, channel]
        else:
            mean = np.maximum((total[origins] - total[begin]) / (origins - begin), 0.0)
        result[g] = mean[:, None]
    return result


def _seasonal(past: _Past, origins: np.ndarray, channel: int, grid: list[Setting]) -> np.ndarray:
    """The value one season earlier (two where the horizon is longer than a season): (1, n, H).

    Where the segment has less than a season, the mean of what it has.
    """
    day = int(grid[0]["steps"])
    step = np.arange(past.horizon)
    earlier = np.maximum(origins[:, None] + step - day * (step // day + 1), 0)  # below 0 only where the mean stands in
    young = origins - past.first(origins) < day
    mean = _means(past, origins, channel, grid)[0]
    return np.asarray(np.where(young[:, None], mean, past.values[earlier, channel]))[None]


def _season_problem(series: Series, past: _Past, origins: tuple[np.ndarray, np.ndarray]) -> str | None:
    """Why there is no seasonal naive forecast, or None when there is one."""
    if series.kind != "load" or not series.bin_s:
        return "a season of one day needs a `load` series"
    day = DAY_S / series.bin_s
    if day < 1 or day != round(day):
        return f"a day is no whole number of bins of {series.bin_s:g} s"
    for name, part in zip(("validation", "test"), origins, strict=True):
        share = float((part - past.first(part) >= day).mean()) if len(part) else 1.0
        if share < 0.5:
            return f"{share:.0%} of the {name} origins have a day of history in their segment, less than half"
    return None


def _smoothed(past: _Past, origins: np.ndarray, channel: int, grid: list[Setting]) -> np.ndarray:
    """Exponential smoothing, simple or with Holt's damped trend: (G, n, H).

    The state after W values is linear in them, so all settings of a grid are one matrix product per chunk
    of windows. A window shorter than W is filled with its first value, which is exactly a start at that
    level without trend.
    """
    first = past.first(origins)
    history = min(smoothing.HISTORY, int((origins - first).max()))
    weights = smoothing.state_weights(grid, history)  # (W, 2G)
    states = np.empty((len(origins), weights.shape[1]))
    lags = np.arange(-history, 0)
    for begin in range(0, len(origins), CHUNK):
        part = slice(begin, begin + CHUNK)
        steps = np.maximum(origins[part, None] + lags, first[part, None])
        states[part] = past.values[steps, channel] @ weights
    level, trend = states[:, : len(grid)].T, states[:, len(grid) :].T
    damped = smoothing.damping(grid, past.horizon)
    return np.maximum(level[:, :, None] + trend[:, :, None] * damped[:, None, :], 0.0)


def _kalman(past: _Past, *, log1p: bool) -> _Family:
    def points(origins: np.ndarray, channel: int, _grid: list[Setting]) -> np.ndarray:
        if channel not in states:
            states[channel] = kalman.filter_states(past.values[:, channel], past.starts, log1p=log1p)
        level, trend = states[channel]
        return kalman.extrapolate(level[origins - 1], trend[origins - 1], past.horizon, log1p=log1p)[None]

    states: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    return _Family(name="kalman_log1p" if log1p else "kalman", grid=[{}], points=points)


def _statistical(name: str, past: _Past, validation: np.ndarray) -> _Family:
    def points(origins: np.ndarray, channel: int, _grid: list[Setting]) -> np.ndarray:
        values = past.values[:, channel]
        if channel not in models:
            models[channel] = statistical.fit(name, values[statistical.training_part(past.starts, validation[0])])
        first = past.first(origins)
        found = statistical.forecast(name, models[channel], values, first=first, origins=origins, horizon=past.horizon)
        return found[None]

    models: dict[int, Any] = {}
    return _Family(name=name, grid=[{}], points=points)


def _recent_quantiles(
    past: _Past, channels: Sequence[str], validation: np.ndarray, test: np.ndarray
) -> BaselineForecast:
    """Empirical quantiles of the last K steps, the same for every step of the horizon."""
    chosen: list[Setting] = []
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    tune = thin(validation, TUNING_ORIGINS)
    for c in range(len(channels)):
        target = _targets(past, tune, c)
        losses = [
            pinball(_last_quantiles(past, tune, c, steps)[:, None], target, past.levels).mean()
            for steps in QUANTILE_STEPS
        ]
        steps = QUANTILE_STEPS[int(np.argmin(losses))]
        chosen.append({"steps": steps})
        for part, origins in zip(parts, (validation, test), strict=True):
            part.append(_last_quantiles(past, origins, c, steps).astype(np.float32))
    stacked = [np.repeat(np.stack(part, axis=1)[:, None], past.horizon, axis=1) for part in parts]
    return BaselineForecast(
        name="recent_quantiles",
        settings={f"steps[{channel}]": setting["steps"] for channel, setting in zip(channels, chosen, strict=True)},
        validation=stacked[0],
        test=stacked[1],
        chosen=tuple(chosen),
        residuals=(),
    )


def _last_quantiles(past: _Past, origins: np.ndarray, channel: int, steps: int) -> np.ndarray:
    """Quantiles of the last `steps` values, of fewer where the segment has fewer: (n, Q) float64."""
    result = np.empty((len(origins), len(past.levels)))
    first = past.first(origins)
    full = np.flatnonzero(origins - first >= steps)
    for begin in range(0, len(full), CHUNK):
        rows = full[begin : begin + CHUNK]
        window = past.values[origins[rows, None] + np.arange(-steps, 0), channel]
        result[rows] = np.quantile(window, past.levels, axis=1).T
    for row in np.flatnonzero(origins - first < steps):
        result[row] = np.quantile(past.values[first[row] : origins[row], channel], past.levels)
    return result
