"""The step graph of a stateful model: proven, published beside model.onnx, the same function as the trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import artifact
from export.artifact import export_checkpoint
from export.cli_export import _as_text
from export.errors import ParityError
from export.step_onnx import step_to_onnx
from runtime import Predictor
from runtime.verify import verify
from tests.contracts import second_reader
from tests.export.conftest import train
from training.carried import carried_forecasts
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.errors import ConfigError
from training.run import prepare
from training.stateful import StatefulForecaster
from training.synth import synthesize

RUNS: dict[str, dict[str, Any]] = {
    "load-lstm": {
        "series": "load",
        "model": "lstm",
        "calendar": "day+week",
        "params": {"hidden_size": 8, "num_layers": 2},
    },
    "load-gru": {"series": "load", "model": "gru", "calendar": "none"},
    "requests-gru": {"series": "requests", "model": "gru", "calendar": "none"},
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("stateful") / request.param, stateful=True, **RUNS[request.param])


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> artifact.Published:
    out = tmp_path_factory.mktemp("artifacts")
    return export_checkpoint(run, formats=("onnx", "torchscript"), out=out, name="stateful")


def test_it_is_proven_however_a_window_is_cut(published: artifact.Published) -> None:
    steps = [check for check in published.checks if check.format == "step"]
    assert {check.batch for check in steps} == {1, 2, 3, 17, 256}
    assert {check.provider.partition(", ")[2] for check in steps} == {"1 pieces", "2 pieces", "12 pieces"}
    for check in published.checks:
        assert check.reference == "float64"
        assert check.used <= 1
    report = json.loads((published.path / "parity.json").read_text())
    assert set(report["carried"]) == {"validation", "test"}
    assert all(found["windowed"] > 0 and found["carried"] > 0 for found in report["carried"].values())
    assert published.carried == report["carried"]
    assert _as_text(published).count("  state: wQL ") == 2


def test_it_verifies_here_and_for_a_reader_of_the_specification(published: artifact.Published) -> None:
    found = verify(published.path, device="cpu")
    assert found.problems == []
    assert {check.graph for check in found.forecasts} == {"model.onnx", "step.onnx"}
    assert second_reader.verify(published.path) == []


def test_a_stream_forecasts_what_the_trained_model_does_with_its_state_carried(
    run: Path, published: artifact.Published
) -> None:
    checkpoint = load_checkpoint(run)
    trace = synthesize(days=0.05, rate_per_s=0.1, seed=1)
    data = prepare(trace, RunConfig.from_dict(checkpoint.meta["config"]).data)
    series = data.series
    p = Predictor(published.path, device="cpu")
    first = p.manifest["context"]
    forecasts = []
    with np.errstate(all="raise"), pytest.MonkeyPatch.context() as patched:
        patched.setattr(p._model, "clock_due", False)  # synthetic times are no epoch
        if series.bin_s is None:
            p.observe(float(series.time_s[0] - series.values[0, 0]), 0, 0)
        for time_s, row in zip(series.time_s.tolist(), series.values.tolist(), strict=True):
            if series.bin_s is None:
                p.observe(time_s, *row[1:])
            else:
                p.observe_bin(time_s, *row)
            forecasts.append(p.forecast())
    assert {forecast.source for forecast in forecasts[first - 1 :]} == {"model:stateful"}
    got = np.stack([forecast.values for forecast in forecasts[first - 1 :]])
    model = checkpoint.model
    assert isinstance(model, StatefulForecaster)
    want = carried_forecasts(model, series, np.arange(first, len(series) + 1))
    scale = np.abs(want).mean(axis=(0, 1, 3))[:, None]
    assert (np.abs(got - want) <= 1e-4 * (np.abs(want) + scale)).all()


def test_it_has_few_nodes(published: artifact.Published) -> None:
    nodes = onnx.load(published.path / "step.onnx").graph.node
    assert len(nodes) <= 48
    assert sum(node.op_type in ("RNN", "GRU", "LSTM") for node in nodes) in (2, 3)


def test_the_same_checkpoint_gives_the_same_step_graph(
    run: Path, published: artifact.Published, tmp_path: Path
) -> None:
    again = export_checkpoint(run, formats=("onnx", "torchscript"), out=tmp_path, name="stateful")
    for name in ("step.onnx", "model.onnx", "parity.json"):
        assert (again.path / name).read_bytes() == (published.path / name).read_bytes()


def test_a_step_graph_that_carries_something_else_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(model: StatefulForecaster, **settings: Any) -> bytes:
        kept = model.means.decay.clone()
        model.means.decay.mul_(0.99)
        try:
            return step_to_onnx(model, **settings)
        finally:
            model.means.decay.copy_(kept)

    monkeypatch.setattr(artifact, "step_to_onnx", forgetful)
    with pytest.raises(ParityError, match="from step "):
        export_checkpoint(run, out=tmp_path, exporter="legacy")
    assert not list(tmp_path.glob("*/1"))


def test_it_is_exported_in_fp32_alone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--precision: expected fp32 for a stateful model, got int8"):
        export_checkpoint(run, out=tmp_path, precision="int8")


def test_a_model_of_windows_has_no_step_graph(requests_run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(requests_run, out=tmp_path)
    assert "step.onnx" not in published.files
    assert "step" not in json.loads((published.path / "manifest.json").read_text())


def test_beside_what_dynamo_wrote_it_is_legacys_own(run: Path, tmp_path: Path, published: artifact.Published) -> None:
    if run.name != "requests-gru":
        pytest.skip("one is enough of what takes half a minute")
    other = export_checkpoint(run, out=tmp_path, exporter="dynamo", opset=21)
    step = onnx.load(other.path / "step.onnx")
    assert (other.exporter, other.opset, step.opset_import[0].version) == ("dynamo", 21, 20)
    assert [node.op_type for node in step.graph.node] == [
        node.op_type for node in onnx.load(published.path / "step.onnx").graph.node
    ]
