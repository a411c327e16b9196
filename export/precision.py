"""A float32 graph in another precision: the architecture's weights are converted, everything around it stays float32.

Raw values reach 1e6 and beyond, where float16 ends at 65,504 and int8 has 256 steps for all of them; the level of a
window, a logarithm, is added to the output of the head. So the clock, the scaling, the head and the way back to raw
units keep their float32 (and float64) in both precisions, and inputs and outputs stay as they are. They are matrices
too: what belongs to the architecture, `network` in a forecaster, is told by the name of its module, which the exporter
gives to nodes and weights. docs/parity.md has the measurements behind these choices.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError

if TYPE_CHECKING:
    import onnx

FP32 = "fp32"
_WEIGHTED = ("MatMul", "Gemm", "Conv", "LSTM", "GRU", "RNN")
_NETWORK = re.compile(r"(^|[/.])network[/.]")
_QUANTISED = ("MatMul", "LSTM")  # a Gemm becomes a MatMul; ONNX Runtime has no dynamically quantised GRU


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every operator of the architecture that has weights computes in float16, between casts from and to float32.

    `onnxruntime.transformers.float16` is not used: it takes the graph's inputs and outputs through float16 even where
    it is told to block the operators behind them, and 1e6 requests become infinite.

    Raises:
        ExportError: a weight is beyond float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    half: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type not in _WEIGHTED or not _of_network(node) or not any(name in weights for name in node.input):
            nodes.append(node)
            continue
        for at, name in enumerate(node.input):
            if not name or (at == 4 and node.op_type in ("LSTM", "GRU", "RNN")):  # the lengths, which are integers
                continue
            if name not in weights:
                node.input[at] = f"{node.output[0]}/in{at}_fp16"
                nodes.append(helper.make_node("Cast", [name], [node.input[at]], to=TensorProto.FLOAT16))
            else:
                node.input[at] = f"{name}/fp16"
                half[name] = numpy_helper.from_array(_as_float16(weights[name]), node.input[at])
        nodes.append(node)
        for at, name in enumerate(node.output):
            node.output[at] = f"{name}/fp16" if name in read else ""  # an unread state would keep its float32 type
            if node.output[at]:
                nodes.append(helper.make_node("Cast", [node.output[at]], [name], to=TensorProto.FLOAT))
    kept = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in kept]
    _replace(graph.node, nodes)
    _replace(graph.initializer, [*tensors, *half.values()])
    return model


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The architecture's weights of matrix products and LSTMs in int8, their inputs quantised as they come.

    Seven bits of the eight are used: with all of them processors without VNNI instructions saturate, and forecast
    something else than the machine that exported.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    # A Gemm is replaced by a MatMul of this name before the names are compared.
    names = [name for node in model.graph.node if _of_network(node) for name in (node.name, f"{node.name}_MatMul")]
    if not names:
        return model  # an empty list would mean every node
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(model, file, op_types_to_quantize=list(_QUANTISED), nodes_to_quantize=names, reduce_range=True)
        return onnx.load(file)


CONVERSIONS: dict[str, Callable[[Any], Any]] = {"fp16": to_fp16, "int8": to_int8}
PRECISIONS = (FP32, *CONVERSIONS)


def convert(model: bytes, conversion: Callable[[Any], Any], *, precision: str) -> bytes:
    """Convert the bytes of an ONNX file; the same bytes every time.

    Args:
        model: in float32.
        conversion: of `CONVERSIONS`.
        precision: its name, for the file's metadata and the error.

    Raises:
        ExportError: nothing in the model can be converted.
    """
    import onnx

    source = onnx.load_from_string(model)
    proto = conversion(onnx.load_from_string(model))
    if not converted_share(proto.SerializeToString()):
        kinds = ", ".join(_QUANTISED if precision == "int8" else _WEIGHTED)
        raise ExportError(
            f"--precision {precision}: expected an architecture with weights in {kinds}, got one with none; "
            "no node of this model can be quantised, export it as fp32"
        )
    proto.producer_name, proto.producer_version = source.producer_name, source.producer_version
    texts = {entry.key: entry.value for entry in source.metadata_props}
    onnx.helper.set_model_props(proto, {**texts, "fcast.precision": json.dumps(precision)})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def converted_share(model: bytes) -> float:
    """The part of a graph's weights, by count, that is in less than 32 bits."""
    import onnx
    from onnx import TensorProto

    sizes = {True: 0, False: 0}
    for tensor in onnx.load_from_string(model).graph.initializer:
        narrow = tensor.data_type in (TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)
        if (narrow or tensor.data_type == TensorProto.FLOAT) and len(tensor.dims):  # a zero point is no weight
            sizes[narrow] += int(np.prod(tensor.dims))
    return sizes[True] / (sum(sizes.values()) or 1)


def _of_network(node: onnx.NodeProto) -> bool:
    recurrent = node.op_type in ("LSTM", "GRU", "RNN")  # no scaling has one; the exporter dynamo gives it no such name
    return recurrent or any(_NETWORK.search(name) for name in (node.name, *node.input))


def _as_float16(tensor: onnx.TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > np.finfo(np.float16).max:
        raise ExportError(
            f"--precision fp16: expected weights up to 65504, got {largest:.3g} in {tensor.name}; export it as fp32"
        )
    return values.astype(np.float16)


def _replace(repeated: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del repeated[:]
    repeated.extend(copies)
