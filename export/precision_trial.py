"""A conversion and the first runs of its graph, in a child process: both have crashed ONNX Runtime.

An fp16 Transformer has ended session creation with a segmentation fault. A parent process that only reads what a child
has survived ends with an error line instead. The child opens the graph as the runtime will, through
`runtime.device.open_session`, so at its optimisation level, and runs it on every window that the parent will.

    python -m export.precision_trial MODULE:FUNCTION PRECISION STAGED FOLDER
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.precision import convert
from runtime.artifact import MAX_GRAPH_BYTES, open_artifact
from runtime.device import open_session

BATCHES = (1, 3, 17, 256)
TIMEOUT_S = 300.0
_GRAPH, _WINDOWS, _CONVERTED = "model.onnx", "windows.npz", "converted.onnx"
_STEP, _REFUSED = "step", "refused"


def convert_apart(
    conversion: Callable[[Any], Any],
    staged: Path,
    folder: Path,
    inputs: dict[str, np.ndarray],
    *,
    precision: str,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Convert a staged graph in a child process and run it there.

    Args:
        conversion: of `export.precision.CONVERSIONS`; the child imports it by its name.
        staged: a folder with a manifest and model.onnx in fp32.
        folder: an empty one for what the two processes exchange.
        inputs: windows by input name.
        precision: the conversion's name.
        timeout_s: how long the child may take.

    Returns:
        The converted file, which the child has loaded and run.

    Raises:
        ExportError: it crashed, took too long, or the model cannot be converted.
    """
    np.savez(folder / _WINDOWS, **inputs)  # type: ignore[arg-type]
    name = f"{conversion.__module__}:{conversion.__qualname__}"
    command = [sys.executable, "-m", "export.precision_trial", name, precision, str(staged), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise _failure(folder, staged, precision, f"nothing for {timeout_s:g} s") from None
    if (folder / _REFUSED).exists():
        raise ExportError((folder / _REFUSED).read_text())
    if child.returncode < 0:
        raise _failure(folder, staged, precision, f"a crash, {_signal(-child.returncode)}")
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise _failure(folder, staged, precision, last[:300])
    return (folder / _CONVERTED).read_bytes()


def _failure(folder: Path, staged: Path, precision: str, what: str) -> ExportError:
    import onnxruntime

    name = open_artifact(staged).manifest.raw["architecture"]
    step = (folder / _STEP).read_text() if (folder / _STEP).exists() else "starting"
    return ExportError(
        f"--precision {precision}: expected onnxruntime {onnxruntime.__version__} to survive {step} {name} in a child "
        f"process, got {what}; nothing was published: export it as fp32, or with another version of onnxruntime"
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _try(name: str, precision: str, staged: Path, folder: Path) -> None:
    """What the child does."""
    module, _, function = name.partition(":")
    (folder / _STEP).write_text("converting")
    artifact = open_artifact(staged)
    conversion = getattr(importlib.import_module(module), function)
    try:
        model = convert(artifact.read(_GRAPH, max_bytes=MAX_GRAPH_BYTES), conversion, precision=precision)
    except ExportError as error:
        (folder / _REFUSED).write_text(str(error))
        return
    (folder / _STEP).write_text("loading")
    where = str(folder / _CONVERTED)
    session = open_session(model, artifact.manifest, device="cpu", threads=1, where=where)
    (folder / _STEP).write_text("running")
    with np.load(folder / _WINDOWS) as windows:
        context, time_s = windows["context"], windows.get("time_s")
    for batch in BATCHES:
        for at in range(0, len(context), batch):
            session.run(context[at : at + batch], None if time_s is None else time_s[at : at + batch])
    (folder / _CONVERTED).write_bytes(model)


if __name__ == "__main__":
    _try(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
