"""The step graph run as streams run it, beside the trained model: from a cold state over exactly the context.

Whatever the split of a window into steps, the forecast after its last one must be the window's. What the state is worth
when it is carried past the context is measured by training, on the trace; here it is only passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.candidates import SEVERAL
from export.parity import Candidate
from export.reference import Outputs
from runtime.artifact import open_artifact
from runtime.stats import Stats
from runtime.step import StepSession, open_step
from runtime.verify_step import splits, window_by_steps
from training.checkpoint import Checkpoint


def step_candidates(staged: Path) -> Iterator[Candidate]:
    """The ways to take in a window, of a folder with a step graph; none of one without.

    Raises:
        FcastError: the runtime refuses the folder.
    """
    artifact = open_artifact(staged)
    if not artifact.manifest.state:
        return
    for threads in (1, SEVERAL):
        step = open_step(artifact, threads=threads, stats=Stats())
        for split in splits(artifact.manifest.context)[: 3 if threads == 1 else 1]:
            yield Candidate(
                format="step",
                provider=f"CPUExecutionProvider, {len(split)} pieces",
                forecast=_by_steps(step, split),
                threads=threads,
                served=threads == len(split) == 1,
            )


def _by_steps(step: StepSession, split: Sequence[int]) -> Any:
    def forecast(context: np.ndarray, *time_s: np.ndarray) -> Outputs:
        return window_by_steps(step, context, time_s[0] if time_s else None, split)

    return forecast


def carried_skill(checkpoint: Checkpoint) -> dict[str, Any]:
    """What parity.json says under `carried`: wQL by windows and with the state carried, as training measured it."""
    return {part: dict(found) for part, found in checkpoint.meta["carried"].items()}
