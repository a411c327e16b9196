"""No graph may send the runtime to another file, whatever ONNX Runtime would do with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime import ArtifactError, Predictor
from runtime.graph import check_graph_bytes
from tests.runtime.conftest import replace_file
from tests.runtime.onnx_bytes import field


def test_external_data_is_refused_even_where_its_file_exists(
    copied: Callable[[str], Path], artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("requests")
    replace_file(folder, "model.onnx", (artifacts / "external.onnx").read_bytes())
    np.arange(300, dtype=np.float32).tofile(tmp_path / "weight.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ArtifactError, match="model.onnx: expected all weights inside the file, found a tensor with ext"
    ):
        Predictor(folder)


EXTERNAL = field(13, b"location")
TENSOR_PATHS = {
    "initializer": (7, 5),
    "sparse initializer's values": (7, 15, 1),
    "sparse initializer's indices": (7, 15, 2),
    "attribute": (7, 1, 5, 5),
    "attribute's list": (7, 1, 5, 10),
    "attribute's sparse": (7, 1, 5, 22, 1),
    "subgraph": (7, 1, 5, 6, 5),
    "list of subgraphs": (7, 1, 5, 11, 5),
    "function": (25, 7, 5, 5),
    "function's default": (25, 11, 5),
    "training": (20, 1, 5),
}


@pytest.mark.parametrize("path", TENSOR_PATHS.values(), ids=TENSOR_PATHS)
def test_external_data_is_found_wherever_a_tensor_can_stand(path: tuple[int, ...]) -> None:
    data = EXTERNAL
    for number in reversed(path):
        data = field(number, data)
    with pytest.raises(ArtifactError, match="external data"):
        check_graph_bytes(data, where="m")


def test_the_data_location_alone_is_enough() -> None:
    with pytest.raises(ArtifactError, match="external data"):
        check_graph_bytes(field(7, field(5, b"\x70\x01" + field(8, b"location"))), where="m")


def test_the_word_location_elsewhere_does_no_harm() -> None:
    check_graph_bytes(field(7, field(1, field(3, b"location")) + field(5, b"\x70\x00")), where="m")


@pytest.mark.parametrize(
    "tail",
    [
        b"\x3a\x7f",
        b"\x3b",
        b"\x80",
        b"\xff" * 11,
        b"\xba\x80\x80\x80\x10\x00",  # 7 in 32 bits, another field in more
    ],
)
def test_bytes_that_are_no_protobuf_are_refused(tail: bytes) -> None:
    with pytest.raises(ArtifactError, match="m: expected an ONNX file"):
        check_graph_bytes(field(2, b"location") + tail, where="m")


def test_graphs_nested_without_end_are_refused() -> None:
    data = field(2, b"location")
    for _ in range(30):
        data = field(1, field(5, field(6, data)))
    with pytest.raises(ArtifactError, match="nested more than 64 deep"):
        check_graph_bytes(field(7, data), where="m")
