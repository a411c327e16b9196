"""Which device runs, and what is said when it is not the one asked for. The GPU is a stand-in; nothing else is."""

from __future__ import annotations

import ctypes
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from runtime import ArtifactError, CudaOptions, DeviceError, InputError, MissingDependencyError, Predictor
from runtime.artifact import open_artifact
from runtime.cli_predict import main as predict_command
from runtime.cli_verify import main as verify_command
from runtime.cuda import DeviceSession, why_not
from runtime.device import Session, open_session
from runtime.manifest import Manifest
from tests.runtime.conftest import ARTIFACTS, cli_runner, replace_file

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class FakeValue:
    """A buffer on a device; one that is made from numpy is numpy's own."""

    def __init__(self, array: np.ndarray, place: tuple[str, int] = ("cpu", 0)) -> None:
        self.array, self.place = array, place

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray) -> FakeValue:
        return cls(array)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: list[int], kind: type, device: str, index: int) -> FakeValue:
        return cls(np.zeros(shape, kind), (device, index))

    def update_inplace(self, array: np.ndarray) -> None:
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, FakeValue] = {}
        self.outputs: dict[str, FakeValue] = {}
        self.bind_ortvalue_input = self.inputs.__setitem__
        self.bind_ortvalue_output = self.outputs.__setitem__


class FakeRunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.add_run_config_entry = self.entries.__setitem__


class FakeSession:
    """A session of the `requests` artifact that claims the providers it is told to; it forecasts the context's sum."""

    def __init__(self, providers: list[str], device_id: str, *, run: str = "", takes_s: float = 0.0) -> None:
        self.providers, self.device_id, self.may_fall_back = providers, device_id, True
        self.takes_s, self.how, self.graphs = takes_s, run, dict[str, float]()
        self.seen: list[str | None] = []

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: {"device_id": self.device_id}}

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="context", type="tensor(float)", shape=["batch", 16, 3])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="forecast", type="tensor(float)", shape=["batch", 4, 3, 7])]

    def disable_fallback(self) -> None:
        self.may_fall_back = False

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, bound: FakeBinding, options: FakeRunOptions | None = None) -> None:
        time.sleep(self.takes_s)
        if self.how == "kernel":
            raise RuntimeError("CUDA failure 209: no kernel image is available for execution on the device")
        graph = None if options is None else options.entries["gpu_graph_id"]
        self.seen.append(graph)
        found = float(bound.inputs["context"].array.sum())
        if graph is not None and self.how == "stale graph":  # one that replays what it was recorded with
            found = self.graphs.setdefault(graph, found)
        bound.outputs["forecast"].array[...] = found

    def run(self, names: list[str], feed: dict[str, Any], options: FakeRunOptions | None = None) -> list[Any]:
        self.seen.append(None if options is None else options.entries["gpu_graph_id"])
        sums = feed["context"].sum(axis=(1, 2))
        return [np.broadcast_to(sums[:, None, None, None], (len(sums), 4, 3, 7)).astype(np.float32)]


class FakeOnnxruntime:
    """onnxruntime with CUDA compiled in; `cuda` says what happens when a session asks for it."""

    __version__, __file__ = "9.9", "/nowhere/onnxruntime/__init__.py"
    OrtValue, RunOptions = FakeValue, FakeRunOptions

    def __init__(self, cuda: str) -> None:
        self.cuda = cuda
        self.asked: list[tuple[list[Any], dict[str, Any], SimpleNamespace]] = []
        self.sessions: list[FakeSession] = []
        self.preloaded = 0

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU] if self.cuda != "not built" else [CPU]

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")
        self.preloaded += 1

    def InferenceSession(self, model: bytes, options: Any, *, providers: list[Any], **more: Any) -> FakeSession:  # noqa: N802
        self.asked.append((providers, more, options))
        names = [p if isinstance(p, str) else p[0] for p in providers]
        device_id = "0"
        if CUDA in names:
            if self.cuda == "raises":
                raise RuntimeError("CUDA failure 35: driver version is insufficient\nsecond line")
            if self.cuda == "no graphs" and "enable_cuda_graph" in providers[0][1]:
                raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
            if self.cuda == "falls back":
                names = [CPU]
            else:
                device_id = providers[0][1]["device_id"]
        on_cuda = names[0] == CUDA
        takes_s = {"slow": 2e-3 * on_cuda}.get(self.cuda, 2e-3 * (not on_cuda))
        self.sessions.append(FakeSession(names, device_id, run=self.cuda if on_cuda else "", takes_s=takes_s))
        return self.sessions[-1]


