"""Recurrent operators start from zeros by themselves: nodes that make zeros of the batch's size can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_FIRST_STATE = {"GRU": 5, "RNN": 5, "LSTM": 5}


def drop_zero_states(model: onnx.ModelProto) -> None:
    """Remove first states of GRU, RNN and LSTM nodes that are zeros, and what made them; in place."""
    from onnx import numpy_helper

    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def is_zero(name: str) -> bool:
        if name in weights:
            return not numpy_helper.to_array(weights[name]).any()
        maker = makers.get(name)
        if maker is None:
            return False
        if maker.op_type == "ConstantOfShape":  # of 0, unless it says otherwise
            return not any(numpy_helper.to_array(attribute.t).any() for attribute in maker.attribute)
        return maker.op_type in ("Expand", "Identity", "Unsqueeze", "Slice") and is_zero(maker.input[0])

    for node in graph.node:
        first = _FIRST_STATE.get(node.op_type, len(node.input))
        states = node.input[first : first + 2]
        if any(states) and all(not name or is_zero(name) for name in states):
            for at in range(first, first + len(states)):
                node.input[at] = ""
            while not node.input[-1]:
                node.input.pop()
    _drop_unread(graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # in topological order, so readers come after what they read
        if any(output in read for output in node.output):
            read.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
