"""One question about the bytes of an ONNX file: does any tensor keep its numbers in another file?

ONNX Runtime follows such references also from a model given as bytes, relative to the working directory (1.18 even
out of it with `../`, and one special location reads raw memory addresses). An artifact is a single hashed file, so the
runtime refuses them itself, with a walk over the protobuf fields of onnx.proto that can hold a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import ArtifactError

# message -> field number -> message, for every path of onnx.proto that ends in a TensorProto.
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
_MAX_DEPTH = 64


def refuse_external_data(data: bytes, *, where: str) -> None:
    """Check that every tensor of an ONNX file has its numbers inside the file.

    Raises:
        ArtifactError: a tensor refers to other data, or the bytes are no ONNX file.
    """
    if b"location" not in data:  # the key without which no external data can be found
        return
    try:
        external = any(_walk(memoryview(data), "Model", 0))
    except (IndexError, ValueError) as error:
        raise ArtifactError(
            f"{where}: expected an ONNX file, got bytes that are none ({error}); export again"
        ) from None
    if external:
        raise ArtifactError(
            f"{where}: expected all weights inside the file, found a tensor with external data; export it as one file"
        )


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[bool]:
    """Yield, for each tensor field that may tell, whether it says that the data lies elsewhere."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    children, at = _CHILDREN[kind], 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag >> 32:  # the C++ parser would cut it to 32 bits and see another field
            raise ValueError("a tag of more than 32 bits")
        field, wire = tag >> 3, tag & 7
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
        if kind == "Tensor":
            yield field == _EXTERNAL_DATA or (field == _DATA_LOCATION and (wire != 0 or value != 0))
        elif wire == 2 and field in children:
            yield from _walk(message[start:at], children[field], depth + 1)


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
