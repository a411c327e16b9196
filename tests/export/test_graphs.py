"""The two exports themselves, over every built-in architecture."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.to_onnx import to_onnx
from export.to_torchscript import load_torchscript, to_torchscript
from training.errors import ConfigError
from training.forecaster import Forecaster

CONTEXT, HORIZON, LEVELS = 12, 4, (0.1, 0.5, 0.9)
BATCHES = (1, 2, 3, 17, 256)


def forecaster(
    model: str, *, clock: bool, demand: bool = False, ratio: int = 1, params: dict[str, int] | None = None
) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(
        model=model,
        params=params or {},
        channels=3,
        context=CONTEXT,
        horizon=HORIZON,
        levels=LEVELS,
        calendar=("day", "week") if clock else (),
        demand=demand,
        ratio=ratio,
    ).eval()


def windows(batch: int, *, clock: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scale = np.array([0.5, 2000.0, 300.0])
    found = {"context": torch.from_numpy((rng.exponential(1.0, (batch, CONTEXT, 3)) * scale).astype(np.float32))}
    if clock:
        found["time_s"] = torch.from_numpy(1.7e9 + 1e6 * rng.random(batch))
    return found


def assert_same(got: np.ndarray, model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        expected = model(*inputs.values()).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("clock", [False, True], ids=["plain", "time_s"])
@pytest.mark.parametrize("model", ["gru", "lstm", "dlinear", "transformer"])
def test_onnx_matches_torch_for_every_batch_size(model: str, clock: bool) -> None:
    module = forecaster(model, clock=clock)
    runner = session(to_onnx(module, windows(2, clock=clock)))
    for batch in BATCHES:
        inputs = windows(batch, clock=clock, seed=batch)
        (got,) = runner.run(["forecast"], {name: tensor.numpy() for name, tensor in inputs.items()})
        assert_same(got, module, inputs)


@pytest.mark.parametrize("ratio", [1, 3], ids=["bins", "coarse"])
@pytest.mark.parametrize("clock", [False, True], ids=["plain", "time_s"])
def test_a_model_with_aggregates_gives_both_outputs_in_both_forms(clock: bool, ratio: int, tmp_path: Path) -> None:
    module = forecaster("gru", clock=clock, demand=True, ratio=ratio)
    runner = session(to_onnx(module, windows(2, clock=clock)))
    assert [output.name for output in runner.get_outputs()] == ["forecast", "demand"]
    assert runner.get_outputs()[1].shape == ["batch", HORIZON, 6, len(LEVELS)]
    path = tmp_path / "model.pt"
    path.write_bytes(to_torchscript(module, windows(2, clock=clock)))
    script = load_torchscript(path)
    for batch in BATCHES:
        inputs = windows(batch, clock=clock, seed=batch)
        onnx_outputs = runner.run(["forecast", "demand"], {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            expected, scripted = module(*inputs.values()), script(*inputs.values())
        assert isinstance(scripted, tuple)
        for want, *got in zip(expected, onnx_outputs, scripted, strict=True):
            for found in got:
                np.testing.assert_allclose(found, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clock", [False, True], ids=["plain", "time_s"])
@pytest.mark.parametrize("model", ["gru", "lstm", "dlinear", "transformer"])
def test_torchscript_matches_torch_for_every_batch_size(model: str, clock: bool, tmp_path: Path) -> None:
    module = forecaster(model, clock=clock)
    path = tmp_path / "model.pt"
    path.write_bytes(to_torchscript(module, windows(2, clock=clock)))
    script = load_torchscript(path)
    for batch in BATCHES:
        inputs = windows(batch, clock=clock, seed=batch)
        with torch.no_grad():
            assert_same(script(*inputs.values()).numpy(), module, inputs)


def test_onnx_is_one_file_with_a_dynamic_batch_that_old_runtimes_read() -> None:
    graph = onnx.load_from_string(
        to_onnx(forecaster("gru", clock=True), windows(2, clock=True), metadata={"fcast.kind": '"load"'})
    )
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in [*graph.graph.input, *graph.graph.output]
    }
    assert shapes == {
        "context": (onnx.TensorProto.FLOAT, ["batch", CONTEXT, 3]),
        "time_s": (onnx.TensorProto.DOUBLE, ["batch"]),
        "forecast": (onnx.TensorProto.FLOAT, ["batch", HORIZON, 3, len(LEVELS)]),
    }
    assert graph.ir_version <= 10
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 20)]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert graph.producer_version == version("fcast")
    assert (graph.producer_name, graph.metadata_props[0].key, graph.metadata_props[0].value) == (
        "fcast",
        "fcast.kind",
        '"load"',
    )


def test_the_same_model_gives_the_same_bytes() -> None:
    module, example = forecaster("gru", clock=True), windows(2, clock=True)
    assert to_onnx(module, example) == to_onnx(module, example)


@pytest.mark.parametrize("opset", [17, 19])
def test_every_allowed_opset_exports(opset: int) -> None:
    graph = onnx.load_from_string(to_onnx(forecaster("transformer", clock=False), windows(2, clock=False), opset=opset))
    assert graph.opset_import[0].version == opset


@pytest.mark.parametrize("opset", [16, 21])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    with pytest.raises(ConfigError, match=rf"--opset: expected 17 to 20 \(legacy\), got {opset}"):
        to_onnx(forecaster("dlinear", clock=False), windows(2, clock=False), opset=opset)


class Plain(nn.Module):
    """A user's architecture seen from outside: raw context in, forecast out."""

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        return self.head(context.mean(1))[:, None, :, None].expand(-1, HORIZON, -1, len(LEVELS)).contiguous()

    def head(self, mean: torch.Tensor) -> torch.Tensor:
        return mean


class Unknown(Plain):
    def head(self, mean: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(mean)


class Branching(Plain):
    def head(self, mean: torch.Tensor) -> torch.Tensor:
        return mean if mean.sum() > 0 else -mean


class FixedBatch(Plain):
    def head(self, mean: torch.Tensor) -> torch.Tensor:
        return mean[:2]


def test_an_operator_without_export_is_one_line_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ExportError,
        match=r"operators that the exporter legacy knows at opset 20, got: aten::(special_)?i0 in Unknown: ",
    ) as error:
        to_onnx(Unknown().eval(), windows(2, clock=False))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().out == ""


def test_a_branch_on_data_in_a_users_model_still_warns() -> None:
    with pytest.warns(torch.jit.TracerWarning, match="Converting a tensor to a Python boolean"):
        to_torchscript(Branching().eval(), windows(2, clock=False))


def test_exports_leave_warnings_and_the_fused_encoder_as_they_were() -> None:
    before = list(warnings.filters)
    fused = torch.backends.mha.get_fastpath_enabled()
    to_torchscript(forecaster("transformer", clock=False), windows(2, clock=False))
    to_onnx(forecaster("dlinear", clock=False), windows(2, clock=False))
    assert warnings.filters == before
    assert torch.backends.mha.get_fastpath_enabled() is fused


def test_an_unused_input_is_refused() -> None:
    class Ignoring(nn.Module):
        def forward(self, context: torch.Tensor, time_s: torch.Tensor) -> torch.Tensor:
            return Plain()(context)

    with pytest.raises(ExportError, match="ONNX graph: expected .*time_s"):
        to_onnx(Ignoring().eval(), windows(2, clock=True))
