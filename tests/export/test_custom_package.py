"""An architecture of an installed package that knows nothing of fcast: trained, exported, proven and streamed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.artifact import export_checkpoint
from runtime import Predictor
from runtime.verify import verify
from tests.export.conftest import train
from training import registry
from training.checkpoint import load_checkpoint

SOURCE = """
import torch
from torch import nn


class Filters(nn.Module):
    def __init__(self, channels, context, horizon, *, hidden_size=8):
        super().__init__()
        self.filters = nn.Conv1d(channels, hidden_size, 3, padding=1)
        self.norm = nn.GroupNorm(2, hidden_size)

    def forward(self, x):
        return nn.functional.gelu(self.norm(self.filters(x.transpose(1, 2)))).mean(2)


class Asinh(Filters):
    def forward(self, x):  # the legacy exporter does not know this operator
        return torch.asinh(super().forward(x))
"""
ENTRY_POINTS = "[fcast.models]\nelsewhere_filters = elsewhere:Filters\nelsewhere_asinh = elsewhere:Asinh\n"


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path, as pip would have installed it."""
    site = tmp_path_factory.mktemp("site")
    (site / "elsewhere.py").write_text(SOURCE)
    info = site / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(registry, "_models", dict(registry._models))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("series", ["load", "requests"])
def test_a_model_of_another_package_is_exported_proven_and_streamed(tmp_path: Path, series: str) -> None:
    calendar = "day+week" if series == "load" else "none"
    run = train(tmp_path / "runs/own", series=series, model="elsewhere_filters", calendar=calendar)
    published = export_checkpoint(run, formats=("onnx", "torchscript"), out=tmp_path / "artifacts", static_batch=1)
    assert {"model.onnx", "model.batch1.onnx", "model.pt"} < set(published.files)
    assert {"onnx", "torchscript"} <= {check.format for check in published.checks}
    assert verify(published.path, device="cpu").problems == []

    predictor = Predictor(tmp_path / "artifacts/elsewhere_filters")
    context = load_checkpoint(run).windows["context"][0]
    start_s = 1.7e9 // 30 * 30
    if series == "load":
        for i, row in enumerate(context):
            predictor.observe_bin(start_s + 30 * i, *row)
        streamed, time_s = predictor.forecast(), start_s + 30 * (len(context) - 1)
    else:
        time_s = start_s
        for inter_arrival_s, *tokens in [context[0], *context]:
            time_s += float(inter_arrival_s)
            predictor.observe(time_s, *map(int, tokens))
        streamed, time_s = predictor.forecast(), None
    assert streamed.source == "model"
    expected = predictor.predict(context, time_s)
    np.testing.assert_allclose(streamed.values, expected, rtol=2e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_an_operator_that_legacy_lacks_is_exported_by_dynamo(tmp_path: Path) -> None:
    run = train(tmp_path / "runs/own", series="requests", model="elsewhere_asinh", calendar="none")
    with pytest.warns(RuntimeWarning, match="exporter legacy: rejected, dynamo used instead: .*aten::asinh in .*Asinh"):
        published = export_checkpoint(run, out=tmp_path / "artifacts")
    raw = json.loads((published.path / "manifest.json").read_bytes())
    assert (published.exporter, raw["exporter"]) == ("dynamo", "dynamo")
    context = load_checkpoint(run).windows["context"][:5]
    with torch.no_grad():
        expected = load_checkpoint(run).model(torch.from_numpy(context)).numpy()
    np.testing.assert_allclose(Predictor(published.path).predict(context), expected, rtol=1e-4, atol=1e-4)
