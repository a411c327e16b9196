"""One model of the documented Python API: custom classes, the registry, and what is saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.frames import request_frame, small
from training.checkpoint import load_checkpoint
from training.errors import CheckpointError, ConfigError, DeviceError
from training.model_config import ModelConfig, ModelDevice, ModelType
from training.model_interface import BasePredictor, ModelRegistry
from training.model_results import PredictionResult
from training.registry import model_class, model_names, register_model

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("own_registry")


class PerStep(nn.Module):
    """As in the guide: 3 channels in, 2 numbers per step out."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


class OnlyBuilds(BasePredictor):
    def build_model(self):
        self.model = PerStep(self.config.custom_params.get("my_param2", 8)).to(self.device)
        return self.model


def trained(name="dlinear", **settings) -> BasePredictor:
    model = ModelRegistry.create(small(model_type=name, device="cpu", **settings))
    assert model.train(request_frame()).success
    return model


def test_a_class_that_only_builds_inherits_all_the_rest(tmp_path):
    register_model(ModelType.CUSTOM)(OnlyBuilds)
    model = trained("custom", custom_params={"my_param1": "value1", "my_param2": 5})
    assert model.model.network.module.layers[0].out_features == 5
    assert model.get_model_info()["custom_params"] == {"my_param1": "value1", "my_param2": 5}
    result = model.predict(request_frame(), 3)
    assert model.save_model(str(tmp_path / "custom.pth"))
    again = ModelRegistry.create(ModelConfig(model_type="custom", device="cpu"))
    assert again.load_model(str(tmp_path / "custom.pth"))
    assert again.predict(request_frame(), 3).metadata["quantiles"] == result.metadata["quantiles"]
    assert again.config.custom_params == model.config.custom_params


def test_a_class_that_gives_no_network_says_so():
    class Nothing(BasePredictor):
        def build_model(self):
            pass

    class Inherits(BasePredictor):
        pass

    class Wide(BasePredictor):
        def build_model(self):
            return nn.Linear(7, 2)

    for cls, message in (
        (Nothing, r"Nothing.build_model: expected an nn.Module, got None"),
        (Inherits, r"Inherits.build_model: expected it to be overridden"),
        (Wide, r"custom: expected an architecture for \(B, 16, 27\), got: .*correct its forward"),
    ):
        register_model("custom")(cls)
        with pytest.raises(ConfigError, match=message):
            ModelRegistry.create(small(model_type="custom")).train(request_frame())


def test_prepare_data_may_be_overridden():
    class LongOnes(OnlyBuilds):
        def prepare_data(self, data):
            return super().prepare_data(data[data["Request tokens"] > 100])

    class Forgets(OnlyBuilds):
        def prepare_data(self, data):
            pass

    register_model("custom")(LongOnes)
    frame = request_frame()
    split = trained("custom")._checkpoint.meta["trace"]["rows"]
    assert split == int((frame["Request tokens"] > 100).sum())
    register_model("custom")(Forgets)
    with pytest.raises(ConfigError, match=r"Forgets.prepare_data: expected a Trace, got NoneType"):
        ModelRegistry.create(small(model_type="custom")).train(frame)


def test_the_custom_slot_takes_another_class_and_other_names_do_not():
    for cls in (OnlyBuilds, PerStep, OnlyBuilds):
        register_model(ModelType.CUSTOM)(cls)
    assert model_class("custom") is OnlyBuilds
    register_model("theirs")(OnlyBuilds)
    with pytest.raises(ConfigError, match="expected a new name, got 'theirs' of OnlyBuilds"):
        register_model("theirs")(PerStep)
    with pytest.raises(ConfigError, match="expected a new name, got 'gru' of GRU"):
        register_model(ModelType.GRU)(OnlyBuilds)
    with pytest.raises(ConfigError, match="expected a class of nn.Module or BasePredictor"):
        register_model("number")(int)


