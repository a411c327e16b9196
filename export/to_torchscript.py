"""A model as a TorchScript file, for hosts that already run libtorch."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError
from export.tracing import known_warnings_silenced, tracing


def to_torchscript(model: nn.Module, example: Mapping[str, torch.Tensor]) -> bytes:
    """Trace a model in eval mode.

    Args:
        model: forward(context[, time_s]) -> forecast (B, H, C, Q) float32, or a tuple of it and demand (B, H, 2C, Q);
            the file gives what the model does.
        example: input name -> tensor with a batch of at least 2, in the order of forward's arguments.

    Returns:
        The file's bytes; for the CPU, since a trace fixes the device of a recurrent layer's first state.

    Raises:
        ExportError: the model cannot be traced.
    """
    frozen = copy.deepcopy(model).requires_grad_(False)  # the file keeps that flag, and hosts only forecast
    buffer = io.BytesIO()
    try:
        with tracing():
            # Tracing's own check compares one batch with itself; parity does better.
            traced = torch.jit.trace(frozen, tuple(example.values()), check_trace=False)
            torch.jit.save(traced, buffer)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"TorchScript export: expected a model that can be traced, got: {reason}; "
            "return tensors from forward and keep Python side effects out of it"
        ) from error
    return _without_sources(buffer)


def load_torchscript(path: Path) -> nn.Module:
    """Load what `to_torchscript` gave, on the CPU."""
    with known_warnings_silenced():
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    return module


def _without_sources(archive: io.BytesIO) -> bytes:
    """The file without its debug records: they hold paths of source files here, and no loader needs them."""
    kept = io.BytesIO()
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(kept, "w") as written:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                plain = zipfile.ZipInfo(entry.filename)  # of 1980: no time of writing
                written.writestr(plain, whole.read(entry), compress_type=entry.compress_type)
    return kept.getvalue()
