"""fp16 and int8: what is converted, what must hold of it, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from export.artifact import export_checkpoint
from export.cli_export import main
from export.errors import ExportError, ParityError
from export.precision import CONVERSIONS
from export.precision_trial import convert_apart
from runtime import Predictor
from runtime.verify import verify
from tests.export import stand_in_conversions as stand_in
from tests.export.conftest import train
from tests.training.traces import request_trace
from training.checkpoint import load_checkpoint
from training.compare import train_models
from training.config import build_runs
from training.errors import ConfigError
from training.run import prepare

CASES = [
    ("lstm", "fp16"),
    ("lstm", "int8"),
    *(
        pytest.param(model, precision, marks=pytest.mark.slow)
        for model in ("gru", "transformer", "multiscale")
        for precision in CONVERSIONS
        if (model, precision) != ("gru", "int8")  # refused below, as is dlinear
    ),
]
NARROW = {"fp16": {onnx.TensorProto.FLOAT16}, "int8": {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}}


Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The n-th version of a model with a clock and demand in a precision; trained and exported when first asked for."""
    out = tmp_path_factory.mktemp("precision")

    @cache
    def run(model: str) -> Path:
        return train(out / "runs" / model, series="load", model=model, calendar="day+week")

    @cache
    def version(model: str, precision: str, number: int = 1) -> Path:
        return export_checkpoint(run(model), out=out / "artifacts", precision=precision).path

    return version


@pytest.fixture(scope="module")
def load_gru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("precision") / "gru", series="load", model="gru", calendar="day+week")


def report_of(version: Path) -> dict[str, Any]:
    return json.loads((version / "parity.json").read_text())


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_a_converted_artifact_verifies_and_keeps_the_contract(export: Export, model: str, precision: str) -> None:
    folder, fp32 = export(model, precision).parent, export(model, "fp32").parent
    assert folder.name == f"{model}-{precision}"
    assert verify(folder, device="cpu").problems == []
    predictor, reference = Predictor(folder, device="cpu"), Predictor(fp32, device="cpu")
    assert (predictor.manifest["precision"], reference.manifest["precision"]) == (precision, "fp32")
    assert (folder / "config.pbtxt").read_bytes() == (fp32 / "config.pbtxt").read_bytes()
    graph = onnx.load(folder / "1/model.onnx")
    assert NARROW[precision] & {tensor.data_type for tensor in graph.graph.initializer}
    assert {entry.key: entry.value for entry in graph.metadata_props}["fcast.precision"] == f'"{precision}"'
    assert graph.ir_version <= onnx.load(fp32 / "1/model.onnx").ir_version
    with np.load(folder / "1/golden.npz") as golden:
        found = predictor.predict_outputs(golden["context"], golden["time_s"])
        assert {name: output.shape for name, output in found.items()} == {name: golden[name].shape for name in found}


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_the_ends_of_the_graph_stay_float32(export: Export, model: str, precision: str) -> None:
    converted, reference = (Predictor(export(model, name), device="cpu") for name in (precision, "fp32"))
    context = np.full((1, 12, 3), 1e6, np.float32)  # beyond float16
    np.testing.assert_allclose(
        converted.predict(context, time_s=1.7e9), reference.predict(context, time_s=1.7e9), rtol=0.3
    )


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_the_report_has_what_the_conversion_cost(export: Export, model: str, precision: str) -> None:
    report = report_of(export(model, precision))
    cost = report["precision"]
    assert cost["precision"] == precision
    assert 0 < cost["weights_converted"] <= 1
    assert cost["skill_loss"]["validation"]["loss"] <= cost["max_skill_loss"] == 0.01
    assert sum(part["windows"] for part in cost["skill_loss"].values()) == report["windows"]
    assert set(cost["difference"]) == {"forecast", "demand"}
    for row in cost["difference"]["forecast"].values():
        assert 0 <= row["mean"] <= row["p99"] <= row["max"]
    assert 0 <= cost["batches"]["used"] <= 1
    assert report["tolerances"]["rtol"] > report["fp32_tolerances"]["rtol"]


@pytest.mark.parametrize("precision", CONVERSIONS)
def test_a_network_that_is_folded_into_one_matrix_with_its_scaling_is_refused(
    load_run: Path, tmp_path: Path, precision: str
) -> None:
    with pytest.raises(ExportError, match=rf"^--precision {precision}: .*no node of this model can be quantised"):
        export_checkpoint(load_run, out=tmp_path / "out", precision=precision)


def test_a_gru_has_nothing_that_can_be_quantised(load_gru: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"^--precision int8: expected .* in MatMul, LSTM, got one with none; no node"
    ):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="int8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", CONVERSIONS)
