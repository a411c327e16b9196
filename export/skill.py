"""What a change of the graph costs in forecast quality: wQL on windows that the trained model has kept.

Axes: n windows, H steps, C channels, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.errors import ExportError
from training.checkpoint import Checkpoint
from training.metrics import wql


def windows_by_part(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Which of a checkpoint's windows are of validation, and which of test: (n,) bool each.

    Training keeps windows evenly spaced over both parts, validation first; so a place tells the part.
    """
    split = checkpoint.meta["split"]
    kept = len(checkpoint.windows["context"])
    places = np.linspace(0, split["validation"] + split["test"] - 1, kept).astype(np.int64)
    validation = places < split["validation"]
    return {"validation": validation, "test": ~validation}


def targets(checkpoint: Checkpoint) -> np.ndarray:
    """What came after each of a checkpoint's windows, (n, H, C).

    Raises:
        ExportError: the checkpoint does not have it.
    """
    if "target" not in checkpoint.windows:
        raise ExportError(
            "checkpoint: expected the targets of its windows, to measure the loss of quality on, got none; train again"
        )
    return checkpoint.windows["target"]


def mean_wql(outputs: Mapping[str, np.ndarray], target: np.ndarray, levels: Sequence[float]) -> dict[str, float]:
    """The mean over channels of the wQL of each output.

    Args:
        outputs: `forecast` (n, H, C, Q) and, where the model gives it, `demand` (n, H, 2C, Q): sums, then peaks.
        target: (n, H, C).
        levels: (Q,).
    """
    came = {"forecast": target}
    if "demand" in outputs:
        sums, peaks = target.cumsum(axis=1, dtype=np.float64), np.maximum.accumulate(target, axis=1)
        came["demand"] = np.concatenate((sums, peaks), axis=2)
    return {name: float(wql(output, came[name], levels).mean()) for name, output in outputs.items()}


def skill_loss(found: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """The largest relative rise of wQL of any output; negative when all got better."""
    return max(_rise(found[name], reference[name]) for name in reference)


def _rise(found: float, reference: float) -> float:
    if reference > 0:
        return found / reference - 1
    return 0.0 if found == reference else float("inf")


def losses(
    found: Sequence[Mapping[str, np.ndarray]],
    reference: Mapping[str, np.ndarray],
    target: np.ndarray,
    levels: Sequence[float],
) -> dict[str, Any]:
    """The loss of a graph that was run several times on the same windows; its worst run counts.

    Args:
        found: outputs of each run.
        reference: those of the graph that it stands in for.
        target: (n, H, C).
        levels: (Q,).

    Returns:
        `windows`, `wql` of the reference by output, and `loss`.
    """
    before = mean_wql(reference, target, levels)
    return {
        "windows": len(target),
        "wql_fp32": before,
        "loss": max(skill_loss(mean_wql(outputs, target, levels), before) for outputs in found),
    }
