"""AutoARIMA and AutoETS of statsforecast (Garza et al. 2022), the textbook's answer, for the comparison alone.

Orders and parameters are chosen once, on the end of the training part; from each origin the fitted model then runs over
the recent history (`forward`), so nothing is refitted. Without a season: a day of minutes is far beyond what either can
take. A forecast from a capped history takes one or two milliseconds. They are not exported; statsforecast is an
optional extra.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
import warnings
from typing import Any

import numpy as np

_CLASSES = {"auto_arima": "AutoARIMA", "auto_ets": "AutoETS"}
NAMES = tuple(_CLASSES)
FIT_STEPS = 2000
"""Steps of training that are fitted."""
HISTORY = 500
"""Steps before an origin that the fitted model runs over."""
_LEAST_FIT, _LEAST_HISTORY = 50, 10
_SAY_S = 10.0
_log = logging.getLogger(__name__)


def installed() -> bool:
    """Whether the optional extra is there."""
    return importlib.util.find_spec("statsforecast") is not None


def training_part(starts: np.ndarray, end: int) -> slice:
    """The steps to fit on: the longest piece of a segment before step `end`.

    Args:
        starts: (S,) first step of each segment, ascending, 0 among them.
        end: the first validation origin.
    """
    edges = [*starts[starts < end].tolist(), end]
    longest = int(np.argmax(np.diff(edges)))
    return slice(edges[longest], edges[longest + 1])


def problem(starts: np.ndarray, end: int) -> str | None:
    """Why neither can be fitted, or None when both can; see `training_part`."""
    if not installed():
        return "needs statsforecast, which is not installed: pip install 'fcast[arima]'"
    part = training_part(starts, end)
    if part.stop - part.start < _LEAST_FIT:
        return f"the training part has {part.stop - part.start} steps in one piece, fewer than {_LEAST_FIT}"
    return None


def fit(name: str, training: np.ndarray) -> Any:
    """Choose the order of a model and fit it.

    Args:
        name: `auto_arima` or `auto_ets`.
        training: (T,) one channel of the training part, raw units; the last `FIT_STEPS` are used.
    """
    started = time.perf_counter()
    with warnings.catch_warnings():  # of the search over orders, most of which do not fit
        warnings.simplefilter("ignore")
        model = getattr(importlib.import_module("statsforecast.models"), _CLASSES[name])(season_length=1)
        model.fit(training[-FIT_STEPS:].astype(np.float64))
    _log.info("%s: fitted on %d steps in %.1f s", name, len(training[-FIT_STEPS:]), time.perf_counter() - started)
    return model


def forecast(
    name: str, model: Any, values: np.ndarray, *, first: np.ndarray, origins: np.ndarray, horizon: int
) -> np.ndarray:
    """Point forecasts of a fitted model; the last value while a segment has fewer than ten steps.

    Args:
        name: for the log, which tells every ten seconds how far it has come.
        model: from `fit`.
        values: (T,) one channel, raw units.
        first: (n,) first step of each origin's segment.
        origins: (n,) int64.
        horizon: H.

    Returns:
        (n, H) float64, raw units, at least 0.
    """
    points = np.empty((len(origins), horizon))
    said = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, (begin, origin) in enumerate(zip(first.tolist(), origins.tolist(), strict=True)):
            history = values[max(begin, origin - HISTORY) : origin]
            points[row] = history[-1]
            if len(history) >= _LEAST_HISTORY:
                ahead = model.forward(history, h=horizon)["mean"]
                points[row] = np.where(np.isfinite(ahead), ahead, history[-1])
            if time.perf_counter() - said > _SAY_S:
                said = time.perf_counter()
                _log.info("%s: %d of %d origins", name, row + 1, len(origins))
    return np.maximum(points, 0.0)
