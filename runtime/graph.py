"""Questions about the bytes of an ONNX file that ONNX Runtime would not ask.

Does any tensor keep its numbers in another file? ONNX Runtime follows such references also from a model given as bytes,
relative to the working directory (1.18 even out of it with `../`, and one special location reads raw memory addresses).
An artifact is a single hashed file.

Can any node run more than once? A few bytes make a loop that never ends, or functions that call each other until a
graph of forty nodes has become one of 2^40. The exporters unroll what they can, and a forecaster needs neither.

Both are answered by a walk over the protobuf fields of onnx.proto, only where the bytes hold a word that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import ArtifactError

# message -> field number -> message, for every path of onnx.proto that ends in a TensorProto or a NodeProto.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_FUNCTIONS = 25
_OP_TYPE = 4
_REPEATING = (b"Loop", b"Scan", b"SequenceMap", b"BeamSearch", b"WhisperBeamSearch", b"GreedySearch", b"Sampling")
"""Every operator of ONNX and of ONNX Runtime's own that runs a graph inside it again and again; `If` runs one once."""
_WORDS = (b"location", b"Loop", b"Scan", b"SequenceMap", b"Search", b"Sampling")
"""One of them stands in every file that the walk could refuse."""
_MAX_DEPTH = 64


def check_graph_bytes(data: bytes, *, where: str) -> None:
    """Check that an ONNX file has its numbers inside, and that each of its nodes runs at most once.

    Raises:
        ArtifactError: a tensor refers to other data, a node repeats a graph, the model has functions of its own, or the
            bytes are no ONNX file.
    """
    try:
        # The outermost fields are few, while a function could stand in a file without any of the words.
        functions = any(field == _FUNCTIONS for field, _, _, _ in _fields(memoryview(data)))
        found = set()
        if any(word in data for word in _WORDS):
            found = set(_walk(memoryview(data), "Model", 0))
    except (IndexError, ValueError) as error:
        raise ArtifactError(
            f"{where}: expected an ONNX file, got bytes that are none ({error}); export again"
        ) from None
    if "" in found:
        raise ArtifactError(
            f"{where}: expected all weights inside the file, found a tensor with external data; export it as one file"
        )
    if found:
        raise ArtifactError(
            f"{where}: expected operators that run once, found {', '.join(sorted(found))}; "
            "write that part of the model without a loop"
        )
    if functions:
        raise ArtifactError(
            f"{where}: expected a graph of operators alone, found functions of its own; export it with them inlined"
        )


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    """Yield the name of each operator that repeats a graph, and "" for each tensor whose data lies elsewhere."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    children = _CHILDREN[kind]
    for field, wire, value, content in _fields(message):
        if kind == "Tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and (wire != 0 or value != 0)):
                yield ""
        elif kind == "Node" and field == _OP_TYPE and bytes(content) in _REPEATING:
            yield bytes(content).decode()
        elif wire == 2 and field in children:
            yield from _walk(content, children[field], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield number, wire type, value (of a varint) and content (of a length-delimited field) of each field."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag >> 32:  # the C++ parser would cut it to 32 bits and see another field
            raise ValueError("a tag of more than 32 bits")
        wire = tag & 7
        value = 0
        start = at
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            size, start = _varint(message, at)
            at = start + size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(message):
            raise ValueError("cut short")
        yield tag >> 3, wire, value, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
