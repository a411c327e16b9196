"""`where(x > limit, x, 0)` is one operator of ONNX, which torch has no name for that its exporters know."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx


def join_thresholds(model: onnx.ModelProto) -> None:
    """Replace each comparison with a number, and the choice it makes, by a ThresholdedRelu; in place."""
    from onnx import helper, numpy_helper

    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def constant(name: str) -> np.ndarray | None:
        if name in weights:
            return numpy_helper.to_array(weights[name])
        maker = makers.get(name)
        values = [a.t for a in maker.attribute if a.name == "value"] if maker and maker.op_type == "Constant" else []
        return numpy_helper.to_array(values[0]) if values else None

    for node in list(graph.node):
        compared = makers.get(node.input[0]) if node.op_type == "Where" else None
        if compared is None or compared.op_type != "Greater" or readers[node.input[0]] > 1:
            continue
        limit, other = constant(compared.input[1]), constant(node.input[2])
        if limit is None or other is None or limit.dtype.name != "float32" or compared.input[0] != node.input[1]:
            continue
        if limit.size == other.size == 1 and not other.any():
            joined = helper.make_node("ThresholdedRelu", [node.input[1]], list(node.output), alpha=float(limit.item()))
            joined.name = node.name
            node.CopyFrom(joined)
            graph.node.remove(compared)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
