"""The next requests after a trace: from the model, or from a named stand-in while there is too little history.

The same rules as in `runtime`: steps before a silence longer than `gap_s` do not count; a model is asked once its whole
context has been seen; until then the quantiles of the steps seen (8 or more), or of the training part, stand in.

Axes: S steps forecast, C channels, Q levels, L context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.baseline_model import BaselineModel
from training.quantile_model import QuantileModel
from training.series import build_series
from training.trace import Trace

MIN_STEPS = 8
"""Steps seen from which their own quantiles are worth more than the training part's; that of `runtime.fallback`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForecast:
    """Forecast of the next S requests.

    Attributes:
        quantiles: (S, C, Q) float32, raw units.
        median: (S, C) float32, those at the level nearest 0.5.
        time_s: (S,) float64, arrivals: the last one plus the medians of the inter-arrival times so far.
        source: "model", "fallback:empirical" or "fallback:prior".
        seen: steps of history that the forecast rests on.
    """

    quantiles: np.ndarray
    median: np.ndarray
    time_s: np.ndarray
    source: str
    seen: int


def forecast_requests(
    model: QuantileModel | BaselineModel, facts: Mapping[str, Any], trace: Trace, *, steps: int, device: torch.device
) -> RequestForecast:
    """Forecast the requests after the last one of a trace.

    Beyond the model's horizon the forecast goes on from its own medians: later quantiles are then too narrow.

    Args:
        model: of a `requests` series, in eval mode, on the device; it is not changed.
        facts: the checkpoint's.
        trace: the history, requests.
        steps: S, at least 1.
        device: the model's.
    """
    levels, context = facts["levels"], facts["context"]
    values = _last_steps(trace, context=context, gap_s=facts["gap_s"])
    if len(values) == context:
        quantiles, source = _roll_on(model, values, steps=steps, device=device), "model"
    else:
        empirical = len(values) >= MIN_STEPS
        one = np.quantile(values.astype(np.float64), levels, axis=0).T if empirical else np.array(facts["prior"])
        one = np.maximum.accumulate(one, axis=1).astype(np.float32)
        quantiles = np.tile(one, (steps, 1, 1))
        source = "fallback:empirical" if empirical else "fallback:prior"
    median = quantiles[..., _middle(levels)]
    return RequestForecast(
        quantiles=quantiles,
        median=median,
        time_s=arrivals(float(trace.time_s[-1]), median[:, 0]),
        source=source,
        seen=len(values),
    )


def arrivals(last_s: float, between_s: np.ndarray) -> np.ndarray:
    """Times after `last_s`, each at least the next number after the one before: (S,) float64."""
    times = last_s + np.cumsum(between_s.astype(np.float64))
    before = last_s
    for i, time_s in enumerate(times.tolist()):
        times[i] = before = max(time_s, float(np.nextafter(before, np.inf)))
    return times


def _last_steps(trace: Trace, *, context: int, gap_s: float) -> np.ndarray:
    """(n, C) float32, the last n <= L steps since the last gap."""
    tail = slice(max(0, len(trace) - context - 1), None)
    gaps = np.flatnonzero(np.diff(trace.time_s[tail]) > gap_s)
    begin = tail.start + (int(gaps[-1]) + 1 if len(gaps) else 0)
    if begin == len(trace) - 1:
        return np.empty((0, 3), np.float32)
    assert trace.request_tokens is not None
    assert trace.response_tokens is not None
    rows = replace(
        trace,
        time_s=trace.time_s[begin:],
        request_tokens=trace.request_tokens[begin:],
        response_tokens=trace.response_tokens[begin:],
    )
    return build_series(rows, kind="requests", gap_s=gap_s).values


@torch.inference_mode()
def _roll_on(
    model: QuantileModel | BaselineModel, values: np.ndarray, *, steps: int, device: torch.device
) -> np.ndarray:
    context = torch.from_numpy(values)[None].to(device)
    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < steps:
        parts.append(model(context)[0])
        context = torch.cat((context, parts[-1][None, ..., model.median]), dim=1)[:, -context.shape[1] :]
    return np.asarray(torch.cat(parts)[:steps].cpu().numpy())


def _middle(levels: list[float]) -> int:
    return min(range(len(levels)), key=lambda q: abs(levels[q] - 0.5))
