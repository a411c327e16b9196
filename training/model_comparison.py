"""Which model forecasts a history best: rolling forecasts over it, every model from the same origins.

The measure is wQL, mean over the channels (docs/forecasting.md). A model that predicts single numbers is scored as a
distribution that puts everything there; its wQL is then its weighted absolute error. Beside the models stands the
simplest forecast that is hard to beat on single requests: the quantiles of the last ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from training.config import LEVELS
from training.metrics import wape, wql
from training.model_interface import BasePredictor
from training.model_results import PredictionResult
from training.request_frame import frame_to_trace
from training.trace import GAP_S

if TYPE_CHECKING:
    import pandas as pd

ORIGINS = 50
"""Forecasts per model."""
_REFERENCE, _REFERENCE_STEPS = "recent_quantiles", 500
_CHANNELS = ("inter_arrival_s", "request_tokens", "response_tokens")

_log = logging.getLogger(__name__)


def compare(models: Mapping[str, BasePredictor], history: pd.DataFrame, *, steps: int, first: int) -> dict[str, Any]:
    """Score models by rolling forecasts.

    Args:
        models: by name; `predict` of each is called with growing parts of the history.
        history: a table of requests.
        steps: requests ahead.
        first: fewest rows that a forecast sees.

    Returns:
        By name: `wql`, `wape`, `channels`, `confidence`, `prediction_time` (mean, seconds) and `rank`, or `error` where
        a model failed. And `performance_summary`: `best_model`, `ranking`, `avg_confidence`, `metric`, `steps`,
        `origins`, `reference` and its wQL.

    Raises:
        TraceError: the table is not one of requests.
    """
    trace = frame_to_trace(history)
    between = np.diff(trace.time_s, prepend=trace.time_s[0])
    assert trace.request_tokens is not None
    assert trace.response_tokens is not None
    rows = np.stack((between, trace.request_tokens, trace.response_tokens), axis=1).astype(np.float64)
    longest = max(model.config.sequence_length for model in models.values())
    origins = _origins(between, steps=steps, sequence=longest, first=first)
    target = rows[origins[:, None] + np.arange(steps)]
    found: dict[str, Any] = {
        name: _score(name, model, history, trace.time_s, origins, target) for name, model in models.items()
    }
    # A model that failed comes after every one that did not.
    ranking = sorted(found, key=lambda name: (found[name].get("wql", np.inf), name))
    for place, name in enumerate(ranking, start=1):
        found[name]["rank"] = place
    confidences = [row["confidence"] for row in found.values() if "wql" in row]
    found["performance_summary"] = {
        "best_model": ranking[0] if confidences else None,
        "ranking": ranking,
        "avg_confidence": float(np.mean(confidences)) if confidences else 0.0,
        "metric": "wql",
        "steps": steps,
        "origins": len(origins),
        "reference": _REFERENCE,
        "reference_wql": float(wql(_recent(rows, origins, steps), target, LEVELS).mean()),
    }
    return found


def _origins(between: np.ndarray, *, steps: int, sequence: int, first: int) -> np.ndarray:
    """Up to `ORIGINS` rows, evenly spaced, whose next rows follow without a gap; every model has its context."""
    last = len(between) - steps
    start = sequence + 1 if sequence + 1 <= last else first
    candidates = np.arange(min(start, last), last + 1)
    clear = np.array([not (between[i : i + steps] > GAP_S).any() for i in candidates])
    candidates = candidates[clear] if clear.any() else candidates
    return candidates[np.unique(np.linspace(0, len(candidates) - 1, min(ORIGINS, len(candidates))).astype(np.int64))]


def _score(
    name: str,
    model: BasePredictor,
    history: pd.DataFrame,
    time_s: np.ndarray,
    origins: np.ndarray,
    target: np.ndarray,
) -> dict[str, Any]:
    steps, forecasts, confidences, seconds = target.shape[1], [], [], []
    try:
        for origin in origins.tolist():
            started = time.perf_counter()
            result = checked_prediction(model, history.iloc[:origin], steps)
            seconds.append(time.perf_counter() - started)
            forecasts.append(_quantiles(result, float(time_s[origin - 1]), steps))
            confidences.append(float(np.mean(result.confidence[:steps])))
        forecast = np.stack(forecasts)
        by_channel = wql(forecast, target, LEVELS)
    except Exception as error:  # a user's class may fail in any way; the others are compared all the same
        _log.exception("%s: no forecast to compare", name)
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "wql": float(by_channel.mean()),
        "wape": float(wape(forecast, target, LEVELS).mean()),
        "channels": dict(zip(_CHANNELS, by_channel.tolist(), strict=True)),
        "confidence": float(np.mean(confidences)),
        "prediction_time": float(np.mean(seconds)),
    }


def checked_prediction(model: BasePredictor, history: pd.DataFrame, steps: int) -> PredictionResult:
    """A model's prediction of so many requests: lists of finite numbers, with a confidence between 0 and 1 for each.

    A custom model may give arrays, and one number of confidence for all steps.

    Raises:
        ValueError: the model gave something else.
    """
    last_s = float(frame_to_trace(history).time_s[-1])
    result = model.predict(history.copy(), steps)  # a custom model may mend its rows in place
    where = f"{type(model).__name__}.predict"
    if not isinstance(result, PredictionResult):
        raise ValueError(f"{where}: expected a PredictionResult, got {type(result).__name__}; return one")
    lists = {}
    for part in ("timestamps", "request_tokens", "response_tokens"):
        values = np.atleast_1d(np.asarray(getattr(result, part), np.float64))
        if len(values) < steps or not np.isfinite(values).all():
            raise ValueError(
                f"{where}: expected {steps} finite {part}, got {values.tolist()}; return one for each step"
            )
        if (values < (last_s if part == "timestamps" else 0.0)).any():
            least = (
                f"{part} from {last_s!r} on, the last request's time"
                if part == "timestamps"
                else f"{part} of 0 or more"
            )
            raise ValueError(f"{where}: expected {least}, got {values.min()}; correct it")
        lists[part] = values.tolist()
    confidence = np.atleast_1d(np.asarray(result.confidence, np.float64))
    if not len(confidence) or not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(
            f"{where}: expected confidence between 0 and 1, got {result.confidence}; return a measured one"
        )
    steps_of = np.minimum(np.arange(len(lists["timestamps"])), len(confidence) - 1)
    return replace(result, **lists, confidence=confidence[steps_of].tolist(), metadata=result.metadata or {})


def _quantiles(result: PredictionResult, last_s: float, steps: int) -> np.ndarray:
    """(S, C, Q) at `LEVELS`: the model's quantiles where it gives these, otherwise its points at every level."""
    if tuple(result.metadata.get("levels", ())) == LEVELS and "quantiles" in result.metadata:
        return np.asarray(result.metadata["quantiles"], np.float64)[:steps]
    between = np.diff(result.timestamps[:steps], prepend=last_s)
    points = np.stack((between, result.request_tokens[:steps], result.response_tokens[:steps]), axis=1)
    return np.repeat(points[..., None], len(LEVELS), axis=2)


def _recent(rows: np.ndarray, origins: np.ndarray, steps: int) -> np.ndarray:
    """(n, S, C, Q) quantiles of the last requests before each origin."""
    one = [np.quantile(rows[max(1, i - _REFERENCE_STEPS) : i], LEVELS, axis=0).T for i in origins.tolist()]
    return np.repeat(np.stack(one)[:, None], steps, axis=1)
