"""Graphs with the right inputs and outputs, sealed, that loop, grow, reach for files or give no numbers.

All of them forecast (B, 2, 1, 7) from a context (B, 4, 1), as the artifact `counts` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from runtime.golden import Golden
from tests.runtime.conftest import replace_file
from tests.runtime.hostile_files import outside
from tests.runtime.hostile_golden import arrays, npy
from tests.runtime.onnx_bytes import (
    external,
    field,
    graph,
    graph_attribute,
    int_attribute,
    model,
    node,
    tensor,
    tensor_attribute,
    value,
)

IN, OUT = value("context", ["batch", 4, 1]), value("forecast", ["batch", 2, 1, 7])
_RNG = np.random.default_rng(0)
WEIGHT = np.abs(_RNG.normal(size=(4, 14))).astype(np.float32)
_SCALAR = np.float32(0)


def forecaster(
    *nodes: bytes,
    constants: Sequence[bytes] = (),
    weight: bytes | None = None,
    added: str = "none",
    inputs: Sequence[bytes] = (IN,),
    outputs: Sequence[bytes] = (OUT,),
    functions: Sequence[bytes] = (),
    domains: Sequence[str] = ("",),
) -> bytes:
    """forecast = context · weight + `added`, a scalar that the given nodes make."""
    body = [
        *nodes,
        node("Squeeze", ["context", "two"], ["flat"]),
        node("MatMul", ["flat", "weight"], ["product"]),
        node("Reshape", ["product", "shape"], ["shaped"]),
        node("Add", ["shaped", added], ["forecast"]),
    ]
    always = [
        tensor("weight", WEIGHT) if weight is None else weight,
        tensor("two", np.array([2])),
        tensor("shape", np.array([-1, 2, 1, 7])),
        tensor("none", _SCALAR),
        tensor("true", np.array(True)),
        tensor("forever", np.array(1 << 40)),
        tensor("zero", np.array(0)),
        tensor("one", np.array(1)),
        *constants,
    ]
    return model(graph(body, always, inputs, outputs), functions=functions, domains=domains)


def put(make: Callable[[], bytes], folder: Path) -> None:
    """The graph, with golden windows that agree with WEIGHT."""
    replace_file(folder, "model.onnx", make())
    right = golden()
    arrays(folder, context=npy(right.context), forecast=npy(right.outputs["forecast"]))


def golden() -> Golden:
    context = np.abs(np.random.default_rng(1).normal(size=(3, 4, 1))).astype(np.float32)
    return Golden(context, None, {"forecast": (context[:, :, 0] @ WEIGHT).reshape(3, 2, 1, 7)})


def loop() -> bytes:
    body = graph(
        [node("Identity", ["go_in"], ["go_out"]), node("Identity", ["x_in"], ["x_out"])],
        [],
        [value("i", [], "int64"), value("go_in", [], "bool"), value("x_in", [])],
        [value("go_out", [], "bool"), value("x_out", [])],
    )
    return forecaster(
        node("ReduceMin", ["context"], ["x"], int_attribute("keepdims", 0)),
        node("Loop", ["forever", "true", "x"], ["looped"], graph_attribute("body", body)),
        added="looped",
    )


def scan() -> bytes:
    body = graph([node("Identity", ["x_in"], ["x_out"])], [], [value("x_in", []), value("s", [])], [value("x_out", [])])
    return forecaster(
        node("ReduceMin", ["context"], ["x"], int_attribute("keepdims", 0)),
        node("Expand", ["none", "long"], ["steps"]),
        node("Scan", ["x", "steps"], ["scanned"], graph_attribute("body", body), int_attribute("num_scan_inputs", 1)),
        constants=[tensor("long", np.array([1 << 26]))],
        added="scanned",
    )


def branch(*nodes: bytes, result: str) -> bytes:
    return graph(nodes, [], [], [value(result, [])])


def choice(inside: bytes | None = None) -> bytes:
    """`If`, which runs one of two graphs, once."""
    yes = branch(inside or node("Identity", ["none"], ["yes"]), result="yes")
    no = branch(node("Identity", ["none"], ["no"]), result="no")
    return forecaster(
        node("ReduceMin", ["context"], ["x"], int_attribute("keepdims", 0)),
        node("Greater", ["x", "none"], ["positive"]),
        node("If", ["positive"], ["chosen"], graph_attribute("then_branch", yes), graph_attribute("else_branch", no)),
        added="chosen",
    )


def loop_in_a_branch() -> bytes:
    body = graph(
        [node("Identity", ["go_in"], ["go_out"]), node("Identity", ["x_in"], ["x_out"])],
        [],
        [value("i", [], "int64"), value("go_in", [], "bool"), value("x_in", [])],
        [value("go_out", [], "bool"), value("x_out", [])],
    )
    return choice(node("Loop", ["forever", "true", "x"], ["yes"], graph_attribute("body", body)))


def function(name: str, *nodes: bytes) -> bytes:
    return (
        field(1, name)
        + field(4, "x")
        + field(5, "y")
        + b"".join(field(7, n) for n in nodes)
        + field(9, field(1, "") + field(2, 20))
        + field(9, field(1, "local") + field(2, 1))
        + field(10, "local")
    )


def functions_that_double() -> bytes:
    """Each calls the next twice: 2^40 nodes once they are put in their callers' places."""
    made = [
        function(
            f"f{i}",
            node(f"f{i + 1}", ["x"], ["m"], domain="local"),
            node(f"f{i + 1}", ["m"], ["y"], domain="local"),
        )
        for i in range(40)
    ]
    made.append(function("f40", node("Identity", ["x"], ["y"])))
    return forecaster(
        node("f0", ["none"], ["called"], domain="local"), added="called", functions=made, domains=("", "local")
    )


