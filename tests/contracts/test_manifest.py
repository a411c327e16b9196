"""Schema 1 of manifest.json and the files of an artifact: what export writes today and what is already out there."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Predictor
from runtime.manifest import SCHEMA

TESTS = Path(__file__).parents[1]
COMMITTED = sorted([*TESTS.glob("runtime/artifacts/*/[0-9]*"), *TESTS.glob("data/artifacts/*/*/[0-9]*")])
"""Artifacts of schema 1 that every later version must still read."""

NUMBER = (int, float)
KEYS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "name": str,
    "version": int,
    "created": str,
    "kind": str,
    "channels": list,
    "units": list,
    "clock": str,
    "bin_s": (*NUMBER, type(None)),
    "step_s": (*NUMBER, type(None)),
    "gap_s": NUMBER,
    "context": int,
    "horizon": int,
    "levels": list,
    "inputs": list,
    "outputs": list,
    "architecture": str,
    "params": dict,
    "precision": str,
    "opset": int,
    "exporter": str,
    "prior": list,
    "checkpoint_sha256": str,
    "config_sha256": str,
    "trace": dict,
    "scores": dict,
    "libraries": dict,
    "step": dict,
    "files": dict,
    "self_sha256": str,
}


@pytest.fixture(scope="module", params=["requests", "load"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder that export published a moment ago."""
    from export.artifact import export_checkpoint
    from tests.export.conftest import train

    folder = tmp_path_factory.mktemp("contract")
    calendar = {"requests": "none", "load": "day+week"}[request.param]
    run = train(folder / "runs" / "dlinear", series=request.param, model="dlinear", calendar=calendar)
    return export_checkpoint(run, formats=("torchscript",), out=folder / "artifacts").path


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


LATER = {"outputs", "config_sha256"}
"""Keys that the first artifacts of schema 1 do not have."""
STATEFUL = {"step"}
"""Of stateful models alone."""


def check_keys(manifest: dict[str, Any]) -> None:
    assert set(manifest) | LATER | STATEFUL == set(KEYS)
    wrong = {key: type(v).__name__ for key, v in manifest.items() if not isinstance(v, KEYS[key])}
    assert wrong == {}
    assert manifest["schema"] == SCHEMA == 1


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    said = manifest["files"]
    assert {path.name for path in folder.iterdir()} == {*said, "manifest.json"}
    assert (
        {"model.onnx", "parity.json", "golden.npz"}
        <= set(said)
        <= {
            "model.onnx",
            "step.onnx",
            "model.pt",
            "parity.json",
            "golden.npz",
        }
    )
    assert ("step.onnx" in said) == ("step" in manifest)
    for name, entry in said.items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    config = (folder.parent / "config.pbtxt").read_bytes()
    assert manifest.get("config_sha256") in (None, hashlib.sha256(config).hexdigest())


def check_seal(manifest: dict[str, Any]) -> None:
    # Written out once more, as docs/artifact.md gives it: a reader in another language must come to the same.
    body = {key: value for key, value in manifest.items() if key != "self_sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    assert manifest["self_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def check_golden(folder: Path, manifest: dict[str, Any]) -> None:
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        arrays = {name: golden[name] for name in golden.files}
    channels, levels = len(manifest["channels"]), len(manifest["levels"])
    count = len(arrays["context"])
    assert count > 0
    expected = {
        "context": (np.float32, (count, manifest["context"], channels)),
        "forecast": (np.float32, (count, manifest["horizon"], channels, levels)),
    }
    if "demand" in manifest.get("outputs", []):
        expected["demand"] = (np.float32, (count, manifest["horizon"], 2 * channels, levels))
    if "time_s" in manifest["inputs"]:
        expected["time_s"] = (np.float64, (count,))
    assert {name: (array.dtype.type, array.shape) for name, array in arrays.items()} == expected


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: "-".join(folder.parts[-3:]))
def test_committed_artifact_is_of_schema_1_and_loads(folder: Path) -> None:
    manifest = read_manifest(folder)
    check_keys(manifest)
    check_files(folder, manifest)
    check_seal(manifest)
    check_golden(folder, manifest)
    assert Predictor(folder, device="cpu").manifest["self_sha256"] == manifest["self_sha256"]


def test_exported_artifact_is_of_schema_1_and_loads(exported: Path) -> None:
    manifest = read_manifest(exported)
    check_keys(manifest)
    assert set(manifest) >= LATER
    check_files(exported, manifest)
    check_seal(manifest)
    check_golden(exported, manifest)
    predictor = Predictor(exported.parent, device="cpu")
    assert predictor.manifest["version"] == manifest["version"] == int(exported.name) == 1


def test_artifacts_with_and_without_the_later_keys_are_committed() -> None:
    found = {frozenset(LATER & set(read_manifest(folder))) for folder in COMMITTED}
    assert found == {frozenset(), frozenset({"config_sha256"}), frozenset(LATER)}


def test_exported_manifest_says_what_the_graph_gives(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert set(manifest) >= LATER
    assert manifest["outputs"] in (["forecast"], ["forecast", "demand"])


def test_exported_manifest_says_where_the_model_comes_from(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert manifest["name"] == exported.parent.name
    assert datetime.fromisoformat(manifest["created"]).utcoffset() == timedelta(0)
    assert re.fullmatch("[0-9a-f]{64}", manifest["checkpoint_sha256"])
    assert {"fingerprint", "sources", "rows", "first_s", "last_s", "clock"} <= set(manifest["trace"])
    assert set(manifest["libraries"]) == {"training", "export"}
    assert {"fcast", "torch", "numpy"} <= set(manifest["libraries"]["training"])
    assert {"fcast", "torch", "onnx", "onnxruntime", "numpy"} <= set(manifest["libraries"]["export"])
    assert manifest["scores"]
    assert (manifest["bin_s"] is None) == (manifest["kind"] == "requests") == (manifest["step_s"] is None)
    assert np.shape(manifest["prior"]) == (len(manifest["channels"]), len(manifest["levels"]))


def test_exported_parity_report_says_what_was_compared(exported: Path) -> None:
    report = json.loads((exported / "parity.json").read_text(encoding="utf-8"))
    assert {check["format"] for check in report["checks"]} == {"onnx", "torchscript"}
    assert {1, 3, 17, 256} <= {check["batch"] for check in report["checks"]}
    assert all({"format", "batch", "provider", "max_abs", "max_rel"} <= set(check) for check in report["checks"])


def test_artifact_names_no_folder_of_the_machine(exported: Path) -> None:
    for path in exported.iterdir():
        assert str(exported.parents[2]).encode() not in path.read_bytes(), path.name
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes(), path.name
