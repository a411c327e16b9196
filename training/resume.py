"""How far a training run has come: saved after every epoch, restored by `--resume`, to the bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from training.checkpoint import SCHEMA, read_tensors, set_weights, write_atomically
from training.config import RunConfig
from training.errors import CheckpointError


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a training run has come; saved after every epoch.

    Attributes:
        epoch: whole epochs done.
        best_epoch: the epoch, from 1, of the best validation score; 0 before any.
        best_wql: that score.
        history: one dict per epoch, the lines of `metrics.jsonl`.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_wql: float = float("inf")
    history: list[dict[str, Any]]


def save_progress(
    path: Path,
    progress: Progress,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    fingerprint: str,
) -> None:
    """Save everything needed to go on after this epoch, as one file."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {
        "schema": SCHEMA,
        "config": config.to_dict(),
        "trace": fingerprint,
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_wql": progress.best_wql,
        "history": progress.history,
    }
    write_atomically(path, save_tensors(tensors, metadata={"progress": json.dumps(facts)}))


def load_progress(
    path: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    fingerprint: str,
) -> Progress:
    """Restore a run from `save_progress`.

    Raises:
        CheckpointError: the file is damaged, of another schema, or of a run with other settings or another trace.
    """
    data, tensors = read_tensors(path)
    length = int.from_bytes(data[:8], "little")
    try:
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["progress"])
        schema, saved, trace = facts["schema"], RunConfig.from_dict(facts["config"]), facts["trace"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: expected a saved run, got other tensors; start over with --overwrite"
        ) from error
    if schema != SCHEMA:
        raise CheckpointError(f"{path}: expected schema {SCHEMA}, got {schema}; start over with --overwrite")
    check_same_run(path, saved=saved, wanted=config, saved_trace=trace, trace=fingerprint)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            state.setdefault(int(index), {})[slot] = tensor
    set_weights(model, weights, where=str(path))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(
        epoch=facts["epoch"], best_epoch=facts["best_epoch"], best_wql=facts["best_wql"], history=facts["history"]
    )


def check_same_run(path: Path, *, saved: RunConfig, wanted: RunConfig, saved_trace: str, trace: str) -> None:
    """Check that a saved run has the settings and the trace asked for; the device may differ.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    if saved_trace != trace:
        raise CheckpointError(
            f"{path}: expected a run on this trace ({trace[:12]}), got one on another ({saved_trace[:12]}); "
            "give the same files and --clean, or start over with --overwrite"
        )
    ours, theirs = wanted.to_dict(), saved.to_dict()
    for part in ours:
        for key, value in ours[part].items():
            if key != "device" and value != theirs[part][key]:
                raise CheckpointError(
                    f"{path}: expected {key} = {value}, got {theirs[part][key]} in the saved run; "
                    "repeat its settings, or start over with --overwrite"
                )