def test_scaling_head_and_quantiles_keep_their_float32(export: Export, precision: str) -> None:
    tensors = onnx.load(export("lstm", precision) / "model.onnx").graph.initializer
    narrow = [tensor.name for tensor in tensors if tensor.data_type in NARROW[precision]]
    assert narrow
    assert [name for name in narrow if re.search(r"steps|level|features|head|quantiles", name)] == []


@pytest.mark.parametrize("precision", CONVERSIONS)
def test_a_conversion_gives_the_same_bytes_again(export: Export, precision: str) -> None:
    first, second = export("lstm", precision), export("lstm", precision, 2)
    for file in ("model.onnx", "golden.npz", "parity.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.parametrize("precision", CONVERSIONS)
def test_a_model_without_weights_is_refused(tmp_path: Path, precision: str) -> None:
    config = build_runs(["recent_quantiles"], {"series": "requests", "context": 12, "horizon": 4, "device": "cpu"})
    data = prepare(request_trace(900), config[0].data)
    train_models(data, config, tmp_path / "runs", resume=False, overwrite=False, on_model=lambda name: None)
    with pytest.raises(ExportError, match=rf"^--precision {precision}: .*no node of this model can be quantised"):
        export_checkpoint(tmp_path / "runs/recent_quantiles", out=tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("conversion", "message"),
    [
        (stand_in.segfault, r"^--precision int8: expected .* converting gru .* got a crash, SIGSEGV; nothing was publ"),
        (stand_in.fail, r"^--precision int8: expected .* converting gru .* got RuntimeError: no such kernel; nothing"),
    ],
)
def test_what_a_child_does_not_survive_is_an_error_and_nothing_is_published(
    load_gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversion: Any, message: str
) -> None:
    monkeypatch.setitem(CONVERSIONS, "int8", conversion)
    result = CliRunner().invoke(main, [str(load_gru), "--out", str(tmp_path / "out"), "--precision", "int8"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert re.search(message, result.stderr.removeprefix("Error: "))
    assert not (tmp_path / "out").exists()


def test_a_child_that_hangs_is_ended(export: Export, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"got nothing for 0\.5 s; nothing was published"):
        convert_apart(stand_in.hang, export("lstm", "fp32"), tmp_path, {}, precision="int8", timeout_s=0.5)


def test_forecasts_that_are_no_numbers_are_refused(
    load_gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVERSIONS, "fp16", stand_in.blind)
    with pytest.raises(ParityError, match="expected finite, non-negative, ordered quantiles from fp16 at batch 1"):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="fp16")
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_ruins_the_forecasts_is_refused(
    load_gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVERSIONS, "fp16", stand_in.ruin)
    with pytest.raises(ExportError, match=r"wQL to rise by at most 1\.00% over fp32, got \+\d+\.\d+% on \d+ valid"):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="fp16")
    assert not (tmp_path / "out").exists()


def test_the_budget_is_the_users(load_gru: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"by at most -100\.00% .* allow more with --max-skill-loss$"):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="fp16", max_skill_loss=-1.0)
    with pytest.raises(ConfigError, match="--max-skill-loss: expected a finite share such as 0.01, got nan"):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="fp16", max_skill_loss=float("nan"))
    assert not (tmp_path / "out").exists()


def test_torchscript_is_fp32_alone(load_gru: Path, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--format", "torchscript", "--precision", "int8"]
    result = CliRunner().invoke(main, [str(load_gru), *options])
    assert result.exit_code == 2
    assert "Error: --format torchscript: expected --precision fp32, got int8; only ONNX graphs" in result.stderr


def test_the_command_prints_what_the_conversion_cost(export: Export, tmp_path: Path) -> None:
    lstm = export("lstm", "fp32").parents[2] / "runs/lstm"
    options = [str(lstm), "--out", str(tmp_path), "--precision", "int8"]
    text = CliRunner().invoke(main, options).stdout
    assert text.startswith(f"Published {tmp_path}/lstm-int8/1\n")
    for line in (
        r"int8: \d+% of the weights; of fp32, size 0\.\d+, time",
        r"int8: wQL [+-]\d\.\d+% on \d+ validation windows",
    ):
        assert re.search(line, text)
    found = json.loads(CliRunner().invoke(main, [*options, "--json"]).stdout)
    assert set(found["precision"].pop("latency_ratio")) == {"1", "256"}
    assert found["precision"] == report_of(tmp_path / "lstm-int8/2")["precision"]


def test_a_checkpoint_without_targets_cannot_be_judged(
    load_gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(load_gru)
    del checkpoint.windows["target"]
    monkeypatch.setattr("export.artifact.load_checkpoint", lambda path: checkpoint)
    with pytest.raises(ExportError, match="expected the targets of its windows, .* got none; train again"):
        export_checkpoint(load_gru, out=tmp_path / "out", precision="int8")
