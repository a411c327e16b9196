"""From a trained checkpoint to an artifact, with nothing replaced."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export import artifact
from export.artifact import export_checkpoint
from export.errors import ExportError, ParityError
from export.gate import prove
from export.lean import LeanModel
from export.manifest import manifest_bytes
from export.parity import tolerance, torch_forecast
from export.to_torchscript import load_torchscript
from runtime import Predictor
from runtime.artifact import open_artifact
from runtime.verify import verify
from tests.export.conftest import train
from training.checkpoint import Checkpoint, load_checkpoint
from training.errors import CheckpointError


def first_windows(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    names = ["context", "time_s"] if checkpoint.model.takes_time else ["context"]
    return {name: checkpoint.windows[name][:5] for name in names}


RUNS = pytest.mark.parametrize("run", ["requests_run", "load_run"], indirect=True, ids=["plain", "time_s"])


@RUNS
@pytest.mark.parametrize("formats", [("onnx",), ("torchscript",), ("onnx", "torchscript")], ids="+".join)
def test_an_artifact_serves_what_the_checkpoint_forecasts(run: Path, formats: tuple[str, ...], tmp_path: Path) -> None:
    published = export_checkpoint(run, formats=formats, out=tmp_path, name="chat")
    assert published.path == tmp_path / "chat/1"

    checkpoint = load_checkpoint(run)
    inputs = first_windows(checkpoint).values()
    expected = torch_forecast(checkpoint.model)(*inputs)
    served = [Predictor(tmp_path / "chat").predict_outputs(*inputs)]
    if "torchscript" in formats:
        served.append(torch_forecast(load_torchscript(published.path / "model.pt"))(*inputs))
    for got in served:
        assert got.keys() == expected.keys()
        for name, output in got.items():
            np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-4)

    files = {"model.onnx", "parity.json", "golden.npz", *(["model.pt"] if "torchscript" in formats else [])}
    assert set(published.files) == files | {"manifest.json"}
    assert {check.format for check in published.checks} == {"onnx", *formats}


@RUNS
def test_the_manifest_is_complete_sealed_and_accepted_by_the_runtime(run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(run, out=tmp_path)
    found = open_artifact(published.path)
    for file in found.manifest.files:
        found.check(file)
    raw = json.loads((published.path / "manifest.json").read_bytes())
    checkpoint = load_checkpoint(run)
    assert raw["self_sha256"] == hashlib.sha256(canonical(raw)).hexdigest()
    assert set(raw["files"]) == {"model.onnx", "parity.json", "golden.npz"}
    assert (raw["schema"], raw["version"], raw["precision"], raw["opset"], raw["exporter"]) == (
        1,
        1,
        "fp32",
        20,
        "legacy",
    )
    assert raw["checkpoint_sha256"] == checkpoint.sha256
    for key in ("kind", "channels", "units", "clock", "bin_s", "step_s", "gap_s", "levels", "prior", "trace", "scores"):
        assert raw[key] == checkpoint.meta[key]
    assert raw["name"] == raw["architecture"] == checkpoint.meta["model"]["name"]
    assert {"torch", "onnx", "numpy", "python"} <= set(raw["libraries"]["export"])


AGGREGATES = pytest.mark.parametrize("run", ["load_run", "coarse_run"], indirect=True)


@AGGREGATES
def test_a_model_with_aggregates_is_published_proven_verified_and_served(run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(run, formats=("onnx", "torchscript"), out=tmp_path, name="demand")
    raw = json.loads((published.path / "manifest.json").read_bytes())
    assert raw["outputs"] == ["forecast", "demand"]
    assert '{ name: "demand" data_type: TYPE_FP32 dims: [ 4, 6, 7 ] }' in (tmp_path / "demand/config.pbtxt").read_text()
    inputs = first_windows(load_checkpoint(run))
    expected = torch_forecast(load_checkpoint(run).model)(*inputs.values())
    predictor = Predictor(published.path)
    served = predictor.predict_outputs(**inputs)
    np.testing.assert_allclose(served["demand"], expected["demand"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(predictor.predict(**inputs), served["forecast"])
    verified = verify(published.path, device="cpu")
    assert verified.problems == []
    assert {check.output for check in verified.forecasts} == {"forecast", "demand"}


def test_steps_of_several_bins_are_served_from_a_stream(coarse_run: Path, tmp_path: Path) -> None:
    predictor = Predictor(export_checkpoint(coarse_run, out=tmp_path).path, adapt=True)
    assert (predictor.manifest["bin_s"], predictor.manifest["step_s"]) == (30.0, 90.0)
    rows = np.random.default_rng(0).integers(0, 50, (40, 3)).astype(np.float32)
    for i, row in enumerate(rows):
        start_s = 1.7e9 // 30 * 30 + i * 30
        predictor.observe_bin(start_s, *row)
        forecast = predictor.forecast()
        assert forecast.start_s == start_s + 30
    assert (forecast.step_s, forecast.source) == (90.0, "model+adaptive")
    np.testing.assert_array_equal(forecast.aggregates, predictor.predict_outputs(rows[-12:], start_s)["demand"])
    longest = forecast.demand(4 * 90.0)
    assert (longest >= forecast.demand(90.0)).all()
    assert (forecast.peak(4 * 90.0) > 0).all()


def test_aggregates_that_differ_are_not_published(
    load_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = artifact.to_onnx

    def other(model: LeanModel, *args: Any, **options: Any) -> bytes:
        changed = copy.deepcopy(model)
        changed.quantiles.unit[:, 3:6] *= 1.01  # of the sums
        return exported(changed, *args, **options)

    monkeypatch.setattr(artifact, "to_onnx", other)
    with pytest.raises(ParityError, match="demand, step .*, channel sum of .*, level .*nothing was published"):
        export_checkpoint(load_run, out=tmp_path, exporter="legacy")
    assert list(tmp_path.iterdir()) == []


def canonical(raw: dict[str, object]) -> bytes:
    body = {key: value for key, value in raw.items() if key != "self_sha256"}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def test_nothing_in_an_artifact_depends_on_where_it_was_made(load_run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(load_run, formats=("onnx", "torchscript"), out=tmp_path)
    here = str(Path(__file__).parents[2])
    for file in published.path.iterdir():
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for place in (str(tmp_path), here, "site-packages"):
            assert not any(place.encode() in content for content in contents), (file.name, place)
    assert str(load_run).encode() not in (published.path / "manifest.json").read_bytes()


@RUNS
def test_golden_windows_are_real_and_hold_the_trained_models_forecasts(run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(run, out=tmp_path)
    golden = np.load(published.path / "golden.npz", allow_pickle=False)
    checkpoint = load_checkpoint(run)
    outputs = ["forecast", "demand"] if checkpoint.model.forecasts_demand else ["forecast"]
    assert set(golden) == {"context", *outputs, *(["time_s"] if checkpoint.model.takes_time else [])}
    assert len(golden["context"]) == min(64, len(checkpoint.windows["context"]))
    assert {name: golden[name].dtype for name in golden} == {
        name: np.float64 if name == "time_s" else np.float32 for name in golden
    }
    kept = {window.tobytes() for window in checkpoint.windows["context"]}
    assert all(window.tobytes() in kept for window in golden["context"])
    inputs = [golden[name] for name in ("context", "time_s") if name in golden]
    for name, output in torch_forecast(checkpoint.model)(*inputs).items():
        np.testing.assert_array_equal(output, golden[name])


def with_one_weight_changed(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    weight = max(model.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model.SerializeToString()


def test_one_wrong_weight_fails_parity_through_the_runtime(requests_run: Path, tmp_path: Path) -> None:
    staged = export_checkpoint(requests_run, out=tmp_path).path
    (staged / "model.onnx").write_bytes(with_one_weight_changed((staged / "model.onnx").read_bytes()))
    raw = json.loads((staged / "manifest.json").read_bytes())
    facts = {key: value for key, value in raw.items() if key not in ("version", "files", "self_sha256")}
    sealed = manifest_bytes(facts, version=1, folder=staged, files=sorted(raw["files"]))
    (staged / "manifest.json").write_bytes(sealed)
    checkpoint = load_checkpoint(requests_run)
    inputs = {"context": checkpoint.windows["context"]}
    with pytest.raises(ParityError, match=r"from onnx \(CPUExecutionProvider\) at batch \d+, window \d+, forecast, st"):
        prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))


def test_nothing_is_published_when_the_exported_graph_is_wrong(
    requests_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = artifact.to_onnx
    monkeypatch.setattr(artifact, "to_onnx", lambda *a, **k: with_one_weight_changed(exported(*a, **k)))
    with pytest.raises(ParityError, match="nothing was published"):
        export_checkpoint(requests_run, out=tmp_path, exporter="legacy")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_forecasts_nan_is_refused(requests_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(requests_run)
    staged = export_checkpoint(requests_run, out=tmp_path).path
    with torch.no_grad():
        checkpoint.model.head.bias[0] = float("nan")
    inputs = {"context": checkpoint.windows["context"]}
    with pytest.raises(ParityError, match="expected nan within"):
        prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))


def test_a_folder_that_the_runtime_refuses_is_not_published(requests_run: Path, tmp_path: Path) -> None:
    staged = export_checkpoint(requests_run, out=tmp_path).path
    (staged / "model.onnx").write_bytes(b"no graph")
    checkpoint = load_checkpoint(requests_run)
    inputs = {"context": checkpoint.windows["context"]}
    with pytest.raises(ExportError, match=r"runtime: .*model\.onnx"):
        prove(checkpoint, staged, inputs, within=tolerance(inputs["context"]))


def test_a_retrained_model_is_the_next_version_of_the_same_contract(requests_run: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "runs/gru", series="requests", model="gru", calendar="none", seed=1)
    out = tmp_path / "artifacts"
    first, second = export_checkpoint(requests_run, out=out), export_checkpoint(again, out=out)
    assert (first.version, second.version) == (1, 2)
    assert Predictor(out / "gru").manifest["version"] == 2
    assert (first.path / "model.onnx").read_bytes() != (second.path / "model.onnx").read_bytes()


def test_another_contract_needs_another_name(requests_run: Path, load_run: Path, tmp_path: Path) -> None:
    export_checkpoint(requests_run, out=tmp_path, name="chat")
    with pytest.raises(ExportError, match="expected the contract of its other versions.*choose another --name"):
        export_checkpoint(load_run, out=tmp_path, name="chat")
    assert sorted(path.name for path in (tmp_path / "chat").glob("[!.]*")) == ["1", "config.pbtxt"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a run folder of fcast-train"):
        export_checkpoint(tmp_path, out=tmp_path / "artifacts")
    assert not (tmp_path / "artifacts").exists()