@pytest.fixture
def manifest() -> Manifest:
    return open_artifact(ARTIFACTS / "requests").manifest


@pytest.fixture
def opened(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Session, FakeOnnxruntime]]:
    def open_(cuda: str, device: str, options: CudaOptions | None = None) -> tuple[Session, FakeOnnxruntime]:
        fake = FakeOnnxruntime(cuda)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return open_session(b"", manifest, device=device, threads=1, where="model.onnx", cuda=options), fake

    return open_


@pytest.mark.parametrize(("asked", "got"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_working_gpu_is_taken_and_named(opened: Any, asked: str, got: str) -> None:
    session, fake = opened("works", asked)
    assert session.device == got
    assert session.providers == (CUDA, CPU)
    (cuda, settings), cpu = fake.asked[0][0]
    assert (cuda, cpu) == (CUDA, CPU)
    assert settings == {
        "device_id": got[-1],
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert fake.preloaded == 1


def test_the_cpu_asked_for_never_touches_cuda(opened: Any) -> None:
    session, fake = opened("works", "cpu")
    assert session.device == "cpu"
    assert [asked[0] for asked in fake.asked] == [[CPU]]
    assert fake.preloaded == 0


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [("falls back", "no NVIDIA driver"), ("raises", "CUDA failure 35"), ("kernel", "CUDA failure 209: no kernel")],
)
def test_cuda_asked_for_is_cuda_or_an_error(
    opened: Any, monkeypatch: pytest.MonkeyPatch, cuda: str, reason: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Driver(missing="libcuda.so.1"))
    with pytest.raises(DeviceError, match=rf"device: expected 'cuda:1' to run the model, got {reason}.*fcast-doctor"):
        opened(cuda, "cuda:1")


class Driver:
    """The dynamic loader of a machine with or without an NVIDIA driver."""

    def __init__(self, *, missing: str = "", gpu_code: int = 0, version: int = 13000) -> None:
        self.missing, self.gpu_code, self.version = missing, gpu_code, version

    def __call__(self, name: str, *_: Any) -> Driver:
        if self.missing in Path(name).name and self.missing:
            raise OSError(f"{self.missing}: cannot open shared object file: No such file or directory")
        if name.endswith("cuda.so") and self.missing == "":
            raise OSError(f"{name}: undefined symbol: Provider_GetHost")
        return self

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.gpu_code

    def cuDriverGetVersion(self, found: Any) -> int:  # noqa: N802
        found._obj.value = self.version
        return 0


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


def test_cuda_asked_of_a_wheel_without_it_names_the_one_with_it(opened: Any) -> None:
    with pytest.raises(DeviceError, match=r"got onnxruntime 9.9 without it; .*pip install 'fcast\[gpu\]'"):
        opened("not built", "cuda")


@pytest.mark.parametrize("cuda", ["falls back", "raises"])
def test_auto_falls_to_the_cpu_with_a_warning_and_tells_the_truth(opened: Any, cuda: str) -> None:
    with pytest.warns(RuntimeWarning, match="device: CUDA is built in but does not work, running on the CPU"):
        session, fake = opened(cuda, "auto")
    assert session.device == "cpu"
    assert session.providers == (CPU,)
    assert fake.asked[-1][0] == [CPU]


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
        ({"stream": -1}, "cuda stream: expected a whole number from 0, or None, got -1"),
    ],
)
def test_an_option_that_is_none_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CudaOptions(**wrong)


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


