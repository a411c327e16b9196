"""How good the forecast of the demand until a replica is ready is: forecast directly, or composed of single steps.

A planner that must carry the whole lead time asks for the sum of the steps and for the largest of them. Quantiles of a
sum do not follow from the quantiles of its parts: adding them (or taking their largest) is right only when all steps
miss together. Models of a load series forecast both directly; baselines can only compose.

Letters: n origins, H steps, C channels, Q levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.metrics import coverage, wql


def demand_score(
    direct: np.ndarray | None,
    forecast: np.ndarray,
    target: np.ndarray,
    *,
    step: int,
    levels: Sequence[float],
    channels: Sequence[str],
) -> dict[str, Any]:
    """Judge sums and peaks over the first steps up to and with `step`.

    Args:
        direct: (n, H, 2C, Q) quantiles of the sums of each channel, then of its peaks; None for a baseline.
        forecast: (n, H, C, Q) quantiles of the single steps.
        target: (n, H, C) what came.
        step: the last step that counts, from 0.
        levels: (Q,).
        channels: C names.

    Returns:
        `{"sum": {channel: {"direct": x, "composed": x}}, "peak": ...}`, where x is `wql` and `coverage` [Q], or None.
    """
    first, count = slice(0, step + 1), len(channels)
    came = {"sum": target[:, first].sum(axis=1, dtype=np.float64), "peak": target[:, first].max(axis=1)}
    composed = {"sum": forecast[:, first].sum(axis=1, dtype=np.float64), "peak": forecast[:, first].max(axis=1)}
    own = {} if direct is None else {"sum": direct[:, step, :count], "peak": direct[:, step, count:]}
    return {
        quantity: {
            name: {
                "direct": _judge(own[quantity][:, c], came[quantity][:, c], levels) if own else None,
                "composed": _judge(composed[quantity][:, c], came[quantity][:, c], levels),
            }
            for c, name in enumerate(channels)
        }
        for quantity in ("sum", "peak")
    }


def _judge(quantiles: np.ndarray, came: np.ndarray, levels: Sequence[float]) -> dict[str, Any]:
    forecast, target = quantiles[:, None, None], came[:, None, None]
    return {
        "wql": float(wql(forecast, target, levels)[0]),
        "coverage": coverage(forecast, target, levels)[0].tolist(),
    }
