"""What the documented Python API trains is what the command lines export and the runtime serves."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from torch import nn

from export.artifact import export_checkpoint
from export.cli_export import main as fcast_export
from predictor.enhanced_request_predictor import EnhancedRequestPredictor
from predictor.model_interface import BasePredictor, ModelConfig, ModelType, TrainingResult
from runtime import Predictor
from tests.training.frames import request_frame, small
from training import registry
from training.checkpoint import load_checkpoint
from training.cli_train import main as fcast_train
from training.request_frame import COLUMNS, frame_to_trace, trace_to_frame
from training.synth import synthesize
from training.trace_write import write_trace

ROOT = Path(__file__).parents[2]
AZURE = ROOT.parent / "shared" / "traces" / "AzureLLMInferenceTrace_conv.csv"
NAMES = {
    "predictor.enhanced_request_predictor": "EnhancedRequestPredictor create_enhanced_predictor",
    "predictor.model_interface": "BasePredictor ModelConfig ModelDevice ModelRegistry ModelType PredictionResult "
    "TrainingResult register_model",
}


@pytest.mark.parametrize("module", NAMES)
def test_documented_names_are_importable_and_come_from_training(module: str) -> None:
    found = importlib.import_module(module)
    assert set(NAMES[module].split()) <= set(found.__all__)
    assert all(getattr(found, name).__module__.startswith("training.") for name in found.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "predictor").glob("*.py")), ids=lambda path: path.name)
def test_predictor_has_no_logic_of_its_own(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert all(isinstance(node, ast.ImportFrom | ast.Expr | ast.Assign) for node in body)


class OnlyBuilds(BasePredictor):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("model", ["lstm", "gru", "dlinear", "transformer", "custom"])
def test_a_saved_model_exports_and_the_runtime_forecasts_the_same(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._models, "custom", OnlyBuilds)
    frame = request_frame()
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model(model, small())
    predictor.train_models(frame)
    path = str(tmp_path / f"{model}.pth")
    predictor.save_model(model, path)
    done = CliRunner().invoke(
        fcast_export, [path, "--format", "onnx", "--format", "torchscript", "--out", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0, done.output
    served = Predictor(json.loads(done.stdout)["path"], device="cpu")
    for rows in (300, 17, 14, 5):  # the model, its shortest history, and both fallbacks
        for row in frame.head(rows).itertuples(index=False):
            served.observe(*row)
        ours = predictor.model_manager.active_models[model].predict(frame.head(rows))
        theirs = served.forecast()
        np.testing.assert_allclose(theirs.values, ours.metadata["quantiles"], rtol=1e-4, atol=1e-4)
        assert theirs.source == ours.metadata["source"]
        assert theirs.next_request().timestamp_s == pytest.approx(ours.timestamps[0], rel=1e-6)
        served = Predictor(json.loads(done.stdout)["path"], device="cpu")


def test_a_checkpoint_of_the_command_line_and_its_pth_have_the_same_hash(tmp_path: Path) -> None:
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("gru", small())
    predictor.train_models(request_frame())
    predictor.save_model("gru", str(tmp_path / "gru.pth"))
    checkpoint = load_checkpoint(tmp_path / "gru.pth")
    assert checkpoint.sha256 == checkpoint.meta["sha256"]["model.safetensors"]


PLUGIN = """
from predictor.model_interface import BasePredictor, register_model
from torch import nn

@register_model("theirs")
class Theirs(BasePredictor):
    default_params = {"width": 4}

    def build_model(self):
        width = self.config.custom_params.get("width", 4)
        return nn.Sequential(nn.Linear(3, width), nn.Tanh())
"""


def test_an_installed_package_trains_exports_and_loads_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "site" / "theirs-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[fcast.models]\ntheirs = their_package:Theirs\n")
    (tmp_path / "site" / "their_package.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    monkeypatch.chdir(tmp_path)
    write_trace(synthesize(days=0.01, rate_per_s=0.5, seed=0), tmp_path / "trace.csv", format="burstgpt")

    settings = ["--epochs", "1", "--context", "12", "--horizon", "2", "--device", "cpu", "--trace", "trace.csv"]
    done = CliRunner().invoke(fcast_train, ["--model", "theirs", "--set", "width=6", *settings])
    assert done.exit_code == 0, done.output
    assert load_checkpoint("runs/theirs").meta["model"]["params"] == {"width": 6}
    assert CliRunner().invoke(fcast_export, ["runs/theirs"]).exit_code == 0
    assert Predictor("artifacts/theirs", device="cpu").manifest["architecture"] == "theirs"
    done = CliRunner().invoke(fcast_train, ["--model", "theirs", "--set", "widht=6", *settings])
    assert (done.exit_code, "did you mean 'width'" in done.stderr) == (2, True)

    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("theirs", small(custom_params={"width": 5, "any": "thing"}))
    predictor.train_models(request_frame())
    predictor.save_model("theirs", "theirs.pth")
    del registry._models["theirs"]  # as in a new process
    done = CliRunner().invoke(fcast_export, ["theirs.pth", "--name", "saved"])
    assert done.exit_code == 0, done.output
    assert Predictor("artifacts/saved", device="cpu").manifest["params"] == {"width": 5, "any": "thing"}


class Broken(BasePredictor):
    def train(self, data: pd.DataFrame, validation_split: float = 0.2) -> TrainingResult:
        return TrainingResult(success=True)

    def predict(self, data: pd.DataFrame, steps: int | None = None):
        from predictor.model_interface import PredictionResult

        last = data.iloc[-1]
        return PredictionResult([last["Timestamp"]] * steps, [0.0] * steps, [0.0] * steps, [1.0] * steps)


@pytest.mark.slow
@pytest.mark.skipif(not AZURE.is_file(), reason="the real traces are not beside this checkout")
def test_on_a_real_trace_the_numbers_are_honest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", {**registry._models, "custom": Broken})
    raw = pd.read_csv(AZURE, nrows=8000)
    data = raw.rename(columns=dict(zip(raw.columns, COLUMNS, strict=True)))  # times stay the dates they are
    past, unseen = data.iloc[:6000], data.iloc[6000:]
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("well", ModelConfig(model_type=ModelType.GRU, epochs=8, custom_params={"hidden_size": 16}))
    predictor.add_model("step", ModelConfig(model_type=ModelType.GRU, epochs=1, batch_size=10_000))
    predictor.add_model("broken", ModelConfig(model_type=ModelType.CUSTOM))
    assert all(result.success for result in predictor.train_models(past).values())
    found = predictor.predict_next_request(unseen)["predictions"]
    last_s = frame_to_trace(unseen).time_s[-1]
    assert last_s < found["well"]["timestamp"] < last_s + 60
    assert found["well"]["confidence"] > found["step"]["confidence"]  # by little: both begin at the empirical quantiles
    comparison = predictor.compare_models(unseen)
    assert comparison["performance_summary"]["ranking"] == ["well", "step", "broken"]
    predictor.save_model("well", str(tmp_path / "well.pth"))
    assert export_checkpoint(tmp_path / "well.pth", out=tmp_path).name == "gru"


def test_any_format_can_be_used(tmp_path: Path) -> None:
    trace = synthesize(days=0.01, rate_per_s=0.5, seed=0)
    assert frame_to_trace(trace_to_frame(trace)).fingerprint() == trace.fingerprint()
