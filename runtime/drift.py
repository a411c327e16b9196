"""How the forecasts of all streams turned out of late, and whether the traffic has left the model behind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .fields import is_number
from .judge import WINDOW, Score
from .manifest import Manifest
from .rivals import NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTOR = 2.0
"""Of the wQL on validation: from there on it is drift."""
_SLACK, _ERRORS = 0.05, 4.0
"""What coverage may be off by, always, and in standard errors of as many draws as there are judged forecasts."""


def told(rows: Iterable[NDArray[np.float64]], manifest: Manifest, *, opened: int) -> dict[str, Any]:
    """The key `judged` of `Predictor.stats`.

    Args:
        rows: of each stream, as `Judge.rows`.
        manifest: of the model that they are of.
        opened: streams in which a rival speaks.
    """
    kept = [found for found in rows if len(found)]
    score = Score(np.concatenate(kept), manifest) if kept else None
    usual = _validation_wql(manifest)
    found: dict[str, Any] = {
        "forecasts": 0 if score is None else score.count,
        "streams": len(kept),
        "open": opened,
        "wql": {},
        "validation_wql": usual,
        "coverage": {},
        "drift": False,
        "drift_reasons": [],
    }
    if score is None:
        return found
    covered = dict(zip(manifest.levels, (1.0 - score.missed).tolist(), strict=True))
    wql = dict(zip(("model", *NAMES), score.wql.tolist(), strict=True))
    reasons = _reasons(wql["model"], usual, covered, score.count)
    return found | {"wql": wql, "coverage": covered, "drift": bool(reasons), "drift_reasons": reasons}


def _reasons(wql: float, usual: float | None, covered: dict[float, float], count: int) -> list[str]:
    if count < WINDOW:
        return []
    reasons = ["wql"] if usual and wql > FACTOR * usual else []
    for level, share in covered.items():
        if abs(share - level) > _SLACK + _ERRORS * math.sqrt(level * (1.0 - level) / count):
            reasons.append(f"coverage of {level:g}")
    return reasons


def _validation_wql(manifest: Manifest) -> float | None:
    found: Any = manifest.raw["scores"]
    for key in ("validation", "wql", "mean"):
        try:
            found = found[key]
        except (KeyError, TypeError, IndexError):  # artifacts whose scores are others, or none
            return None
    return float(found) if is_number(found) and found > 0 else None