def test_auto_on_a_cpu_wheel_is_no_surprise(opened: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session, _ = opened("not built", "auto")
    assert (session.device, session.choice) == ("cpu", "this onnxruntime has no CUDA")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_session_is_quiet_single_threaded_and_never_moves_by_itself(opened: Any, device: str) -> None:
    _, fake = opened("works", device)
    _, more, options = fake.asked[0]
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1
    assert options.log_severity_level == 4
    assert options.entries["session.intra_op.allow_spinning"] == "0"
    assert options.entries["session.load_model_format"] == "ONNX"
    assert more == {"enable_fallback": 0}
    assert not fake.sessions[0].may_fall_back


@pytest.mark.parametrize("command", [predict_command, verify_command], ids=["predict", "verify"])
def test_what_onnxruntime_prints_stays_off_a_commands_stdout(
    command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxruntime("raises"))  # type: ignore[arg-type]
    done = cli_runner().invoke(command, [str(ARTIFACTS / "requests"), "--device", "cuda"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Failed to load libcudnn.so.9\nError: device: expected 'cuda' to run the model")


def test_a_host_keeps_its_stdout(opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    opened("works", "cuda")
    assert sys.stdout is before
    assert capsys.readouterr() == ("Failed to load libcudnn.so.9\n", "")


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "", "cpu ", None, 0])
def test_a_device_that_is_none_is_refused(device: Any) -> None:
    with pytest.raises(InputError, match="device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got"):
        Predictor(ARTIFACTS / "requests", device=device)


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, "1", 1 << 20])
def test_a_number_of_threads_that_is_none_is_refused(threads: Any) -> None:
    with pytest.raises(InputError, match="threads: expected a whole number from 1 to 1024"):
        Predictor(ARTIFACTS / "requests", device="cpu", threads=threads)


def test_more_threads_give_the_same_forecast() -> None:
    context = np.full((2, 16, 3), 4, np.float32)
    one, two = (Predictor(ARTIFACTS / "requests", device="cpu", threads=n).predict(context) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_a_missing_onnxruntime_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime: expected it installed.*pip install 'fcast\[cpu\]'"):
        Predictor(ARTIFACTS / "requests")


def test_an_onnxruntime_emptied_by_the_other_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match="got an empty one.*pip uninstall both"):
        Predictor(ARTIFACTS / "requests")


def test_the_real_session_says_what_runs(requests: Predictor) -> None:
    assert requests.device == "cpu"
    assert requests.providers == (CPU,)
    assert requests.stats()["device"] == {"name": "cpu", "providers": [CPU], "choice": "asked for"}


def test_bytes_that_are_no_graph_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("requests")
    replace_file(folder, "model.onnx", b"not a graph")
    with pytest.raises(ArtifactError, match=r"model.onnx: expected an ONNX file, got bytes that are none"):
        Predictor(folder, device="cpu")
    replace_file(folder, "model.onnx", b"\x08\x0a")
    with pytest.raises(ArtifactError, match=r"model.onnx: expected a graph that onnxruntime [\d.]+ loads, got"):
        Predictor(folder, device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context": 15}, r"'context' to be tensor\(float\) \(batch, 15, 3\), got tensor\(float\) \(batch, 16, 3\)"),
        ({"horizon": 5}, r"'forecast' to be tensor\(float\) \(batch, 5, 3, 7\)"),
        ({"levels": [0.1, 0.5], "prior": [[1.0, 2.0]] * 3}, r"'forecast' to be tensor\(float\) \(batch, 4, 3, 2\)"),
        ({"inputs": ["context", "time_s"]}, "the inputs context, time_s, got context"),
    ],
)
def test_a_graph_that_differs_from_its_manifest_is_refused(
    edited: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArtifactError, match=f"model.onnx: expected {said}"):
        Predictor(edited("requests", **changes), device="cpu")


def ends(**changes: Any) -> Any:
    session = FakeSession([CPU], "0")
    for name, end in changes.items():
        setattr(session, name, lambda end=end: [SimpleNamespace(**end)])
    return session


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"get_inputs": {"name": "context", "type": "tensor(double)", "shape": ["b", 16, 3]}}, "'context' to be"),
        (
            {"get_inputs": {"name": "context", "type": "tensor(float)", "shape": [2, 16, 3]}},
            r".* got tensor\(float\) \(2, 16",
        ),
        ({"get_inputs": {"name": "x", "type": "tensor(float)", "shape": ["b", 16, 3]}}, "the inputs context, got x"),
        ({"get_outputs": {"name": "y", "type": "tensor(float)", "shape": ["b", 4, 3, 7]}}, "the outputs forecast"),
        ({"get_outputs": {"name": "forecast", "type": "tensor(float)", "shape": ["b", 4, 3]}}, "'forecast' to be"),
    ],
)
def test_wrong_ends_of_a_graph_are_refused(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, changes: Any, said: str
) -> None:
    fake = FakeOnnxruntime("not built")
    monkeypatch.setattr(fake, "InferenceSession", lambda *_, **__: ends(**changes))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=f"m: expected {said}"):
        open_session(b"", manifest, device="cpu", threads=1, where="m")