def test_the_registry_as_a_class_is_the_same_registry():
    @ModelRegistry.register("theirs")
    class Theirs(OnlyBuilds):
        pass

    ModelRegistry.register("others", OnlyBuilds)
    assert ModelRegistry.get("theirs") is model_class("theirs") is Theirs
    assert ModelRegistry.available() == model_names()
    assert {"theirs", "others"} <= set(ModelRegistry.available())
    assert type(ModelRegistry.create(small(model_type="theirs"))) is Theirs
    with pytest.raises(ConfigError, match="did you mean 'theirs'"):
        ModelRegistry.get("their")
    with pytest.raises(ConfigError, match="model_type: expected a ModelType or a registered name, got None"):
        ModelRegistry.create(ModelConfig())


@pytest.mark.parametrize("device", ["cuda", ModelDevice.MPS])
def test_a_device_that_is_not_there_is_an_error(device):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(DeviceError, match=r"device (cuda|mps): expected an? (CUDA|Apple) GPU, got .*use device cpu"):
        ModelRegistry.create(ModelConfig(model_type="gru", device=device))


def test_an_untrained_model_does_not_predict():
    with pytest.raises(ConfigError, match="gru: expected a trained model, got an untrained one"):
        ModelRegistry.create(ModelConfig(model_type="gru")).predict(request_frame())


def test_losses_are_those_of_the_validation_part():
    model = ModelRegistry.create(small(model_type="dlinear", epochs=3))
    result = model.train(request_frame(), validation_split=0.3)
    lines = [line["validation_wql"] for line in model.training_history["epochs"]]
    assert (result.final_loss, result.best_loss, result.epochs_trained) == (lines[-1], min(lines), 3)
    assert result.metadata["scores"]["wql"]["mean"] == pytest.approx(result.best_loss)
    assert result.metadata["split"]["test"] == 0
    assert 0 < result.training_time < 60


def test_hyper_parameters_reach_the_architecture():
    model = trained("lstm", custom_params={"hidden_size": 5, "num_layers": 2})
    assert (model.model.network.rnn.hidden_size, model.model.network.rnn.num_layers) == (5, 2)


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        (300, "quantile median of dlinear"),
        (17, "quantile median of dlinear"),
        (16, r"median of the last 15 requests, as dlinear needs 17 requests without a gap"),
        (9, r"median of the last 8 requests"),
        (8, r"median of the training part"),
        (1, r"median of the training part"),
    ],
)
def test_a_short_history_gets_a_named_stand_in(rows, method):
    model, frame = trained(), request_frame().tail(rows)
    result = model.predict(frame)
    assert len(result.timestamps) == 3
    assert result.metadata["method"].startswith(method)
    assert (min(result.confidence) > 0) == ("quantile" in method)
    assert (np.diff([frame["Timestamp"].iloc[-1], *result.timestamps]) > 0).all()


def test_a_gap_ends_the_history():
    frame = request_frame()
    frame.loc[295:, "Timestamp"] += 7 * 3600
    assert trained().predict(frame).metadata["source"] == "fallback:prior"


def test_beyond_the_horizon_it_goes_on_from_its_medians():
    model, frame = trained(), request_frame()
    short, long = model.predict(frame), model.predict(frame, 8)
    assert long.request_tokens[:3] == short.request_tokens
    assert long.confidence[3:] == [short.confidence[-1]] * 5
    rolled = frame.copy()
    for step in range(3):
        rolled.loc[len(rolled)] = [short.timestamps[step], round(short.request_tokens[step]), 0]
        rolled.loc[len(rolled) - 1, "Response tokens"] = round(short.response_tokens[step])
    np.testing.assert_allclose(model.predict(rolled).request_tokens, long.request_tokens[3:6], rtol=0.02)
    with pytest.raises(ConfigError, match="steps: expected a whole number from 1, got 0"):
        model.predict(frame, 0)


