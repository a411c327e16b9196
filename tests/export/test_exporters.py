"""The choice between torch's two exporters, what each refuses, and the graph for one batch size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import artifact
from export.artifact import export_checkpoint
from export.attempts import first_accepted
from export.errors import ExportError, ParityError, StorageError
from export.exporters import DYNAMO, LEGACY, exporters_for
from export.to_onnx import to_onnx
from runtime import Predictor
from runtime.verify import verify
from tests.export.test_artifact import with_one_weight_changed
from tests.export.test_graphs import BATCHES, FixedBatch, Plain, Unknown, assert_same, forecaster, session, windows
from training.errors import ConfigError

WHERE = Path("/out/.staging-1-2")


@pytest.mark.parametrize(
    ("asked", "opset", "tried"),
    [
        ("auto", 20, (LEGACY, DYNAMO)),
        ("auto", 17, (LEGACY,)),
        ("auto", 21, (DYNAMO,)),
        ("legacy", 20, (LEGACY,)),
        ("dynamo", 18, (DYNAMO,)),
    ],
)
def test_auto_tries_the_fast_exporter_first_and_none_that_cannot_write_the_opset(
    asked: str, opset: int, tried: tuple[str, ...]
) -> None:
    assert exporters_for(asked, opset) == tried


@pytest.mark.parametrize(
    ("asked", "opset", "message"),
    [
        ("auto", 22, r"--opset: expected 17 to 20 \(legacy\) or 18 to 21 \(dynamo\), got 22; leave it out for 20"),
        ("dynamo", 17, r"--opset: expected 18 to 21 \(dynamo\), got 17"),
        ("legacy", 21, r"--opset: expected 17 to 20 \(legacy\), got 21"),
        ("script", 20, r"--exporter: expected auto, legacy or dynamo, got script"),
    ],
)
def test_the_range_of_opsets_is_that_of_the_exporter(asked: str, opset: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        exporters_for(asked, opset)


def failing(*exporters: str, error: type[ExportError] = ExportError) -> Any:
    def attempt(exporter: str) -> str:
        if exporter in exporters:
            raise error(f"{WHERE}/model.onnx: {exporter} broke it")
        return f"graph of {exporter}"

    return attempt


def test_the_second_exporter_is_used_when_the_first_fails_and_a_warning_says_so() -> None:
    with pytest.warns(RuntimeWarning, match="exporter legacy: rejected, dynamo used instead: model.onnx: legacy broke"):
        found, rejected = first_accepted((LEGACY, DYNAMO), failing(LEGACY), where=WHERE)
    assert found == "graph of dynamo"
    assert rejected == {LEGACY: "model.onnx: legacy broke it"}


def test_when_every_exporter_fails_the_first_error_comes_first_and_the_others_are_named() -> None:
    with pytest.raises(ParityError, match=r"legacy broke it; dynamo fails too: .*dynamo broke it"):
        first_accepted((LEGACY, DYNAMO), failing(LEGACY, DYNAMO, error=ParityError), where=WHERE)


def test_a_full_disk_is_no_reason_to_try_another_exporter() -> None:
    with pytest.raises(StorageError, match="legacy broke it$"):
        first_accepted((LEGACY, DYNAMO), failing(LEGACY, error=StorageError), where=WHERE)


@pytest.mark.parametrize("opset", [18, 21])
def test_dynamo_keeps_the_batch_dynamic_and_prints_nothing(opset: int, capfd: pytest.CaptureFixture[str]) -> None:
    graph = to_onnx(Plain().eval(), windows(2, clock=False), exporter=DYNAMO, opset=opset)
    assert capfd.readouterr() == ("", "")
    model = onnx.load_from_string(graph)
    assert [(known.domain, known.version) for known in model.opset_import] == [("", opset)]
    assert model.ir_version <= 10
    for batch in BATCHES:
        inputs = windows(batch, clock=False, seed=batch)
        (got,) = session(graph).run(["forecast"], {name: tensor.numpy() for name, tensor in inputs.items()})
        assert_same(got, Plain(), inputs)


def test_dynamo_names_an_unknown_operator_and_its_module_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Unknown()])

        def forward(self, context: torch.Tensor) -> torch.Tensor:
            return self.layers[0](context)

    for exporter, way in ((LEGACY, "or try --exporter dynamo$"), (DYNAMO, "or try a higher --opset, up to 21$")):
        with pytest.raises(
            ExportError, match=rf"got: aten::(special_)?i0 in layers\.0 \(Unknown\): .*operators, {way}"
        ):
            to_onnx(Outer().eval(), windows(2, clock=False), exporter=exporter)
    assert capfd.readouterr() == ("", "")


def test_a_batch_that_is_frozen_is_refused_by_dynamo() -> None:
    with pytest.raises(ExportError, match="ONNX (export|graph): expected"):
        to_onnx(FixedBatch().eval(), windows(2, clock=False), exporter=DYNAMO)


def test_without_onnxscript_dynamo_says_what_to_install_and_legacy_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ExportError, match=r"onnxscript for the exporter dynamo, got none; pip install 'fcast\[export\]'"
    ):
        to_onnx(Plain().eval(), windows(2, clock=False), exporter=DYNAMO)
    to_onnx(Plain().eval(), windows(2, clock=False), exporter=LEGACY)


@pytest.mark.parametrize("model", ["gru", "transformer"])
def test_a_graph_for_one_batch_has_fixed_shapes_and_the_same_forecasts(model: str) -> None:
    module = forecaster(model, clock=True, demand=True)
    dynamic, fixed = (
        to_onnx(module, windows(2, clock=True), metadata={"fcast.kind": '"load"'}, static_batch=batch)
        for batch in (None, 1)
    )
    graph = onnx.load_from_string(fixed)
    for value in [*graph.graph.input, *graph.graph.output]:
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_value == 1
        assert not any(dim.dim_param for dim in dims)
    assert not {"Shape", "ConstantOfShape"} & {node.op_type for node in graph.graph.node}
    assert len(graph.graph.node) <= len(onnx.load_from_string(dynamic).graph.node)
    assert (graph.producer_name, graph.metadata_props[0].value) == ("fcast", '"load"')
    inputs = {name: tensor.numpy() for name, tensor in windows(1, clock=True, seed=1).items()}
    for got, want in zip(session(fixed).run(None, inputs), session(dynamic).run(None, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    with pytest.raises(Exception, match="(?i)invalid dimensions|INVALID_ARGUMENT"):
        session(fixed).run(None, {name: tensor.numpy() for name, tensor in windows(2, clock=True).items()})


def test_a_static_batch_is_published_hashed_and_ignored_by_hosts(requests_run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(requests_run, out=tmp_path, static_batch=1)
    raw = json.loads((published.path / "manifest.json").read_bytes())
    assert raw["static_batch"] == 1
    assert "model.batch1.onnx" in raw["files"]
    result = verify(published.path, device="cpu")
    assert result.problems == []
    assert "model.batch1.onnx" in {check.name for check in result.files}
    assert Predictor(published.path).manifest["static_batch"] == 1


@pytest.mark.slow
def test_a_graph_that_fails_the_gate_is_replaced_by_dynamos(
    requests_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = artifact.to_onnx

    def broken(*args: Any, exporter: str, **options: Any) -> bytes:
        graph = exported(*args, exporter=exporter, **options)
        return with_one_weight_changed(graph) if exporter == LEGACY else graph

    monkeypatch.setattr(artifact, "to_onnx", broken)
    with pytest.warns(RuntimeWarning, match="exporter legacy: rejected, dynamo used instead: parity: expected"):
        published = export_checkpoint(requests_run, out=tmp_path)
    raw = json.loads((published.path / "manifest.json").read_bytes())
    assert (published.exporter, raw["exporter"]) == (DYNAMO, DYNAMO)
    report = json.loads((published.path / "parity.json").read_bytes())
    assert report["rejected"] == published.rejected
    assert list(report["rejected"]) == [LEGACY]
    assert verify(published.path, device="cpu").problems == []
