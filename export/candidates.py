"""Every way in which a host may run what is staged: levels of graph optimisation, providers, threads, both formats."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.parity import Candidate
from export.reference import Forecast, Outputs, torch_forecast
from export.to_torchscript import load_torchscript
from runtime import DeviceError, Predictor
from runtime.device import import_onnxruntime

ort = import_onnxruntime()

ONNX, TORCHSCRIPT = "model.onnx", "model.pt"
SEVERAL = 4
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_STATIC = re.compile(r"model\.batch([1-9][0-9]*)\.onnx")
_QUIET = 3  # errors only
_LEVELS = {
    name: getattr(ort.GraphOptimizationLevel, attribute)
    for name, attribute in (
        ("disabled", "ORT_DISABLE_ALL"),
        ("basic", "ORT_ENABLE_BASIC"),
        ("extended", "ORT_ENABLE_EXTENDED"),
        ("layout", "ORT_ENABLE_LAYOUT"),  # not in onnxruntime before 1.22
        ("all", "ORT_ENABLE_ALL"),
    )
    if hasattr(ort.GraphOptimizationLevel, attribute)
}


def candidates(staged: Path, inputs: Sequence[str]) -> Iterator[Candidate]:
    """The forms of what is staged, those that serve first.

    Args:
        staged: a folder with a manifest and model.onnx, and perhaps model.pt and model.batchN.onnx.
        inputs: names of the graph's inputs, in the order of forward's arguments.

    Raises:
        FcastError: the runtime refuses the folder.
    """
    graph = (staged / ONNX).read_bytes()
    for device in ("cpu", "cuda"):
        try:
            predictor = Predictor(staged, device=device)
        except DeviceError:  # no CUDA, or none that works
            continue
        provider = predictor.providers[0]
        yield Candidate(format="onnx", provider=provider, forecast=_served(predictor))
        for level, threads in [(level, 1) for level in _LEVELS if level != "all"] + [
            ("disabled", SEVERAL),
            ("all", SEVERAL),
        ]:
            yield _session(graph, inputs, provider, level=level, threads=threads, served=False)
    for path in sorted(staged.iterdir()):
        if match := _STATIC.fullmatch(path.name):
            batch = int(match.group(1))
            yield _session(path.read_bytes(), inputs, _CPU, format=f"onnx-batch{batch}", batch=batch)
    if (staged / TORCHSCRIPT).exists():
        try:
            script = torch_forecast(load_torchscript(staged / TORCHSCRIPT))
        except RuntimeError as error:
            script = _impossible(error)
        for threads in (1, SEVERAL):
            yield Candidate(
                format="torchscript",
                provider="torch.jit cpu",
                forecast=_with_threads(script, threads),
                threads=threads,
                served=threads == 1,
            )


def _session(
    graph: bytes, inputs: Sequence[str], provider: str, *, level: str = "all", threads: int = 1, **facts: Any
) -> Candidate:
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _QUIET
    for scope in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{scope}.allow_spinning", "0")
    wanted = [(_CUDA, {"use_tf32": "0"}), _CPU] if provider == _CUDA else [_CPU]
    facts = {"format": "onnx", "level": level, "threads": threads, **facts}
    try:
        session = ort.InferenceSession(graph, options, providers=wanted)
    except Exception as error:  # onnxruntime's classes stand under Exception alone
        return Candidate(**facts, provider=provider, forecast=_impossible(error))
    outputs = [output.name for output in session.get_outputs()]

    def forecast(*arrays: np.ndarray) -> Outputs:
        return dict(zip(outputs, session.run(outputs, dict(zip(inputs, arrays, strict=True))), strict=True))

    # The provider is read back: onnxruntime takes another one without a word.
    return Candidate(**facts, provider=session.get_providers()[0], forecast=forecast)


def _impossible(error: Exception) -> Forecast:
    """A form that does not even load: its check fails with what is said of that."""

    def forecast(*arrays: np.ndarray) -> Outputs:
        raise error

    return forecast


def _served(predictor: Predictor) -> Forecast:
    """`predict_outputs`, one window without its axis of batches: the runtime has a way of its own for that."""

    def forecast(context: np.ndarray, *time_s: np.ndarray) -> Outputs:
        with warnings.catch_warnings():  # that 1970 is long ago: an edge window means it
            warnings.filterwarnings("ignore", message=".*expected epoch seconds", category=RuntimeWarning)
            if len(context) > 1:
                return predictor.predict_outputs(context, *time_s)
            found = predictor.predict_outputs(context[0], *(float(times[0]) for times in time_s))
            return {name: output[np.newaxis] for name, output in found.items()}

    return forecast


def _with_threads(forecast: Forecast, threads: int) -> Forecast:
    def run(*arrays: np.ndarray) -> Outputs:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return forecast(*arrays)
        finally:
            torch.set_num_threads(before)

    return run
