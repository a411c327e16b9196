"""`ModelConfig`: what the guide writes is valid, what does not fit is refused by name."""

from __future__ import annotations

import json

import pytest

from training.errors import ConfigError
from training.model_config import ModelConfig, ModelDevice, ModelType


def test_the_guides_partial_configurations_are_valid():
    assert ModelConfig(batch_size=32, sequence_length=50).type_name == ""
    config = ModelConfig(learning_rate=0.0001, epochs=200, early_stopping=True, patience=20)
    assert config._fit_config().patience == 20


def test_names_may_be_strings_or_members():
    for kind, device in ((ModelType.GRU, ModelDevice.CUDA), ("gru", "cuda")):
        config = ModelConfig(model_type=kind, device=device)
        assert (config.model_type, config.type_name, config.to_dict()["device"]) == (ModelType.GRU, "gru", "cuda")


def test_parameters_go_where_they_belong():
    params = {"d_model": 32, "nhead": 2, "num_layers": 1, "dropout": 0.0, "gradient_checkpointing": True, "amp": True}
    run = ModelConfig(model_type="transformer", custom_params={**params, "seed": 3, "log": False}).run_config()
    assert run.model.params == {"d_model": 32, "nhead": 2, "num_layers": 1, "dropout": 0.0}
    assert (run.fit.precision, run.fit.gradient_checkpointing, run.fit.seed, run.model.log) == ("amp", True, 3, False)
    assert (run.data.series, run.data.split) == ("requests", (0.8, 0.2, 0.0))


def test_without_early_stopping_every_epoch_is_trained():
    assert ModelConfig(early_stopping=False, patience=2, epochs=40)._fit_config().patience == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "transformer", "custom_params": {"dmodel": 3}}, "'dmodel'; did you mean 'd_model'"),
        ({"model_type": "lstm", "custom_params": {"hiden_size": 3}}, "did you mean 'hidden_size'"),
        ({"model_type": ModelType.GRU, "custom_params": {"gradient_checkpoint": True}}, "'gradient_checkpointing'"),
        ({"model_type": "lstm", "custom_params": {"hidden_size": "wide"}}, "hidden_size: expected int, got 'wide'"),
        ({"custom_params": {"amp": "yes"}}, "amp: expected True or False, got 'yes'"),
        ({"custom_params": 3}, "custom_params: expected a dict"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"epochs": 1.5}, "epochs: expected a whole number, got 1.5"),
        ({"sequence_length": 1}, "sequence_length: expected 2 to 10000, got 1"),
        ({"prediction_horizon": 0}, "prediction_horizon: expected 1 to 1000"),
        ({"learning_rate": -1.0}, "learning_rate: expected"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings)


def test_a_custom_model_may_have_any_key():
    assert ModelConfig(model_type="custom", custom_params={"my_param1": object()}).custom_params.keys() == {"my_param1"}


def test_it_survives_json():
    config = ModelConfig(model_type="gru", model_name="a", device="cpu", custom_params={"hidden_size": 8})
    assert ModelConfig(**json.loads(json.dumps(config.to_dict()))) == ModelConfig(**config.to_dict())
