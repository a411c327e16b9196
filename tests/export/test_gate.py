"""The gate as a whole: every way of running what is staged, on real and edge windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.artifact import export_checkpoint
from export.edge_windows import SPIKE, edge_windows, in_batches
from export.errors import ExportError, ParityError
from export.gate import BATCHES, prove
from export.parity import tolerance
from tests.runtime.conftest import replace_file
from training.checkpoint import load_checkpoint

CHANNELS = ("requests", "request_tokens")
INPUTS = {
    "context": np.random.default_rng(0).gamma(2.0, 50.0, (20, 6, 2)).astype(np.float32),
    "time_s": 1.7e9 + 60.0 * np.arange(20),
}


def test_edge_windows_hold_what_a_trace_seldom_does() -> None:
    names, edges = edge_windows(INPUTS, CHANNELS)
    windows = dict(zip(names, edges["context"], strict=True))
    assert len(set(names)) == len(names)
    assert edges["context"].dtype == np.float32
    assert not windows["all zeros"].any()
    assert (windows["constant, the largest seen"] == INPUTS["context"].max((0, 1))).all()
    assert (windows["constant, the smallest seen"] == INPUTS["context"].min((0, 1))).all()
    for channel, name in enumerate(CHANNELS):
        spiked = windows[f"1e6 {name} in the last step"]
        assert spiked[-1, channel] == SPIKE
        assert (spiked == SPIKE).sum() == 1
        assert any((spiked[:-1] == window[:-1]).all() for window in INPUTS["context"])
    assert len(np.unique(windows["constant, one step repeated"], axis=0)) == 1
    assert np.count_nonzero(windows["silence but for the last step"].any(1)) == 1
    assert {0.0, 4_102_444_800.0} < set(edges["time_s"])


def test_a_model_without_a_clock_has_no_edge_times() -> None:
    names, edges = edge_windows({"context": INPUTS["context"]}, CHANNELS)
    assert set(edges) == {"context"}
    assert not any(name.startswith("time") for name in names)


@pytest.mark.parametrize("batch", [1, 2, 3, 17, 256])
def test_every_window_is_in_a_batch_and_every_edge_window_beside_real_ones(batch: int) -> None:
    batches = in_batches(np.arange(60), np.arange(60, 75), batch)
    assert {len(picked) for picked in batches} == {batch}
    assert set(np.concatenate(batches)) == set(range(75))
    if batch > 1:
        assert all((picked < 60).any() for picked in batches)


def test_every_way_of_running_what_is_staged_is_checked(load_run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(load_run, formats=("onnx", "torchscript"), out=tmp_path)
    checks = published.checks
    served = [check for check in checks if (check.level, check.threads) == ("all", 1)]
    for form in ("onnx", "torchscript"):
        assert [check.batch for check in served if check.format == form] == list(BATCHES)
    levels = {"disabled", "basic", "extended", "all"}
    levels |= {"layout"} if hasattr(ort.GraphOptimizationLevel, "ORT_ENABLE_LAYOUT") else set()
    assert {check.level for check in checks if check.format == "onnx"} == levels
    assert {check.threads for check in checks if check.format == "onnx"} == {1, 4}
    assert {check.threads for check in checks if check.format == "torchscript"} == {1, 4}
    assert {check.provider for check in checks} == {"CPUExecutionProvider", "torch.jit cpu"}
    assert all(check.edges > 0 for check in checks)
    assert len((published.path / "parity.json").read_bytes()) < 100_000


def frozen_to_one(graph: bytes, *, openly: bool) -> bytes:
    """`view(-1, H, V, Q)` as an exporter writes it that took the batch of its example for a constant."""
    model = onnx.load_from_string(graph)
    at, node = next((i, n) for i, n in enumerate(model.graph.node) if n.name == "/members.0/head/Reshape")
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    found = onnx.numpy_helper.to_array(shape).copy()
    found[0] = 1
    if openly:
        shape.CopyFrom(onnx.numpy_helper.from_array(found, shape.name))
    else:  # computed on the way, so that the graph's outputs still look as if they had a batch
        for name, values in (("frozen", found.astype(np.float32)), ("none", np.zeros((), np.float32))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node.input[1] = "frozen_shape"
        for made in (
            onnx.helper.make_node("Cast", ["moved"], ["frozen_shape"], to=onnx.TensorProto.INT64),
            onnx.helper.make_node("Add", ["nothing", "frozen"], ["moved"]),
            onnx.helper.make_node("Mul", ["most", "none"], ["nothing"]),
            onnx.helper.make_node("ReduceMax", ["context"], ["most"], keepdims=0),
        ):
            model.graph.node.insert(at, made)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("openly", "error", "said"),
    [
        (True, ExportError, r"runtime: .*expected 'forecast' to be .*\(batch, 4, 3, 7\), got .*\(1, 4, 3, 7\)"),
        (False, ParityError, r"from onnx at batch 2 .* running Reshape node. Name:'/members.0/head/Reshape'"),
    ],
    ids=["the graph says so", "the graph hides it"],
)
def test_a_batch_silently_frozen_to_one_is_caught(
    load_run: Path, tmp_path: Path, openly: bool, error: type[Exception], said: str
) -> None:
    staged = export_checkpoint(load_run, out=tmp_path).path
    replace_file(staged, "model.onnx", frozen_to_one((staged / "model.onnx").read_bytes(), openly=openly))
    checkpoint = load_checkpoint(load_run)
    inputs = {name: checkpoint.windows[name] for name in ("context", "time_s")}
    with pytest.raises(error, match=said) as raised:
        prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))
    assert "onnx at batch 1," not in str(raised.value)  # which is all that this graph can do


def test_a_static_batch_file_is_proven_at_its_batch(load_run: Path, tmp_path: Path) -> None:
    staged = export_checkpoint(load_run, out=tmp_path).path
    model = onnx.load(staged / "model.onnx")
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, staged / "model.batch2.onnx")
    checkpoint = load_checkpoint(load_run)
    inputs = {name: checkpoint.windows[name] for name in ("context", "time_s")}
    checks = prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))
    found = [check for check in checks if check.format == "onnx-batch2"]
    assert [check.batch for check in found] == [2]
    assert found[0].edges > 0


def test_a_form_that_does_not_load_fails_with_what_is_said_of_that(requests_run: Path, tmp_path: Path) -> None:
    staged = export_checkpoint(requests_run, out=tmp_path).path
    (staged / "model.batch2.onnx").write_bytes(b"no graph")
    (staged / "model.pt").write_bytes(b"no script")
    checkpoint = load_checkpoint(requests_run)
    inputs = {"context": checkpoint.windows["context"]}
    with pytest.raises(
        ParityError, match=r"onnx-batch2 at batch 2 .* got \[ONNXRuntimeError\].*torchscript at batch 1,"
    ):
        prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))


def test_the_report_tells_float32_torchs_own_distance(requests_run: Path, tmp_path: Path) -> None:
    report = json.loads((export_checkpoint(requests_run, out=tmp_path).path / "parity.json").read_text())
    assert report["reference"].endswith("float64")
    assert 1e-8 < report["float32_torch"]["scaled"] < 1e-5
    assert report["edge_windows"] > 10
    assert {"max_abs", "max_rel", "scaled", "float32", "drift", "channels"} <= set(report["checks"][0])