def function_that_calls_itself() -> bytes:
    return forecaster(
        node("f", ["none"], ["called"], domain="local"),
        added="called",
        functions=[function("f", node("f", ["x"], ["y"], domain="local"))],
        domains=("", "local"),
    )


def doubling(times: int, *, constant: bool) -> bytes:
    """Joined with itself again and again, a number becomes 2^times numbers."""
    nodes = [] if constant else [node("Squeeze", ["context", "two"], ["d0"])]
    nodes += [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], int_attribute("axis", 0)) for i in range(times)]
    nodes.append(node("ReduceMin", [f"d{times}"], ["least"], int_attribute("keepdims", 0)))
    constants = [tensor("d0", np.zeros(1, np.float32))] if constant else []
    return forecaster(*nodes, constants=constants, added="least")


def constant_of_shape(elements: int) -> bytes:
    return forecaster(
        node("ConstantOfShape", ["size"], ["filled"]),
        node("ReduceMin", ["filled"], ["least"], int_attribute("keepdims", 0)),
        constants=[tensor("size", np.array([elements]))],
        added="least",
    )


def count_to(limit: int) -> bytes:
    return forecaster(
        node("Range", ["zero", "limit", "one"], ["range"]),
        node("Cast", ["range"], ["floats"], int_attribute("to", 1)),
        node("ReduceMin", ["floats"], ["least"], int_attribute("keepdims", 0)),
        constants=[tensor("limit", np.array(limit))],
        added="least",
    )


def filled(number: float) -> bytes:
    return forecaster(weight=tensor("weight", np.full((4, 14), number, np.float32)))


def dims(*sizes: int) -> bytes:
    return forecaster(weight=tensor("weight", WEIGHT, dims=sizes))


def other_shape(*sizes: int) -> bytes:
    """The forecast is of another shape than the graph says."""
    body = [
        node("Squeeze", ["context", "two"], ["flat"]),
        node("MatMul", ["flat", "weight"], ["product"]),
        node("Reshape", ["product", "shape"], ["forecast"]),
    ]
    always = [
        tensor("weight", WEIGHT),
        tensor("two", np.array([2])),
        tensor("shape", np.array(sizes)),
    ]
    return model(graph(body, always, [IN], [OUT]))


def metadata(key: str, text: bytes) -> bytes:
    return field(14, field(1, key) + field(2, text))


def fails_when_run() -> bytes:
    return forecaster(
        node("Gather", ["many", "far"], ["found"]),
        node("Cast", ["range"], ["far"], int_attribute("to", 7)),
        node("ReduceMax", ["context"], ["range"], int_attribute("keepdims", 0)),
        constants=[tensor("many", np.zeros(1, np.float32))],
        added="found",
    )


def deep(levels: int) -> bytes:
    body = branch(node("Identity", ["none"], ["yes"]), result="yes")
    for _ in range(levels):
        attributes = graph_attribute("then_branch", body), graph_attribute("else_branch", body[:0])
        body = branch(node("If", ["true"], ["yes"], *attributes), result="yes")
    return forecaster(node("If", ["true"], ["c"], graph_attribute("then_branch", body)), added="c")


def reach_out(kind: str, folder: Path) -> None:
    """Weights, or what adds nothing, in a file beside the artifact; also a link in the working directory would do."""
    target = outside(folder) / "canary"
    (np.ones((4, 14), np.float32) * 1000).tofile(target)
    absolute, relative = str(target), "../../../outside/canary"
    scalar = external("far", absolute, [1])
    sparse_tensor = field(1, scalar) + field(2, tensor("", np.array([0]))) + field(3, 1)
    given = {
        "initializer": lambda: forecaster(weight=external("weight", absolute, (4, 14))),
        "initializer up": lambda: forecaster(weight=external("weight", relative, (4, 14))),
        "memory": lambda: forecaster(weight=external("weight", "*/_ORT_MEM_ADDR_/*", (4, 14))),
        "attribute": lambda: forecaster(node("Constant", [], ["far"], tensor_attribute("value", scalar)), added="far"),
        "sparse attribute": lambda: forecaster(
            node("Constant", [], ["far"], field(1, "sparse_value") + field(22, sparse_tensor) + field(20, 11)),
            added="far",
        ),
        "branch": lambda: choice(
            node("Constant", [], ["yes"], tensor_attribute("value", external("far", absolute, [])))
        ),
        "function": lambda: forecaster(
            node("f", ["none"], ["called"], domain="local"),
            added="called",
            functions=[
                function(
                    "f",
                    node("Constant", [], ["c"], tensor_attribute("value", scalar)),
                    node("Add", ["x", "c"], ["y"]),
                )
            ],
            domains=("", "local"),
        ),
    }
    replace_file(folder, "model.onnx", given[kind]())


