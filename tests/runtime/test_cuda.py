"""Buffers on a device, CUDA graphs, and the choice between a GPU and the CPU; the GPU is a stand-in, or the CPU."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import CudaOptions, InputError, Predictor, bench_subjects
from runtime.artifact import open_artifact
from runtime.cuda import DeviceSession, is_recurrent, why_not
from runtime.device import Session
from tests.runtime.conftest import ARTIFACTS
from tests.runtime.onnx_bytes import node
from tests.runtime.stand_in_onnxruntime import CPU, Driver, FakeOnnxruntime


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (Driver(missing="libcuda.so.1"), "no NVIDIA driver (libcuda.so.1: cannot open shared object file"),
        (Driver(gpu_code=100), "a driver that finds no usable GPU (cuInit gave 100)"),
        (Driver(version=12040), "a driver for CUDA up to 12.4, while this onnxruntime needs 13"),
        (Driver(missing="libonnxruntime_providers_cuda.so"), "a missing library (libonnxruntime_providers_cuda.so"),
        (Driver(), ""),
    ],
    ids=["no driver", "no GPU", "old driver", "no library", "no complaint"],
)
def test_what_onnxruntime_keeps_silent_about_is_said(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, said: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", driver)
    ort = SimpleNamespace(__file__="/nowhere/onnxruntime/__init__.py", cuda_version="13.0")
    assert why_not(ort)[: max(1, len(said))] == said


def test_auto_takes_the_cpu_where_it_measured_it_to_be_faster(opened: Any) -> None:
    session, fake = opened("slow", "auto")
    assert (session.device, session.providers) == ("cpu", (CPU,))
    assert len(fake.sessions) == 2
    cuda_us, cpu_us = map(
        int,
        re.fullmatch(
            r"measured faster for one window: (\d+) us on cuda:0, (\d+) us on the cpu", session.choice
        ).groups(),
    )
    assert cuda_us >= 2000 > cpu_us
    assert session.stats.read()["runs"]["count"] == 0


def test_auto_takes_the_gpu_where_it_measured_it_to_be_faster(opened: Any) -> None:
    session, _ = opened("works", "auto")
    assert session.device == "cuda:0"
    assert session.choice.startswith("measured faster for one window: ")


def test_auto_takes_the_cpu_where_the_gpu_fails_while_it_is_measured(opened: Any) -> None:
    with pytest.warns(
        RuntimeWarning, match="running on the CPU: CUDA failure 700: an illegal memory access; run fcast-d"
    ):
        session, _ = opened("wears out", "auto")
    assert (session.device, session.choice) == ("cpu", "CUDA does not work: CUDA failure 700: an illegal memory access")


def test_windows_go_through_buffers_on_the_gpu_asked_for(opened: Any) -> None:
    session, _ = opened("works", "cuda:1")
    bound = session.take_binding()
    assert {value.place for value in [*bound._bound.inputs.values(), *bound._bound.outputs.values()]} == {("cuda", 1)}
    bound.context.fill(2)
    bound.run()
    np.testing.assert_array_equal(bound.outputs()["forecast"], np.full((4, 3, 7), 2 * 16 * 3, np.float32))
    assert session.stats.read()["runs"]["count"] == 1


def test_options_reach_the_provider_under_its_names(opened: Any) -> None:
    options = CudaOptions(graph=True, memory_limit_bytes=1 << 28, stream=0x7F00)
    _, fake = opened("works", "cuda", options)
    (_, given), _ = fake.asked[0][0]
    assert {key: given[key] for key in ("gpu_mem_limit", "user_compute_stream", "enable_cuda_graph", "use_tf32")} == {
        "gpu_mem_limit": "268435456",
        "user_compute_stream": "32512",
        "enable_cuda_graph": "1",
        "use_tf32": "0",
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"graph": 1}, "cuda graph: expected True or False, got 1"),
        ({"memory_limit_bytes": 0}, "cuda memory_limit_bytes: expected a whole number from 1, or None, got 0"),
        ({"memory_limit_bytes": "2G"}, "cuda memory_limit_bytes: .*, got '2G'"),
        ({"stream": 0}, "cuda stream: expected a whole number from 1, or None, got 0"),
    ],
)
def test_an_option_that_is_none_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CudaOptions(**wrong)


def test_the_floor_is_measured_on_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxruntime("works")
    monkeypatch.setattr(bench_subjects, "import_onnxruntime", lambda: fake)
    bench_subjects.raw_subjects(b"", np.ones((1, 16, 3), np.float32), None, device="cuda:1", threads=1)
    assert fake.sessions[0].device_id == "1"


def test_options_of_another_type_are_refused_on_a_cpu_too() -> None:
    with pytest.raises(InputError, match=r"cuda: expected CudaOptions or None, got \{'graph': True\}"):
        Predictor(ARTIFACTS / "requests", device="cpu", cuda={"graph": True})  # type: ignore[arg-type]


def test_each_buffer_has_a_graph_of_its_own_and_batches_have_none(opened: Any) -> None:
    session, fake = opened("works", "cuda", CudaOptions(graph=True))
    assert session.cuda_graph == "on"
    first, second = session.take_binding(), session.take_binding()
    seen = fake.sessions[-1].seen
    seen.clear()
    first.run()
    second.run()
    first.run()
    session.run(np.ones((3, 16, 3), np.float32), None)
    assert seen == ["1", "2", "1", "-1"]


@pytest.mark.parametrize(
    ("cuda", "why"),
    [("no graphs", "off: This session cannot use the graph"), ("stale graph", "off: a replayed CUDA graph")],
)
def test_a_graph_that_cannot_be_had_or_is_wrong_is_not_used(opened: Any, cuda: str, why: str) -> None:
    session, fake = opened(cuda, "cuda", CudaOptions(graph=True))
    assert session.device == "cuda:0"
    assert session.cuda_graph.startswith(why)
    assert "enable_cuda_graph" not in fake.asked[-1][0][0][1]
    assert fake.sessions[-1].seen == [None] * 2


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", ["requests", "load", "demand"])
def test_device_buffers_give_what_those_of_numpy_give(name: str, graph: bool) -> None:
    """The code of a GPU, on buffers of the CPU; a graph's run options change nothing there."""
    onnxruntime = pytest.importorskip("onnxruntime")
    artifact = open_artifact(ARTIFACTS / name)
    session = onnxruntime.InferenceSession(
        artifact.read("model.onnx", max_bytes=1 << 20), providers=["CPUExecutionProvider"]
    )
    place = ("cpu", 0)
    on_device = DeviceSession(onnxruntime, session, artifact.manifest, place=place, graph=graph)
    on_device.warm_up()
    plain = Session(onnxruntime, session, artifact.manifest)
    rng = np.random.default_rng(0)
    one, other = on_device.take_binding(), plain.take_binding()
    for _ in range(3):
        one.context[...] = other.context[...] = rng.gamma(1.0, 10.0, one.context.shape)
        one.time_s[...] = other.time_s[...] = 1.7e9 + rng.integers(0, 10**6)
        one.run()
        other.run()
        for output, values in other.outputs().items():
            np.testing.assert_array_equal(one.outputs()[output], values)
        assert one.outputs_are_valid()


@pytest.mark.parametrize(("operator", "recurrent"), [("GRU", True), ("LSTM", True), ("RNN", True), ("Gemm", False)])
def test_a_recurrent_graph_is_told_by_its_operators(operator: str, recurrent: bool) -> None:
    assert is_recurrent(b"weights" + node(operator, ["x"], ["GRU_y"])) is recurrent


def test_a_recurrent_model_is_never_recorded(opened: Any) -> None:
    session, fake = opened("works", "cuda", CudaOptions(graph=True), node("GRU", ["x"], ["y"]))
    assert session.device == "cuda:0"
    assert session.cuda_graph == "off: a recurrent model's cannot be recorded"
    assert [asked[0][0][1].get("enable_cuda_graph") for asked in fake.asked] == [None]
    assert session.facts()["cuda_graph"] == session.cuda_graph


def test_a_new_version_is_opened_with_the_same_options(publish: Callable[..., Path]) -> None:
    folder = publish(1)
    with Predictor(folder, cuda=CudaOptions(memory_limit_bytes=1 << 20)) as p:
        before = p.stats()["device"]
        publish(2, of=2)
        assert p.reload()
        assert p.stats()["device"] == before