def test_equal_arrivals_still_predict_a_later_one():
    frame = request_frame().assign(Timestamp=1.7e9)
    model = ModelRegistry.create(small(model_type="dlinear"))
    model.train(frame)
    assert (np.diff([1.7e9, *model.predict(frame).timestamps]) > 0).all()


def test_saved_loaded_in_a_new_process_it_predicts_the_same_to_the_last_bit(tmp_path):
    model = trained("gru", model_name="mine", custom_params={"hidden_size": 6})
    path, table = tmp_path / "models" / "gru.pth", tmp_path / "table.csv"
    path.parent.mkdir()
    model.save_model(str(path))
    request_frame().to_csv(table, index=False)
    code = f"""
import json, pandas
from predictor.model_interface import ModelConfig, ModelRegistry
model = ModelRegistry.create(ModelConfig(model_type="gru", device="cpu"))
model.load_model({str(path)!r})
result = model.predict(pandas.read_csv({str(table)!r}), 5)
print(json.dumps([result.metadata["quantiles"], result.timestamps, result.confidence, model.training_history,
                  model.model_name, model.config.to_dict()]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = model.predict(request_frame(), 5)
    config = {**model.config.to_dict(), "device": "cpu"}
    assert json.loads(done.stdout) == json.loads(
        json.dumps(
            [here.metadata["quantiles"], here.timestamps, here.confidence, model.training_history, "mine", config]
        )
    )


def test_a_run_folder_of_fcast_train_loads_too(tmp_path):
    from tests.training.test_fit import run_of, train

    train(tmp_path, run_of("gru", hidden_size=4))
    model = ModelRegistry.create(ModelConfig(model_type="gru"))
    assert model.load_model(str(tmp_path))
    assert (model.config.sequence_length, model.config.custom_params) == (16, {"hidden_size": 4})
    assert model.predict(request_frame()).confidence[0] > 0


class Hostile:
    def __reduce__(self):
        return (exec, ("open('executed', 'w')",))


def test_a_file_with_a_pickled_payload_is_refused_and_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = trained()
    whole.save_model("good.pth")
    for content in (Hostile(), {"format": "fcast-checkpoint", "weights": Hostile()}):
        torch.save(content, "bad.pth")
        model = ModelRegistry.create(ModelConfig(model_type="dlinear"))
        with pytest.raises(CheckpointError, match=r"bad.pth: expected text and tensors alone, got a pickle that asks"):
            model.load_model("bad.pth")
    with pytest.raises(CheckpointError, match="asks to run .*exec; nothing of it was executed"):
        load_checkpoint("bad.pth")
    assert not Path("executed").exists()


def test_a_pth_file_that_is_damaged_altered_or_something_else_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    model = trained()
    model.save_model(str(path))
    saved = torch.load(path, weights_only=True)
    data = path.read_bytes()
    fresh = ModelRegistry.create(ModelConfig(model_type="dlinear"))

    def refused(message):
        with pytest.raises(CheckpointError, match=message):
            fresh.load_model(str(path))

    path.write_bytes(data[: len(data) // 2])
    refused("expected a file of torch.save, got other or damaged bytes")
    torch.save(saved["weights"], path)
    refused("a bare state_dict lacks scaling and configuration")
    torch.save({**saved, "meta": "{"}, path)
    refused("expected what save_model of fcast writes")
    torch.save({**saved, "meta": saved["meta"].replace('"schema": 2', '"schema": 9')}, path)
    refused("expected checkpoint schema 2, got 9")
    torch.save({**saved, "weights": {**saved["weights"], "head.bias": saved["weights"]["head.bias"] + 1}}, path)
    refused("expected tensors with sha256 .*altered")
    path.unlink()
    refused("expected a file of save_model, got No such file")
    trained("lstm").save_model(str(path))
    refused("expected a model of type 'dlinear', got 'lstm'")


def test_results_need_little_from_a_custom_class():
    assert PredictionResult([1.0], [2.0], [3.0], [0.5]).metadata == {}
