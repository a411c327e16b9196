"""How the forecasts of all streams turned out of late, and whether the traffic has left the model behind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .fields import is_number
from .inputs import MAX_VALUE
from .judge import WINDOW, Score, width
from .manifest import Manifest
from .rivals import NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTOR = 2.0
"""Of the wQL on validation: from there on it is drift."""
_SLACK, _ERRORS = 0.05, 4.0
"""What coverage may be off by, always, and in standard errors of as many draws as there are judged forecasts."""


def told(streams: Iterable[tuple[NDArray[np.float64], bool]], manifest: Manifest) -> dict[str, Any]:
    """The key `judged` of `Predictor.stats`.

    Args:
        streams: of each, `Judge.rows` and whether a rival speaks in it; taken one by one, as there may be thousands.
        manifest: of the model that they are of.
    """
    total, count, judged, opened = np.zeros(width(manifest)), 0, 0, 0
    for rows, open_ in streams:
        total += rows.sum(axis=0)
        count += len(rows)
        judged += len(rows) > 0
        opened += open_
    usual = _validation_wql(manifest)
    found: dict[str, Any] = {
        "forecasts": count,
        "streams": judged,
        "open": opened,
        "wql": {},
        "validation_wql": usual,
        "coverage": {},
        "drift": False,
        "drift_reasons": [],
    }
    if count == 0:
        return found
    score = Score(total[None] / count, manifest)  # of their mean: what it tells are means and a ratio
    covered = dict(zip(manifest.levels, (1.0 - score.missed).tolist(), strict=True))
    wql = dict(zip(("model", *NAMES), score.wql.tolist(), strict=True))
    reasons = _reasons(wql["model"], usual, covered, _validation_coverage(manifest), count)
    return found | {"wql": wql, "coverage": covered, "drift": bool(reasons), "drift_reasons": reasons}


def _reasons(
    wql: float, usual: float | None, covered: dict[float, float], before: Iterable[float], count: int
) -> list[str]:
    if count < WINDOW:
        return []
    reasons = ["wql"] if usual and wql > FACTOR * usual else []
    for (level, share), once in zip(covered.items(), before, strict=True):
        slack = _SLACK + _ERRORS * math.sqrt(level * (1.0 - level) / count)
        if not min(level, once) - slack <= share <= max(level, once) + slack:
            reasons.append(f"coverage of {level:g}")
    return reasons


def _validation_wql(manifest: Manifest) -> float | None:
    found: Any = manifest.raw["scores"]
    for key in ("validation", "wql", "mean"):
        try:
            found = found[key]
        except (KeyError, TypeError, IndexError):  # artifacts whose scores are others, or none
            return None
    return float(found) if is_number(found) and 0 < found <= MAX_VALUE else None


def _validation_coverage(manifest: Manifest) -> Iterable[float]:
    """Of each level, the mean over channels: far from it where most steps are 0, as a quantile of 0 covers them all."""
    try:
        of_channels = list(manifest.raw["scores"]["validation"]["coverage"].values())
        found = np.array(of_channels, dtype=np.float64).reshape(-1, len(manifest.levels))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # as above
        return manifest.levels
    if len(found) == 0 or not np.isfinite(found).all():
        return manifest.levels
    coverage: list[float] = found.mean(axis=0).tolist()
    return coverage
