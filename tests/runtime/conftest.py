"""Artifacts of these tests: tiny ones, committed, made by make_artifacts.py."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runtime import CudaOptions, Predictor
from runtime.artifact import open_artifact
from runtime.device import open_session
from runtime.manifest import Manifest, self_sha256

ARTIFACTS = Path(__file__).parent / "artifacts"


@pytest.fixture
def artifacts() -> Path:
    return ARTIFACTS


@pytest.fixture
def requests() -> Predictor:
    """L=16, H=4, three channels, no clock."""
    return Predictor(ARTIFACTS / "requests", device="cpu")


@pytest.fixture
def load() -> Predictor:
    """L=12, H=3, bins of 60 s, three channels, with time_s."""
    return Predictor(ARTIFACTS / "load", device="cpu")


@pytest.fixture
def counts() -> Predictor:
    """L=4, H=2, bins of 10 s, forecast steps of 60 s, the channel `requests` alone."""
    return Predictor(ARTIFACTS / "counts", device="cpu")


@pytest.fixture
def demand() -> Predictor:
    """L=10, H=4, bins of 10 s, forecast steps of 30 s, three channels, with aggregates."""
    return Predictor(ARTIFACTS / "demand", device="cpu")


@pytest.fixture
def manifest() -> Manifest:
    """Of the artifact `requests`."""
    return open_artifact(ARTIFACTS / "requests").manifest


@pytest.fixture
def opened(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens a session of a stand-in for onnxruntime: how its CUDA behaves, the device, options -> both."""
    from tests.runtime.stand_in_onnxruntime import FakeOnnxruntime

    def open_(cuda: str, device: str, options: CudaOptions | None = None, model: bytes = b"") -> Any:
        fake = FakeOnnxruntime(cuda)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)  # type: ignore[arg-type]
        return open_session(model, manifest, device=device, threads=1, where="model.onnx", cuda=options), fake

    return open_


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one version's folder of an artifact, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(ARTIFACTS / name / "1", tmp_path / name / "1"))

    return copy


@pytest.fixture
def edited(copied: Callable[[str], Path]) -> Callable[..., Path]:
    """Copies an artifact and changes keys of its manifest; a value of `...` removes the key. The seal is right."""

    def edit(name: str, /, **changes: Any) -> Path:
        folder = copied(name)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest |= changes
        seal(folder, {key: value for key, value in manifest.items() if value is not ...})
        return folder

    return edit


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Puts a version of `requests` into an artifact of this test's own, see versions.py."""
    from tests.runtime.versions import publish_under

    return partial(publish_under, tmp_path)


def cli_runner() -> CliRunner:
    """Keeps stdout and stderr apart, as click 8.2 does by itself."""
    takes = inspect.signature(CliRunner.__init__).parameters
    return CliRunner(**({"mix_stderr": False} if "mix_stderr" in takes else {}))


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["self_sha256"] = self_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other content in an artifact, as if it had been exported so."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    seal(folder, manifest)
