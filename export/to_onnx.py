"""A model as one ONNX file, weights inside, with a dynamic batch or a fixed one.

Axes: B batch, L context, C channels, H horizon, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from export.errors import ExportError
from export.exporters import BATCH, DEFAULT_OPSET, LEGACY, Axes, exporters_for, record
from export.thresholds import join_thresholds
from export.tracing import OUTPUTS, named_outputs, tracing
from export.zero_states import drop_zero_states

if TYPE_CHECKING:
    import onnx

_MAX_IR_VERSION = 10  # the newest that onnxruntime 1.18 reads


def to_onnx(
    model: nn.Module,
    example: Mapping[str, torch.Tensor],
    *,
    opset: int = DEFAULT_OPSET,
    metadata: Mapping[str, str] | None = None,
    exporter: str = LEGACY,
    static_batch: int | None = None,
    outputs: Sequence[str] = OUTPUTS,
    axes: Axes | None = None,
) -> bytes:
    """Export a model in eval mode.

    Args:
        model: forward(context[, time_s]) -> forecast (B, H, C, Q) float32, or a tuple of it and demand (B, H, 2C, Q).
        example: input name -> tensor with a batch of at least 2, in the order of forward's arguments.
        opset: ONNX operator set, in the exporter's range.
        metadata: text stored in the file beside the graph.
        exporter: `legacy` or `dynamo`.
        static_batch: the only batch of the graph; None for any.
        outputs: names of what forward gives.
        axes: where others are dynamic than the first alone; with legacy.

    Returns:
        The file's bytes.

    Raises:
        ConfigError: the opset is out of range.
        ExportError: an operator without export, or a graph without a dynamic batch.
    """
    (exporter,) = exporters_for(exporter, opset)
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise ExportError(
            f"ONNX export: expected the package {error.name}, got none; pip install 'fcast[export]'"
        ) from error
    with tracing():
        given = {name: tuple(o.shape) for name, o in named_outputs(model(*example.values()), outputs).items()}
    recorded = record(model, example, outputs=list(given), opset=opset, exporter=exporter, axes=axes)
    proto = onnxslim.slim(recorded)
    drop_zero_states(proto)
    join_thresholds(proto)
    proto.ir_version = min(proto.ir_version, _MAX_IR_VERSION)
    proto.producer_name, proto.producer_version = "fcast", _own_version()
    proto.graph.name = "fcast"
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    shapes = {name: tuple(tensor.shape) for name, tensor in example.items()}
    _check_signature(proto.graph.input, shapes, axes or {})
    _check_signature(proto.graph.output, given, axes or {})
    onnx.checker.check_model(proto, full_check=True)
    graph = bytes(proto.SerializeToString())
    return graph if static_batch is None else with_fixed_batch(graph, static_batch)


def with_fixed_batch(graph: bytes, batch: int) -> bytes:
    """The same graph for one batch size: every dimension is a number, and what computed shapes is gone.

    Args:
        graph: what `to_onnx` gave.
        batch: B.
    """
    import onnx
    import onnxslim

    proto = onnx.load_from_string(graph)
    del proto.graph.value_info[:]  # they say "batch" too; what they hold is inferred again
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    # Nodes are not fused again: with fixed shapes that wraps products into reshapes.
    fixed = onnxslim.slim(proto, skip_optimizations=["graph_fusion"])
    fixed.producer_name, fixed.producer_version = proto.producer_name, proto.producer_version
    fixed.ir_version = proto.ir_version
    onnx.helper.set_model_props(fixed, {entry.key: entry.value for entry in proto.metadata_props})
    onnx.checker.check_model(fixed, full_check=True)
    return bytes(fixed.SerializeToString())


def _check_signature(
    values: Sequence[onnx.ValueInfoProto],
    expected: Mapping[str, tuple[int, ...]],
    axes: Axes,
) -> None:
    found: dict[str, list[Any]] = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values
    }
    wanted: dict[str, list[Any]] = {
        name: [axes.get(name, {0: BATCH}).get(axis, size) for axis, size in enumerate(shape)]
        for name, shape in expected.items()
    }
    if found != wanted:
        raise ExportError(
            f"ONNX graph: expected {wanted}, got {found}; "
            "the model's forward must keep the batch as its first axis and use every input"
        )


def _own_version() -> str:
    try:
        return version("fcast")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return ""