def no_numbers(number: float, folder: Path) -> None:
    """Weights that are no numbers, and golden windows that say that this is how it should be."""
    put(partial(filled, number), folder)
    context = np.ones((3, 4, 1), np.float32)
    forecast = np.full((3, 2, 1, 7), 4 * number, np.float32)
    arrays(folder, context=npy(context), forecast=npy(forecast))


_MADE: dict[str, Callable[[], bytes]] = {
    "the handmade one as it is": forecaster,
    "a loop of 2^40 rounds": loop,
    "a scan over 2^26 steps": scan,
    "a choice": choice,
    "a loop in a branch": loop_in_a_branch,
    "functions that double 40 times": functions_that_double,
    "a function that calls itself": function_that_calls_itself,
    "2^40 numbers from a constant": partial(doubling, 40, constant=True),
    "2^40 numbers from the context": partial(doubling, 40, constant=False),
    "ConstantOfShape of 2^40": partial(constant_of_shape, 1 << 40),
    "ConstantOfShape of 2^62": partial(constant_of_shape, 1 << 62),
    "ConstantOfShape of -1": partial(constant_of_shape, -1),
    "Range to 2^40": partial(count_to, 1 << 40),
    "Range to 2^62": partial(count_to, 1 << 62),
    "a weight of 2^40 rows": partial(dims, 1 << 40, 14),
    "a weight of 2^62 rows": partial(dims, 1 << 62, 14),
    "a weight of -4 rows": partial(dims, -4, -14),
    "a weight without numbers": partial(dims, 0, 14),
    "a forecast of another rank": partial(other_shape, -1, 14),
    "a forecast of another shape": partial(other_shape, -1, 7, 1, 2),
    "a forecast of another batch": partial(other_shape, 2, -1, 1, 7),
    "a failure when run": fails_when_run,
    "branches nested 20 deep": partial(deep, 20),
    "branches nested 200 deep": partial(deep, 200),
    "an input twice": lambda: forecaster(inputs=[IN, IN]),
    "an output twice": lambda: forecaster(outputs=[OUT, OUT]),
    "a weight twice": lambda: forecaster(constants=[tensor("weight", WEIGHT)]),
    "a value made twice": lambda: forecaster(node("Identity", ["none"], ["flat"])),
    "an input that is also a weight": lambda: forecaster(constants=[tensor("context", np.ones((1, 4, 1), np.float32))]),
    "an input of another name": lambda: forecaster(inputs=[value("Context", ["batch", 4, 1])]),
    "an input whose name is not UTF-8": lambda: forecaster(inputs=[IN, value(b"\xff\xfe", [1])]),
    "an axis whose name is not UTF-8": lambda: forecaster().replace(b"\x12\x05batch", b"\x12\x05bat\xff\xfe"),
    "an input that is a sequence": lambda: forecaster(
        inputs=[IN, field(1, "s") + field(2, field(4, field(1, field(1, field(1, 1)))))]
    ),
    "an input without a type": lambda: forecaster(inputs=[field(1, "context")]),
    "a context of 2^40 steps": lambda: forecaster(inputs=[value("context", ["batch", 1 << 40, 1])]),
    "a batch of 1": lambda: forecaster(inputs=[value("context", [1, 4, 1])]),
    "an unknown operator": lambda: forecaster(node("Evil\x1b[2J\n", ["none"], ["e"]), added="e"),
    "an unknown operator whose name is not UTF-8": lambda: forecaster(node("Evil", ["none"], ["e"]), added="e").replace(
        b"Evil", b"\xff\xfe\xfd\xfc"
    ),
    "an unknown domain": lambda: forecaster(
        node("Evil", ["none"], ["e"], domain="evil"), added="e", domains=("", "evil")
    ),
    "a circle": lambda: forecaster(node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"]), added="b"),
    "metadata that is not UTF-8": lambda: forecaster() + metadata("fcast.units", b"\xff"),
    "metadata with an escape": lambda: forecaster() + metadata("fcast.units", b"\x1b[2J\n"),
    "metadata that the manifest contradicts": lambda: forecaster() + metadata("fcast.units", b'["s"]'),
    "no graph": lambda: field(1, 10),
    "an empty graph": lambda: model(b""),
    "ONNX Runtime's own format": lambda: b"\x10\x00\x00\x00ORTM" + bytes(64),
}

CASES: dict[str, Callable[[Path], None]] = {
    **{f"graph: {what}": partial(put, make) for what, make in _MADE.items()},
    **{f"graph: weights of {n}": partial(no_numbers, n) for n in (np.nan, np.inf, -1.0)},
    **{
        f"graph: weights outside, {kind}": partial(reach_out, kind)
        for kind in ("initializer", "initializer up", "memory", "attribute", "sparse attribute", "branch", "function")
    },
}
