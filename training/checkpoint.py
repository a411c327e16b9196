"""Checkpoints: weights as safetensors with JSON beside them, written atomically, read without executing anything.

A run folder holds
- `model.safetensors`, the best weights, and `checkpoint.json`, everything needed to use them, once training ended;
- `windows.safetensors`, real windows for the parity proof;
- `last.safetensors`, weights and optimizer after the last whole epoch, from which training resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from training.config import RunConfig
from training.errors import CheckpointError, ConfigError
from training.forecaster import Forecaster

SCHEMA = 1
WEIGHTS, META, WINDOWS, LAST = "model.safetensors", "checkpoint.json", "windows.safetensors", "last.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A trained forecaster with its facts.

    Attributes:
        model: the forecaster on the CPU, in eval mode.
        meta: content of `checkpoint.json`.
        windows: real windows: `context` (n, L, C) float32, `time_s` (n,) float64, `target` (n, H, C) float32.
        sha256: hash of the weights' file.
    """

    model: Forecaster
    meta: dict[str, Any]
    windows: dict[str, np.ndarray]
    sha256: str


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never leaves a half-written one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def build_forecaster(meta: dict[str, Any]) -> Forecaster:
    """The forecaster that a checkpoint's facts describe, with random weights."""
    model = meta["model"]
    return Forecaster(
        model=model["name"],
        params=model["params"],
        channels=len(meta["channels"]),
        context=meta["context"],
        horizon=meta["horizon"],
        levels=tuple(meta["levels"]),
        log=model["log"],
        center=model["center"],
        calendar=tuple(model["calendar"]),
    )


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Save weights and buffers."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, save_tensors(state))


def load_weights(path: Path, model: torch.nn.Module) -> str:
    """Load weights into a model of the same shape.

    Returns:
        sha256 of the file.

    Raises:
        CheckpointError: the file is missing, damaged or of another model.
    """
    data, tensors = _read_tensors(path)
    set_weights(model, tensors, where=str(path))
    return hashlib.sha256(data).hexdigest()


def set_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], *, where: str) -> None:
    """Give a model its weights and buffers.

    Raises:
        CheckpointError: they are of another model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{where}: expected the weights of this model, got {reason}; train again") from error


def _read_tensors(path: Path) -> tuple[bytes, dict[str, torch.Tensor]]:
    try:
        data = path.read_bytes()
        return data, load_tensors(data)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file of tensors, got {error.strerror}; train again") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: expected safetensors, got a damaged file ({error}); train again") from error


def save_checkpoint(folder: Path, meta: dict[str, Any], windows: dict[str, np.ndarray]) -> None:
    """Write the facts and windows beside the weights that are already there."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in windows.items()}
    write_atomically(folder / WINDOWS, save_tensors(tensors))
    meta = {
        "schema": SCHEMA,
        **meta,
        "sha256": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (WEIGHTS, WINDOWS)},
    }
    write_atomically(folder / META, (json.dumps(meta, indent=1, allow_nan=False) + "\n").encode())


def read_meta(folder: Path) -> dict[str, Any]:
    """Read `checkpoint.json`.

    Raises:
        CheckpointError: there is no finished checkpoint, or it is of another schema.
    """
    path = folder / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        schema = meta["schema"]
    except OSError as error:
        if (folder / LAST).exists():
            raise CheckpointError(
                f"{folder}: expected a finished run, got an interrupted one; finish it with fcast-train ... --resume"
            ) from error
        raise CheckpointError(
            f"{folder}: expected a run folder of fcast-train, got {error.strerror}; correct the path"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint's JSON, got a damaged file; train again") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {schema}; "
            "use the fcast version that wrote it, or train again"
        )
    return dict(meta)


def checked_facts(meta: dict[str, Any], *, where: str) -> tuple[Forecaster, dict[str, str]]:
    """The forecaster of a checkpoint's facts, with random weights, and the hashes its tensors must have.

    Raises:
        CheckpointError: a fact is missing or impossible.
    """
    try:
        model = build_forecaster(meta)
        RunConfig.from_dict(meta["config"])
        return model, {name: str(meta["sha256"][name]) for name in (WEIGHTS, WINDOWS)}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where}: expected the facts of a checkpoint, got none for {error}") from error
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Load a run folder, or the one file that `save_model` of the documented Python API wrote.

    Raises:
        CheckpointError: something in it is missing, damaged, altered or of another schema.
    """
    folder = Path(folder)
    if folder.is_file() or folder.suffix == ".pth":
        from training.checkpoint_file import load_checkpoint_file

        return load_checkpoint_file(folder)
    meta = read_meta(folder)
    model, expected = checked_facts(meta, where=str(folder / META))
    sha256 = load_weights(folder / WEIGHTS, model)
    data, tensors = _read_tensors(folder / WINDOWS)
    for name, found in ((WEIGHTS, sha256), (WINDOWS, hashlib.sha256(data).hexdigest())):
        if found != expected[name]:
            raise CheckpointError(
                f"{folder / name}: expected sha256 {expected[name][:12]}..., got {found[:12]}...; "
                "the file was altered, train again"
            )
    windows = {name: tensor.numpy() for name, tensor in tensors.items()}
    return Checkpoint(model=model.eval(), meta=meta, windows=windows, sha256=sha256)


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
    path: Path, progress: Progress, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> None:
    """Save everything needed to go on after this epoch, as one file."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {
        "schema": SCHEMA,
        "config": config.to_dict(),
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_wql": progress.best_wql,
        "history": progress.history,
    }
    write_atomically(path, save_tensors(tensors, metadata={"progress": json.dumps(facts)}))


def load_progress(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> Progress:
    """Restore a run from `save_progress`.

    Raises:
        CheckpointError: the file is damaged, of another schema, or of a run with other settings.
    """
    data, tensors = _read_tensors(path)
    length = int.from_bytes(data[:8], "little")
    try:
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["progress"])
        schema, saved = facts["schema"], RunConfig.from_dict(facts["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: expected a saved run, got other tensors; start over with --overwrite"
        ) from error
    if schema != SCHEMA:
        raise CheckpointError(f"{path}: expected schema {SCHEMA}, got {schema}; start over with --overwrite")
    check_same_config(path, saved, config)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(
        epoch=facts["epoch"], best_epoch=facts["best_epoch"], best_wql=facts["best_wql"], history=facts["history"]
    )


def check_same_config(path: Path, saved: RunConfig, wanted: RunConfig) -> None:
    """Check that a saved run has the settings asked for; the device may differ.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    ours, theirs = wanted.to_dict(), saved.to_dict()
    for part in ours:
        for key, value in ours[part].items():
            if key != "device" and value != theirs[part][key]:
                raise CheckpointError(
                    f"{path}: expected {key} = {value}, got {theirs[part][key]} in the saved run; "
                    "repeat its settings, or start over with --overwrite"
                )
