"""torch's two ONNX exporters: `legacy`, from a recording of TorchScript, and `dynamo`, from `torch.export`.

docs/parity.md has what was measured of them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

import torch
from torch import nn

from export.errors import ExportError
from export.operators import named_operator
from export.tracing import tracing
from training.errors import ConfigError

if TYPE_CHECKING:
    import onnx

LEGACY, DYNAMO, AUTO = "legacy", "dynamo", "auto"
OPSETS = {LEGACY: (17, 20), DYNAMO: (18, 21)}
"""First and last of each: 17 brought LayerNormalization, and dynamo's conversion to it gives graphs that cannot be
loaded; 20 is the legacy exporter's last, and 21 that of onnxruntime 1.18, the oldest supported."""
DEFAULT_OPSET = 20
BATCH = "batch"

Axes = Mapping[str, Mapping[int, str]]
"""Of inputs and outputs their dynamic axes, by number, with their names."""


def exporters_for(exporter: str, opset: int) -> tuple[str, ...]:
    """The exporters to try, in order.

    Args:
        exporter: one of them, or `auto`: legacy, which is many times as fast, then dynamo.
        opset: ONNX operator set; `auto` leaves out what does not write it.

    Raises:
        ConfigError: no such exporter, or none of them writes this opset.
    """
    known = (LEGACY, DYNAMO)
    if exporter not in (AUTO, *known):
        raise ConfigError(f"--exporter: expected {AUTO}, {LEGACY} or {DYNAMO}, got {exporter}; correct it")
    asked = known if exporter == AUTO else (exporter,)
    able = tuple(one for one in asked if OPSETS[one][0] <= opset <= OPSETS[one][1])
    if not able:
        ranges = " or ".join(f"{OPSETS[one][0]} to {OPSETS[one][1]} ({one})" for one in asked)
        raise ConfigError(f"--opset: expected {ranges}, got {opset}; leave it out for {DEFAULT_OPSET}")
    return able


def record(
    model: nn.Module,
    example: Mapping[str, torch.Tensor],
    *,
    outputs: Sequence[str],
    opset: int,
    exporter: str,
    axes: Axes | None = None,
) -> onnx.ModelProto:
    """Record a model with one of the exporters, as it comes: neither cleaned nor checked.

    Args:
        model: in eval mode.
        example: input name -> tensor with a batch of at least 2, in the order of forward's arguments.
        outputs: names of what forward gives.
        opset: ONNX operator set, in the exporter's range.
        exporter: `legacy` or `dynamo`.
        axes: where others are dynamic than the first alone; with legacy.

    Raises:
        ExportError: an operator without export, or dynamo without the package onnxscript. The text names the operator
            and, where it can be found, the module that runs it.
    """
    try:
        with tracing():
            if exporter == LEGACY:
                return _legacy(model, example, outputs, opset, axes or {})
            return _dynamo(model, example, outputs, opset)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"ONNX export: expected the package {error.name} for the exporter {exporter}, got none; "
            "pip install 'fcast[export]'"
        ) from error
    # The exporters let errors of every kind through, those of the model's own code among them.
    except Exception as error:
        what = named_operator(model, example, _reason(error))
        ways = ["--exporter dynamo"] if exporter == LEGACY else []
        if opset < OPSETS[exporter][1]:
            ways.append(f"a higher --opset, up to {OPSETS[exporter][1]}")
        raise ExportError(
            f"ONNX export: expected operators that the exporter {exporter} knows at opset {opset}, got: {what}; "
            + ", ".join(["write that part of the model with other operators", *(f"or try {way}" for way in ways)])
        ) from error


def _legacy(
    model: nn.Module, example: Mapping[str, torch.Tensor], outputs: Sequence[str], opset: int, axes: Axes
) -> onnx.ModelProto:
    import onnx

    buffer = BytesIO()
    with _graph_dump_off():
        torch.onnx.export(
            model,
            tuple(example.values()),
            buffer,  # type: ignore[arg-type]  # the stub lists paths only
            dynamo=False,
            opset_version=opset,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes.get(name, {0: BATCH})) for name in [*example, *outputs]},
        )
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(
    model: nn.Module, example: Mapping[str, torch.Tensor], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    import onnxscript  # noqa: F401  # torch needs it, and finds out late

    # A `Dim` is a demand: a model that fixes the batch is an error. By `Dim.AUTO` it would become a constant.
    batch = torch.export.Dim(BATCH)
    with _silent():
        program = torch.onnx.export(
            model,
            tuple(example.values()),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in example),
            external_data=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    written = proto.opset_import[0].version
    if written != opset:
        raise RuntimeError(f"a graph of opset {written}, which could not be converted")
    return proto


def _reason(error: Exception) -> str:
    """What an exporter complains of: the first line of the cause, which dynamo wraps into a page of advice."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _graph_dump_off() -> Iterator[None]:
    """On an error the legacy exporter prints its whole graph on stdout, from C++, and turns its own log switch on."""
    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    torch._C._jit_onnx_log = lambda *parts: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what dynamo prints and logs off the terminal: progress, other packages, whole graphs. Warnings pass."""
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(logged)
    for w in caught:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
