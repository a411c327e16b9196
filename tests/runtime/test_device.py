"""Which device runs, and what is said when it is not the one asked for. The GPU is a stand-in; nothing else is."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from runtime import ArtifactError, DeviceError, InputError, MissingDependencyError, Predictor
from runtime.cli_predict import main as predict_command
from runtime.cli_verify import main as verify_command
from runtime.device import open_session
from runtime.manifest import Manifest
from tests.runtime.conftest import ARTIFACTS, cli_runner, replace_file
from tests.runtime.stand_in_onnxruntime import CPU, CUDA, Driver, FakeOnnxruntime, FakeSession


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
