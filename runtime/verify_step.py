"""A window taken in by the step graph in pieces, from a cold state: its last forecast is that of the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .step import StepSession

if TYPE_CHECKING:
    from numpy.typing import NDArray


_SINGLE = 64


def splits(context: int) -> list[tuple[int, ...]]:
    """The ways to cut a window of L steps that are tried: whole, all but one and then one, and step by step.

    Of a long window the last 64 steps come one by one.
    """
    single = min(context, _SINGLE)
    ways = [(context,), (context - 1, 1), (context - single,) + (1,) * single]
    return list(dict.fromkeys(tuple(steps for steps in way if steps) for way in ways))


def golden_by_steps(
    step: StepSession, context: NDArray[np.float32], time_s: NDArray[np.float64] | None, batch: int
) -> dict[str, NDArray[np.float32]]:
    """The outputs for many windows: batches at once, or single ones all but one step and then that one."""
    split = (context.shape[1],) if batch > 1 or context.shape[1] == 1 else (context.shape[1] - 1, 1)
    parts = []
    for at in range(0, len(context), batch):
        times = None if time_s is None else time_s[at : at + batch]
        parts.append(window_by_steps(step, context[at : at + batch], times, split))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def window_by_steps(
    step: StepSession, context: NDArray[np.float32], time_s: NDArray[np.float64] | None, split: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """The outputs after the last of some steps.

    Args:
        step: the graph.
        context: (B, L, C) windows.
        time_s: (B,) time of the last step, where the graph takes times.
        split: steps in each piece, L together. A single window goes through bound buffers where a piece is one step,
            as a stream's does.
    """
    state = np.zeros((len(context), step.size), dtype=np.float32)
    times = None if time_s is None else step.times(time_s, context.shape[1])
    outputs: dict[str, NDArray[np.float32]] = {}
    at = 0
    for steps in split:
        rows = np.ascontiguousarray(context[:, at : at + steps])
        at += steps
        last = None if times is None else times[:, at - 1]
        if steps == len(context) == 1:
            outputs, after, _ = step.run_one(rows[0], None if last is None else float(last[0]), state[0])
            outputs, state = {name: output[None] for name, output in outputs.items()}, after[None]
        else:
            outputs, state = step.run(rows, last, state)
    return outputs
