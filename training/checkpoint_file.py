"""A checkpoint as one `.pth` file: what `save_model` of the documented Python API writes.

A dict of plain text and tensors, for `torch.load(..., weights_only=True)`: `meta` is the JSON of `checkpoint.json`,
`weights` and `windows` are the tensors of a run folder's two files, whose hashes `meta` holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from training.checkpoint import SCHEMA, WEIGHTS, WINDOWS, Checkpoint, checked_facts, set_weights, write_atomically
from training.errors import CheckpointError

FORMAT = "fcast-checkpoint"


def save_checkpoint_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one file, atomically; its folder is made.

    Raises:
        OSError: the file can't be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    windows = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in checkpoint.windows.items()}
    buffer = io.BytesIO()
    meta = json.dumps(checkpoint.meta, allow_nan=False)
    torch.save({"format": FORMAT, "meta": meta, "weights": weights, "windows": windows}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load_checkpoint_file(path: Path) -> Checkpoint:
    """Read what `save_checkpoint_file` wrote; nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing, holds anything but text and tensors, was altered, or is of another schema.
    """
    saved = _read(path)
    try:
        meta = json.loads(saved["meta"])
        schema = meta["schema"]
        weights, windows = (_tensors(saved[name]) for name in ("weights", "windows"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected what save_model of fcast writes, got a file without it ({error}); "
            "a bare state_dict lacks scaling and configuration: save the model again with save_model"
        ) from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {schema}; use the fcast version that wrote it"
        )
    model, expected = checked_facts(meta, where=str(path))
    for name, tensors in ((WEIGHTS, weights), (WINDOWS, windows)):
        found = hashlib.sha256(save_tensors(tensors)).hexdigest()
        if found != expected[name]:
            raise CheckpointError(
                f"{path}: expected tensors with sha256 {expected[name][:12]}..., got {found[:12]}...; "
                "the file was altered, save the model again"
            )
    set_weights(model, weights, where=str(path))
    return Checkpoint(
        model=model.eval(),
        meta=meta,
        windows={name: tensor.numpy() for name, tensor in windows.items()},
        sha256=expected[WEIGHTS],
    )


def with_facts(checkpoint: Checkpoint, **facts: Any) -> Checkpoint:
    """The same checkpoint with further facts in its JSON."""
    return replace(checkpoint, meta={**checkpoint.meta, **facts})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a file of save_model, got {error.strerror}; correct the path"
        ) from error
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise CheckpointError(
            f"{path}: expected a file of torch.save, got other or damaged bytes; save the model again"
        )
    try:
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file may fail in any way; nothing of it has been run
        text = str(error)
        if "eights only load failed" in text or "Unsupported" in text:
            asked = re.search(r"GLOBAL ([\w.]+)", text)
            what = f"a pickle that asks to run {asked[1]}" if asked else "a pickle that asks for more"
            raise CheckpointError(
                f"{path}: expected text and tensors alone, got {what}; nothing of it was executed, "
                "use files that save_model of fcast wrote"
            ) from error
        reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise CheckpointError(f"{path}: expected a file of save_model, got: {reason}; save the model again") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected what save_model of fcast writes, got a {type(saved).__name__} without its mark; "
            "a bare state_dict lacks scaling and configuration: save the model again with save_model"
        )
    return saved


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise TypeError("no tensors")
    return found
