"""The step graph of a stateful model as an ONNX file: its names, its dynamic axes, and what the manifest says of it.

Axes: B batch, T steps, C channels, n numbers of a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from export.exporters import BATCH, LEGACY, OPSETS
from export.lean_step import LeanStep
from export.to_onnx import to_onnx
from training.stateful import StatefulForecaster

NEXT = "next_"
_STEPS = "steps"
_SOME = 3


def step_facts(model: StatefulForecaster) -> dict[str, Any]:
    """The manifest's key `step`: of each state its numbers."""
    return {"state": LeanStep(model).state}


def step_to_onnx(model: StatefulForecaster, *, opset: int, metadata: Mapping[str, str]) -> bytes:
    """Export the step graph.

    Args:
        model: the trained model.
        opset: as asked for; the exporter is legacy, since dynamo fixes the number of steps, and so is its newest opset.
        metadata: as `to_onnx`.

    Returns:
        A graph from `context` (B, T, C) float32, with a calendar `time_s` (B, T) float64, and each state (1, B, n) to
        `forecast`[, `demand`] and each state after it, `next_<state>`; B and T are dynamic.
    """
    step = LeanStep(model).eval()
    rows = torch.rand(2, _SOME, model.channels, generator=torch.Generator().manual_seed(0))
    example = {"context": rows}
    axes = {"context": {0: BATCH, 1: _STEPS}}
    if model.takes_time:
        example["time_s"] = torch.arange(2.0 * _SOME, dtype=torch.float64).view(2, _SOME)
        axes["time_s"] = {0: BATCH, 1: _STEPS}
    for name, size in step.state.items():
        example[name] = torch.ones(1, 2, size)
        axes[name] = axes[f"{NEXT}{name}"] = {1: BATCH}
    outputs = ["forecast", *(["demand"] if model.forecasts_demand else []), *(f"{NEXT}{name}" for name in step.state)]
    return to_onnx(
        step,
        example,
        opset=min(opset, OPSETS[LEGACY][1]),
        exporter=LEGACY,
        metadata=metadata,
        outputs=outputs,
        axes=axes,
    )
