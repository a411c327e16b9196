"""Settings: from the command line and TOML to checked, frozen dataclasses."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from training.config import DataConfig, FitConfig, ForecasterConfig, RunConfig, build_runs, parse_setting
from training.errors import ConfigError
from training.run_file import read_run_file


def test_every_default_is_valid_and_survives_json():
    run = RunConfig()
    assert RunConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_settings_go_to_the_part_that_owns_them():
    run = build_runs(["gru"], {"context": 20, "epochs": 3, "hidden_size": 9, "center": False, "split": [4, 1, 2]})[0]
    assert (run.data.context, run.fit.epochs, run.model.params, run.model.center) == (20, 3, {"hidden_size": 9}, False)
    assert run.data.split == (4.0, 1.0, 2.0)


def test_a_hyper_parameter_goes_to_every_chosen_model_that_has_it():
    runs = build_runs(["gru", "dlinear"], {"hidden_size": 9, "kernel_size": 5})
    assert [run.model.params for run in runs] == [{"hidden_size": 9}, {"kernel_size": 5}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "'epoch'; did you mean 'epochs'"),
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"epochs": "many"}, "epochs: expected int, got 'many'"),
        ({"epochs": True}, "epochs: expected int, got True"),
        ({"split": ["a", "b"]}, "split: expected numbers, comma-separated"),
        ({"model": "gru"}, "--model names models"),
        ({"data": {"context": 3}}, "expected flat keys, got 'data'"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"levels": [0.9, 0.1]}, "levels: expected ascending"),
        ({"levels": [0.5, 1.5]}, "levels: expected ascending"),
        ({"split": [1, 2]}, "split: expected three positive proportions"),
        ({"bin_s": -1}, "bin_s: expected 0.001 to 1e9 seconds"),
        ({"series": "tokens"}, "series: expected one of requests, load"),
        ({"calendar": "month"}, "calendar: expected one of auto"),
        ({"learning_rate": 0}, "learning_rate: expected"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_runs(["gru"], settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", ("epochs", 3)),
        ("learning_rate=1e-3", ("learning_rate", 0.001)),
        ("center=false", ("center", False)),
        ("split=4,1,2", ("split", [4, 1, 2])),
        ("calendar=day+week", ("calendar", "day+week")),
    ],
)
def test_set_values_are_read_as_what_they_look_like(text, expected):
    assert parse_setting(text) == expected


def test_set_needs_an_equals_sign():
    with pytest.raises(ConfigError, match="--set: expected key=value, got 'epochs'"):
        parse_setting("epochs")


def test_toml_holds_the_same_keys(tmp_path):
    (tmp_path / "run.toml").write_text("epochs = 3\nsplit = [4, 1, 2]\n")
    assert build_runs(["gru"], read_run_file(tmp_path / "run.toml").settings)[0].data.split == (4.0, 1.0, 2.0)


def test_a_file_that_is_not_toml_or_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a TOML file, got No such file"):
        read_run_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad.toml: expected TOML, got an error"):
        read_run_file(tmp_path / "bad.toml")


def test_config_is_frozen():
    for config in (DataConfig(), ForecasterConfig(), FitConfig()):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(config, fields(config)[0].name, 3)
