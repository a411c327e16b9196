"""The parts of fcast-doctor that need torch: its verdict on torch, and what the self-test trains and exports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from export import doctor_train
from export.doctor_torch import checks, judge
from runtime.cli_doctor import main
from runtime.doctor import FAILED, OK, SKIPPED, WARNING
from runtime.doctor_probe import Driver, Gpu
from runtime.selftest import selftest
from tests.runtime.conftest import cli_runner
from training.registry import model_names

GPU = Gpu(index=0, name="NVIDIA H100", capability=(9, 0), memory_bytes=80 << 30)
NONE, ONE = Driver(), Driver(version="580.65", cuda=(13, 0), gpus=(GPU,), in_machine=True)
NEW = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("cuda", "available", "architectures", "driver", "status", "said"),
    [
        (None, False, [], NONE, OK, "torch 2.13.0, a CPU build"),
        (None, False, [], ONE, WARNING, "a CPU build"),
        ("13.0", False, [], NONE, WARNING, "built for CUDA 13.0, finds no usable GPU"),
        ("13.0", False, [], ONE, FAILED, "finds no usable GPU"),
        ("13.0", True, NEW, ONE, OK, "has code for sm_75 sm_80 sm_90 sm_100 sm_120"),
        (
            "13.0",
            True,
            NEW,
            replace(ONE, gpus=(replace(GPU, capability=(6, 1)),)),
            FAILED,
            "none for NVIDIA H100 (6.1)",
        ),
        ("13.0", True, ["sm_80", "compute_80"], ONE, OK, "has code for sm_80 compute_80"),
        ("13.0", True, ["sm_80", "sm_90a"], ONE, OK, "has code for sm_80 sm_90a"),
        ("13.0", True, ["sm_80"], replace(ONE, gpus=(replace(GPU, capability=(8, 6)),)), OK, "has code for sm_80"),
    ],
)
def test_torch_is_judged_by_what_it_says_of_itself(
    cuda: str | None, available: bool, architectures: list[str], driver: Driver, status: str, said: str
) -> None:
    found = judge("2.13.0", cuda, available, architectures, driver)
    assert found.status == status
    assert said in found.found
    assert (found.remedy == "") == (status == OK)


def test_this_torch_is_looked_at() -> None:
    assert [check.name for check in checks(NONE)] == ["torch"]


# Of docs/OperatorKernels.md of microsoft/onnxruntime (commit 001d12d), CUDAExecutionProvider: those with a kernel for
# float32 at opset 20; Add, Sub, Mul, Div, Floor, Cast and Unsqueeze, which the calendar uses, have one for float64 too.
_NAMES = """
    Abs Add And ArgMax Cast Ceil Clip Concat ConstantOfShape Cos CumSum Div Einsum Elu Equal Erf Exp Expand
    Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool
    Min Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow RNN Range Reciprocal ReduceL1 ReduceL2 ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Selu
    Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Where Xor
"""
CUDA_KERNELS = set(_NAMES.split())


@pytest.mark.parametrize("kind", doctor_train.kinds())
def test_every_operator_of_an_exported_graph_has_a_cuda_kernel(kind: str, tmp_path: Path) -> None:
    run, _ = doctor_train.train(kind, tmp_path / "runs")
    graph = onnx.load(doctor_train.export(run, tmp_path / "artifacts", kind) / "model.onnx").graph
    assert {node.op_type for node in graph.node if node.domain == ""} - CUDA_KERNELS == set()
    assert {node.domain for node in graph.node} == {""}


def test_every_model_of_this_project_is_tried() -> None:
    assert set(doctor_train.kinds()) == {"lstm", "gru", "dlinear", "transformer", "multiscale"} <= set(model_names())


def test_a_model_is_trained_exported_and_tested_on_the_cpu(tmp_path: Path) -> None:
    one = SimpleNamespace(
        **{name: getattr(doctor_train, name) for name in ("train", "export", "device", "gpus", "amp")}
    )
    one.kinds, one.talk = (lambda: ["dlinear"]), (lambda backend: None)
    said: list[str] = []
    found = selftest(
        tmp_path, gpus=[], no_gpu="no CUDA device", artifacts=[], train=one, no_train="", progress=said.append
    )
    assert said == [check.name for check in found]
    status = {check.name: check.status for check in found}
    assert status.pop("two processes over gloo") == OK
    for name in ("cuda graph of dlinear", "memory limit for dlinear", "device auto for dlinear", "amp"):
        assert status.pop(name) == SKIPPED
    assert status.pop("two processes over nccl") == SKIPPED
    assert status == dict.fromkeys(
        (
            "train dlinear",
            "export dlinear",
            "verify dlinear on cpu",
            "nodes of dlinear on cpu",
            "latency of dlinear on cpu",
        ),
        OK,
    )


@pytest.mark.slow
def test_the_whole_self_test_passes_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.cli_doctor.extra", lambda group, name: {"train": doctor_train}[name])
    done = cli_runner().invoke(main, ["--selftest", "--json", "--out", str(tmp_path / "report.json")])
    assert done.exit_code == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert {key: report[key] for key in json.loads(done.stdout)} == json.loads(done.stdout)
    assert {item["status"] for item in report["selftest"]} == {OK, SKIPPED}
    skipped = [item for item in report["selftest"] if item["status"] == SKIPPED]
    assert {item["found"] for item in skipped} == {"no CUDA device"}


@pytest.mark.slow
def test_two_processes_that_cannot_talk_say_why() -> None:
    with pytest.raises(RuntimeError, match=r"backend|Backend"):
        doctor_train.talk("pigeon")
