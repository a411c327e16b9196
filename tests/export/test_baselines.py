"""Every simple baseline is exported, proven and served like a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.artifact import export_checkpoint
from runtime import Predictor
from runtime.verify import verify
from tests.training.traces import count_trace, request_trace
from training.baselines import NAMES
from training.checkpoint import load_checkpoint
from training.compare import train_models
from training.config import build_runs
from training.run import prepare

LOAD = [name for name in NAMES if name != "recent_quantiles"]
CASES = [("load", name) for name in LOAD] + [("requests", "damped_holt"), ("requests", "recent_quantiles")]


@pytest.fixture(scope="session")
def baseline_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the baselines alone: `load` has two hours in a forecast step, so that a day is 24 bins."""
    out = tmp_path_factory.mktemp("baselines")
    hours = np.arange(900)
    counts = np.random.default_rng(0).poisson(60 + 30 * np.sin(hours * np.pi / 12))
    traces = {
        "load": count_trace(counts, bin_s=3600.0),
        "requests": request_trace(900),
    }
    own = {"load": {"bin_s": 3600.0, "step_s": 7200.0}, "requests": {}}
    for kind, trace in traces.items():
        settings = {"series": kind, "context": 12, "horizon": 4, "device": "cpu", **own[kind]}
        runs = build_runs([name for series, name in CASES if series == kind], settings)
        train_models(
            prepare(trace, runs[0].data), runs, out / kind, resume=False, overwrite=False, on_model=lambda name: None
        )
    return out


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_baseline_is_exported_verified_and_served(baseline_runs: Path, tmp_path: Path, kind: str, name: str) -> None:
    published = export_checkpoint(baseline_runs / kind / name, formats=("onnx", "torchscript"), out=tmp_path)
    assert published.path == tmp_path / name / "1"
    assert {check.format for check in published.checks} == {"onnx", "torchscript"}
    assert verify(published.path, device="cpu").problems == []

    checkpoint = load_checkpoint(baseline_runs / kind / name)
    context = checkpoint.windows["context"]
    predictor = Predictor(tmp_path / name)
    served = predictor.predict(context[:5])
    with torch.no_grad():
        expected = checkpoint.model(torch.from_numpy(context[:5])).numpy()
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-4)

    manifest = json.loads((published.path / "manifest.json").read_bytes())
    assert (manifest["architecture"], manifest["inputs"]) == (name, ["context"])
    assert manifest["context"] == context.shape[1]


def test_the_context_is_what_the_baseline_looks_back(baseline_runs: Path) -> None:
    contexts = {name: load_checkpoint(baseline_runs / "load" / name).meta["context"] for name in LOAD}
    assert contexts["last_value"] == 4  # two steps of two bins
    assert contexts["seasonal_naive"] == 24
    assert contexts["kalman"] == contexts["kalman_log1p"] == 2 * 38


def test_a_stream_is_forecast_by_the_baseline_once_it_has_its_context(baseline_runs: Path, tmp_path: Path) -> None:
    export_checkpoint(baseline_runs / "requests" / "damped_holt", out=tmp_path)
    predictor = Predictor(tmp_path / "damped_holt")
    trace = request_trace(900)
    sources = []
    for row in zip(trace.time_s, trace.request_tokens, trace.response_tokens, strict=True):
        predictor.observe(*row)
        sources.append(predictor.forecast().source)
    steps = predictor.manifest["context"]
    assert sources[steps - 1].startswith("fallback:")
    assert set(sources[steps:]) == {"model"}


def test_the_graph_of_a_point_baseline_is_one_product_and_a_few_steps(baseline_runs: Path, tmp_path: Path) -> None:
    published = export_checkpoint(baseline_runs / "requests" / "damped_holt", out=tmp_path)
    nodes = onnx.load(published.path / "model.onnx").graph.node
    assert [node.op_type for node in nodes].count("MatMul") == 1
    assert len(nodes) <= 10, [node.op_type for node in nodes]
