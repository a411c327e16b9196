"""A failed proof names the node that is to blame, on graphs broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from export import artifact
from export.artifact import export_checkpoint
from export.cli_export import main
from export.diverge import first_divergence
from export.errors import ParityError
from export.to_onnx import to_onnx
from tests.export.test_graphs import forecaster, windows

Edit = Callable[[onnx.ModelProto], None]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def change(model: onnx.ModelProto, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(how(values.copy()).astype(values.dtype), name))


def swap_gates(model: onnx.ModelProto) -> None:
    """Update before reset becomes reset before update, as a hand-written conversion has it."""
    gru = next(node for node in model.graph.node if node.op_type == "GRU")
    hidden = next(attribute.i for attribute in gru.attribute if attribute.name == "hidden_size")

    def swapped(values: np.ndarray) -> np.ndarray:
        first, second, *rest = np.split(values, values.shape[1] // hidden, axis=1)
        return np.concatenate([second, first, *rest], axis=1)

    for weight in gru.input[1:4]:
        change(model, weight, swapped)


def scale_unit(model: onnx.ModelProto) -> None:
    """The unit that brings a forecast back to raw numbers, 0.000004 of it too large."""
    change(model, "quantiles.unit", lambda unit: unit * (1 + 4e-6))


def swap_clock(model: onnx.ModelProto) -> None:
    """The clock's cosines before its sines instead of after them."""
    change(model, "clock.ahead", lambda ahead: ahead[::-1])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """Makes the exporter give wrong graphs."""
    exported = artifact.to_onnx

    def set_edit(edit: Edit) -> None:
        def wrong(*args: Any, **options: Any) -> bytes:
            model = onnx.load_from_string(exported(*args, **options))
            edit(model)
            return model.SerializeToString()

        monkeypatch.setattr(artifact, "to_onnx", wrong)

    return set_edit


@pytest.mark.parametrize(
    ("run", "edit", "said"),
    [
        (
            "requests_run",
            swap_gates,
            r"members\.0\.network\.rnn \(GRU\), .* node /members\.0/network/rnn/GRU \(GRU\), ",
        ),
        (
            "requests_run",
            scale_unit,
            r"quantiles \(LeanQuantiles\), aten\.mul.* node /quantiles/Mul \(Mul\), output ",
        ),
        ("load_run", scale_unit, r"quantiles \(LeanQuantiles\), aten\.mul.* node /quantiles/Mul_1 \(Mul\), output "),
        ("load_run", swap_clock, r"clock \(LeanClock\), aten\.sin.* node /clock/Sin \(Sin\), output "),
        (
            "load_run",
            lambda model: change(model, "members.0.head.head.bias", lambda bias: bias + 1e-3),
            r"members\.0\.head\.head \(Linear\), aten\.addmm.* node /members\.0/head/head/Gemm \(Gemm\), output ",
        ),
    ],
    ids=["gates in the wrong order", "a constant's 6th digit", "the same with a clock", "swapped features", "a bias"],
)
def test_the_first_wrong_node_is_named_beside_its_torch_module(
    request: pytest.FixtureRequest, broken: Callable[[Edit], None], tmp_path: Path, run: str, edit: Edit, said: str
) -> None:
    broken(edit)
    with pytest.raises(ParityError, match=f"nothing was published; first difference: torch {said}") as error:
        export_checkpoint(request.getfixturevalue(run), out=tmp_path, exporter="legacy")
    assert "between node" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_it_in_one_line(
    requests_run: Path, broken: Callable[[Edit], None], tmp_path: Path
) -> None:
    broken(swap_gates)
    result = CliRunner().invoke(main, [str(requests_run), "--out", str(tmp_path), "--exporter", "legacy"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "first difference: torch members.0.network.rnn (GRU)" in result.stderr
    assert result.stderr.count("\n") == 1


def first(edit: Edit, model: str = "transformer", **params: int) -> str | None:
    """What is said of an edited graph of an untrained model."""
    module = forecaster(model, clock=False, params=params)
    with torch.no_grad():
        for parameter in module.parameters():  # no two alike: onnxslim keeps one of equal ones
            parameter += 0.1 * torch.randn_like(parameter)
    graph = onnx.load_from_string(to_onnx(module, windows(2, clock=False)))
    edit(graph)
    inputs = {name: tensor.numpy() for name, tensor in windows(32, clock=False).items()}
    return first_divergence(module, graph.SerializeToString(), inputs)


def swap_axes(model: onnx.ModelProto) -> None:
    """Keys in the place of their transpose: heads of 12 over 12 steps fit either way."""
    keys = node(model, "/network/layers.0/Transpose_1").attribute[0]
    assert list(keys.ints) == [0, 1, 3, 2]
    keys.ints[:] = [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda model: change(model, "network.layers.1.norm_mlp.weight", lambda weight: weight * 1.001),
            "torch network.layers.1.norm_mlp (LayerNorm), aten.native_layer_norm.default, gives ",
        ),
        (
            lambda model: change(model, "network.layers.0.qkv.bias", lambda bias: bias + 0.01),
            "between node /network/layers.0/qkv/MatMul (MatMul) and here, torch network.layers.0.qkv (Linear), ",
        ),
    ],
    ids=["a norm", "a bias that torch adds in the product"],
)
def test_the_module_is_right_where_exporters_split_operations(edit: Edit, said: str) -> None:
    found = first(edit)
    assert found is not None
    assert found.startswith(f"first difference: {said}")


def test_an_axis_swapped_inside_attention_is_placed_in_its_layer() -> None:
    found = first(swap_axes, d_model=48, nhead=4)
    assert found is not None
    assert "torch network.layers.0 (_Layer), aten.bmm.default, gives " in found
    assert "node /network/layers.0/MatMul (MatMul), output " in found


def test_a_right_graph_has_no_first_difference() -> None:
    assert first(lambda model: None) is None
    assert first(lambda model: None, "gru") is None


def test_a_graph_that_cannot_run_adds_nothing_to_the_error() -> None:
    assert first(lambda model: node(model, "/head/Gemm").input.__setitem__(0, "context")) is None
