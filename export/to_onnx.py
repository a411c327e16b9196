"""A model as one ONNX file, weights inside, with a dynamic batch.

Axes: B batch, L context, C channels, H horizon, Q levels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from export.errors import ExportError
from export.tracing import named_outputs, tracing
from export.zero_states import drop_zero_states
from training.errors import ConfigError

if TYPE_CHECKING:
    import onnx

EXPORTER = "legacy"
OPSETS = (17, 20)  # 17 brought LayerNormalization; 20 is the legacy exporter's last
_MAX_IR_VERSION = 10  # the newest that onnxruntime 1.18 reads


def to_onnx(
    model: nn.Module,
    example: Mapping[str, torch.Tensor],
    *,
    opset: int = OPSETS[1],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Export a model in eval mode.

    Args:
        model: forward(context[, time_s]) -> forecast (B, H, C, Q) float32, or a tuple of it and demand (B, H, 2C, Q).
        example: input name -> tensor with a batch of at least 2, in the order of forward's arguments.
        opset: ONNX operator set, 17 to 20.
        metadata: text stored in the file beside the graph.

    Returns:
        The file's bytes.

    Raises:
        ConfigError: the opset is out of range.
        ExportError: an operator without export, or a graph without a dynamic batch.
    """
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ConfigError(f"--opset: expected {OPSETS[0]} to {OPSETS[1]}, got {opset}; leave it out for {OPSETS[1]}")
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise ExportError(
            f"ONNX export: expected the package {error.name}, got none; pip install 'fcast[export]'"
        ) from error
    with tracing():
        given = {name: tuple(output.shape) for name, output in named_outputs(model(*example.values())).items()}
    graph = _export_graph(model, example, outputs=list(given), opset=opset)
    proto = onnxslim.slim(onnx.load_from_string(graph))
    drop_zero_states(proto)
    proto.ir_version = min(proto.ir_version, _MAX_IR_VERSION)
    proto.producer_name, proto.producer_version = "fcast", ""
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    shapes = {name: tuple(tensor.shape) for name, tensor in example.items()}
    _check_signature(proto.graph.input, shapes)
    _check_signature(proto.graph.output, given)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def _export_graph(
    model: nn.Module, example: Mapping[str, torch.Tensor], *, outputs: Sequence[str], opset: int
) -> bytes:
    """The one place that knows an exporter; the legacy one, see docs/parity.md for the measurements."""
    buffer = io.BytesIO()
    names = list(example)
    try:
        with tracing(), _graph_dump_off():
            torch.onnx.export(
                model,
                tuple(example.values()),
                buffer,  # type: ignore[arg-type]  # the stub lists paths only
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in [*names, *outputs]},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"ONNX export: expected operators known at opset {opset}, got: {reason}; "
            "write that part of the model with other operators"
        ) from error
    return buffer.getvalue()


@contextmanager
def _graph_dump_off() -> Iterator[None]:
    """On an error the exporter prints its whole graph on stdout, from C++, and turns its own log switch on."""
    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    torch._C._jit_onnx_log = lambda *parts: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _check_signature(values: Sequence[onnx.ValueInfoProto], expected: Mapping[str, tuple[int, ...]]) -> None:
    found: dict[str, list[Any]] = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values
    }
    wanted: dict[str, list[Any]] = {name: ["batch", *shape[1:]] for name, shape in expected.items()}
    if found != wanted:
        raise ExportError(
            f"ONNX graph: expected {wanted}, got {found}; "
            "the model's forward must keep the batch as its first axis and use every input"
        )
