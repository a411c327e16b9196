"""What is staged is run as it will be served and compared with the trained model, before anything is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export import parity
from export.candidates import ONNX, candidates
from export.compare import Judge
from export.diverge import first_divergence
from export.edge_windows import edge_windows, in_batches
from export.errors import ExportError, ParityError
from export.lean import lean
from export.reference import make_reference
from export.step_gate import step_candidates
from export.working_scale import working_scale
from runtime import FcastError
from training.checkpoint import Checkpoint

BATCHES = (1, 2, 3, 17, 256)
"""What a scheduler sends, the smallest that is none, two that divide nothing, and `max_batch_size` of config.pbtxt."""
_SOME = 32
_FEW = 8
_WATCHED = 32


def prove(
    checkpoint: Checkpoint, staged: Path, inputs: dict[str, np.ndarray], *, within: parity.Tolerance
) -> list[parity.Check]:
    """Compare every exported form in a folder with the trained model, in every way in which a host may run it.

    Args:
        checkpoint: the trained model.
        staged: a folder with a manifest and model.onnx, and perhaps model.pt and model.batchN.onnx.
        inputs: real windows by input name; edge windows are added to them.
        within: the tolerance.

    Raises:
        ParityError: some forecast is out of tolerance.
        ExportError: the runtime refuses the folder.
    """
    channels = checkpoint.meta["channels"]
    names, edges = edge_windows(inputs, channels)
    windows = [np.concatenate((inputs[name], edges[name])) for name in inputs]
    horizon = checkpoint.meta["horizon"]
    judge = Judge(
        windows=windows,
        edges=names,
        reference=make_reference(checkpoint.model, windows),
        within=within,
        scale=working_scale(checkpoint.model, horizon=horizon, channel_scale=within.scale),
        channels=channels,
        levels=checkpoint.meta["levels"],
    )
    try:
        checks = [
            judge.check(candidate, batches)
            for candidate in [*candidates(staged, list(inputs)), *step_candidates(staged)]
            for batches in _plan(candidate, real=len(windows[0]) - len(names), edges=len(names))
        ]
    except FcastError as error:
        raise ExportError(f"runtime: {error}") from error
    try:
        parity.require_parity(checks)
    except ParityError as error:
        where = _first_divergence(checkpoint, staged, checks, inputs, windows)
        raise error if where is None else ParityError(f"{error}; {where}") from None
    return checks


def _first_divergence(
    checkpoint: Checkpoint,
    staged: Path,
    checks: list[parity.Check],
    inputs: dict[str, np.ndarray],
    windows: list[np.ndarray],
) -> str | None:
    """Where a graph leaves the form that was exported: on real windows, else with the worst one among them."""
    failed = [check for check in checks if not check.passed]
    worst = max(failed, key=lambda check: check.used if check.worst else 0.0).worst
    picked = np.resize(np.arange(len(inputs["context"])), min(max(check.batch for check in failed), _WATCHED))
    served, graph = lean(checkpoint.model), (staged / ONNX).read_bytes()
    for first in (0, 0 if worst is None else worst.window):
        picked[0] = first
        where = first_divergence(
            served, graph, {name: array[picked] for name, array in zip(inputs, windows, strict=True)}
        )
        if where is not None:
            return where
    return None


def _plan(candidate: parity.Candidate, *, real: int, edges: int) -> list[list[np.ndarray]]:
    """Batches of windows by size: all edge windows in each, real ones as many as the time allows.

    What serves is run over everything; where only the order of sums can differ, one large batch and some small ones do.
    """
    at_edge = real + np.arange(edges)

    def some(count: int, batch: int) -> list[np.ndarray]:
        picked = np.linspace(0, real - 1, min(count, real)).round().astype(np.int64)
        return in_batches(picked, at_edge, batch)

    if candidate.batch is not None:
        return [some(_SOME, candidate.batch)]
    if candidate.served:
        return [some({17: 128, 256: real}.get(batch, _SOME), batch) for batch in BATCHES]
    return [some({256: 256 - edges}.get(batch, _FEW), batch) for batch in (1, 3, 256)]
