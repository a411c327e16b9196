"""Checkpoints: weights as safetensors with JSON beside them, written atomically, read without executing anything.

A run folder holds
- `model.safetensors`, the best weights, and `checkpoint.json`, everything needed to use them, once training ended;
- `judged.safetensors`, the weights that validation judged, before the last training on train and validation together;
- `windows.safetensors`, real windows for the parity proof;
- `last.safetensors`, from which training resumes; see training/resume.py.
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

from training.baseline_model import BaselineModel, build_baseline
from training.baselines import NAMES as BASELINES
from training.config import RunConfig
from training.errors import CheckpointError, ConfigError
from training.forecaster import Forecaster
from training.quantile_model import Ensemble, QuantileModel

SCHEMA = 2
WEIGHTS, META, WINDOWS, LAST = "model.safetensors", "checkpoint.json", "windows.safetensors", "last.safetensors"
JUDGED = "judged.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A trained forecaster with its facts.

    Attributes:
        model: the forecaster, or simple baseline, on the CPU, in eval mode.
        meta: content of `checkpoint.json`.
        windows: real windows: `context` (n, L, C) float32, `time_s` (n,) float64, `target` (n, H, C) float32.
        sha256: hash of the weights' file.
    """

    model: QuantileModel | BaselineModel
    meta: dict[str, Any]
    windows: dict[str, np.ndarray]
    sha256: str

    @property
    def trained(self) -> QuantileModel:
        """The model, where it is no baseline."""
        assert isinstance(self.model, QuantileModel)
        return self.model


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never leaves a half-written one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        what = f"{error.strerror or error}; check the folder, its rights and the disk"
        raise OSError(error.errno, what, str(path)) from error


def build_forecaster(meta: dict[str, Any]) -> QuantileModel:
    """The forecaster that a checkpoint's facts describe, with random weights."""
    model = meta["model"]
    if "members" in model:
        return Ensemble([build_forecaster({**meta, "model": member}) for member in model["members"]])
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
        ratio=1 if meta["bin_s"] is None else round(meta["step_s"] / meta["bin_s"]),
        demand=model["demand"],
        anchored=model["anchored"],
        recent=model["recent"],
    )


def judged_model(checkpoint: Checkpoint, folder: Path) -> QuantileModel:
    """The model of a run as it was before it saw the validation part.

    Raises:
        CheckpointError: it was trained again on validation, and the weights from before that are not there.
    """
    if not RunConfig.from_dict(checkpoint.meta["config"]).fit.refit:
        return checkpoint.trained
    model = build_forecaster(checkpoint.meta)
    assert isinstance(model, QuantileModel)
    load_weights(folder / JUDGED, model)
    return model.eval()


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
    data, tensors = read_tensors(path)
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


def read_tensors(path: Path) -> tuple[bytes, dict[str, torch.Tensor]]:
    """Read a safetensors file, and its bytes.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file of tensors, got {error.strerror}; train again") from error
    return data, parse_tensors(data, where=path)


def parse_tensors(data: bytes, *, where: Path) -> dict[str, torch.Tensor]:
    """Tensors from the bytes of a safetensors file.

    Raises:
        CheckpointError: they are damaged.
    """
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{where}: expected safetensors, got a damaged file ({error}); train again") from error


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
        inside = [os.fspath(found.parent) for found in sorted(folder.glob(f"*/{META}"))]
        raise CheckpointError(
            f"{folder}: expected a run folder of fcast-train, got "
            + (
                f"a folder of runs; give one of {', '.join(inside)}"
                if inside
                else f"{error.strerror}; correct the path"
            )
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint's JSON, got a damaged file; train again") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {schema}; "
            "use the fcast version that wrote it, or train again"
        )
    return dict(meta)


def checked_facts(meta: dict[str, Any], *, where: str) -> tuple[QuantileModel | BaselineModel, dict[str, str]]:
    """The forecaster of a checkpoint's facts, with random weights, and the hashes its tensors must have.

    Raises:
        CheckpointError: a fact is missing or impossible.
    """
    try:
        name = meta["model"]["name"]
        model = build_baseline(meta) if name in BASELINES else build_forecaster(meta)
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
    data, tensors = read_tensors(folder / WINDOWS)
    for name, found in ((WEIGHTS, sha256), (WINDOWS, hashlib.sha256(data).hexdigest())):
        if found != expected[name]:
            raise CheckpointError(
                f"{folder / name}: expected sha256 {expected[name][:12]}..., got {found[:12]}...; "
                "the file was altered, train again"
            )
    windows = {name: tensor.numpy() for name, tensor in tensors.items()}
    return Checkpoint(model=model.eval(), meta=meta, windows=windows, sha256=sha256)
