"""ONNX files written field by field, as the tests of the runtime have no onnx."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TYPES = {"float32": 1, "int64": 7, "bool": 9, "float64": 11}


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content % (1 << 64))
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: np.ndarray, *, dims: Sequence[int] | None = None) -> bytes:
    shape = array.shape if dims is None else dims
    return (
        b"".join(field(1, dim) for dim in shape)
        + field(2, _TYPES[array.dtype.name])
        + field(8, name)
        + field(9, array.tobytes())
    )


def external(name: str, path: str, dims: Sequence[int]) -> bytes:
    """A float32 tensor whose numbers are those of another file."""
    entry = field(13, field(1, "location") + field(2, path))
    return b"".join(field(1, dim) for dim in dims) + field(2, 1) + field(8, name) + entry + field(14, 1)


def graph_attribute(name: str, graph: bytes) -> bytes:
    return field(1, name) + field(6, graph) + field(20, 5)


def tensor_attribute(name: str, content: bytes) -> bytes:
    return field(1, name) + field(5, content) + field(20, 4)


def int_attribute(name: str, value: int) -> bytes:
    return field(1, name) + field(3, value) + field(20, 2)


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes, domain: str = "", name: str = ""
) -> bytes:
    return (
        b"".join(field(1, i) for i in inputs)
        + b"".join(field(2, o) for o in outputs)
        + (field(3, name) if name else b"")
        + field(4, op)
        + b"".join(field(5, a) for a in attributes)
        + (field(7, domain) if domain else b"")
    )


def value(name: str | bytes, dims: Sequence[int | str], kind: str = "float32") -> bytes:
    shape = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, _TYPES[kind]) + field(2, shape)))


def graph(
    nodes: Sequence[bytes], constants: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]
) -> bytes:
    return (
        b"".join(field(1, n) for n in nodes)
        + field(2, "g")
        + b"".join(field(5, c) for c in constants)
        + b"".join(field(11, i) for i in inputs)
        + b"".join(field(12, o) for o in outputs)
    )


def model(body: bytes, *, functions: Sequence[bytes] = (), domains: Sequence[str] = ("",), opset: int = 20) -> bytes:
    imports = b"".join(field(8, field(1, d) + field(2, opset if d == "" else 1)) for d in domains)
    return field(1, 10) + imports + field(7, body) + b"".join(field(25, f) for f in functions)
