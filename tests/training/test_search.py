"""The search: what it tries, that it goes on where it was killed, and that it never sees test data."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.test_warm_start import wave
from training import registry
from training.config import build_runs
from training.errors import CheckpointError, ConfigError, TrainingError
from training.registry import model_params, register_model
from training.search_log import COMPLETE, PRUNED
from training.search_space import search_space, searched_contexts, settings_of
from training.tune import tune_models

SETTINGS = {"series": "load", "context": 12, "horizon": 2, "epochs": 2, "device": "cpu"}


def tune(out, trials=4, *, models=("dlinear",), trace=None, overwrite=False, on_trial=None, **given):
    settings = {**SETTINGS, **given}
    return tune_models(
        trace or wave(300),
        build_runs(models, settings),
        settings,
        out,
        trials=trials,
        overwrite=overwrite,
        on_trial=on_trial or (lambda model, number, trial: None),
    )


def trials_of(tuned):
    return [(trial.params, trial.wql, trial.ended) for trial in tuned[0].trials]


@pytest.mark.parametrize("model", registry._BUILT_IN)
def test_the_space_lies_around_the_defaults_of_every_model(model):
    space = search_space(build_runs([model], {})[0], given=(), contexts=[50])
    assert {"learning_rate", "weight_decay", "batch_size"} | set(model_params(model)) - {"dropout"} <= set(space)
    for name, dimension in space.items():
        if dimension.values:
            assert dimension.default in dimension.values
            assert min(dimension.values) >= 1
        else:
            assert dimension.low <= dimension.default <= dimension.high
            assert dimension.log == (name != "dropout")
    assert space["batch_size"].values == (64, 128, 256)


def test_a_users_own_model_is_searched_too(own_registry):
    @register_model("mine")
    class Mine(torch.nn.Module):
        def __init__(
            self, channels, context, horizon, *, width: int = 8, gain: float = 0.5, gated: bool = False, kind: str = "a"
        ):
            super().__init__()

    space = search_space(build_runs(["mine"], {})[0], given={"learning_rate"}, contexts=[25, 50, 100])
    assert set(space) == {"weight_decay", "batch_size", "width", "gain", "gated", "context"}
    assert space["width"].values == (4, 8, 16)
    assert (space["gain"].low, space["gain"].high) == (0.0625, 4.0)
    assert space["context"].values == (25, 50, 100)


def test_what_is_given_is_not_searched(tmp_path):
    tuned = tune(tmp_path, 2, kernel_size=5, learning_rate=0.01)
    assert set(tuned[0].best.settings) == {"weight_decay", "batch_size"}
    assert tuned[0].run.model.params == {"kernel_size": 5}
    assert tuned[0].run.fit.learning_rate == 0.01
    given = {"learning_rate", "weight_decay", "batch_size", "kernel_size", "context"}
    with pytest.raises(ConfigError, match="expected a setting of dlinear to search, got all of them given"):
        search_space(build_runs(["dlinear"], {})[0], given=given, contexts=[12])


def test_contexts_are_those_that_the_trace_allows_and_share_their_windows():
    run = build_runs(["dlinear"], {**SETTINGS, "context": 20})[0]
    datas = searched_contexts(wave(300), run.data, vary=True)
    assert set(datas) == {10, 20, 40}
    assert {context: data.config.context for context, data in datas.items()} == {10: 10, 20: 20, 40: 40}
    assert len({data.split.train.tobytes() for data in datas.values()}) == 1
    assert set(searched_contexts(wave(300), run.data, vary=False)) == {20}


def test_settings_have_three_digits_so_that_what_is_printed_is_what_is_trained():
    assert settings_of({"learning_rate": 0.0012345, "batch_size": 64}) == {"learning_rate": 0.00123, "batch_size": 64}


def test_the_first_trial_has_the_settings_as_given_and_the_best_is_no_worse(tmp_path):
    (tuned,) = tune(tmp_path, 5)
    space = search_space(build_runs(["dlinear"], SETTINGS)[0], given=SETTINGS, contexts=[12])
    assert tuned.trials[0].params == {name: dimension.default for name, dimension in space.items()}
    assert len({json.dumps(trial.params) for trial in tuned.trials}) == 5
    complete = [trial.best_wql for trial in tuned.trials if trial.ended == COMPLETE]
    assert tuned.best.best_wql == min(complete) <= tuned.trials[0].best_wql
    assert all(getattr(tuned.run.fit, key) == tuned.best.settings[key] for key in ("learning_rate", "batch_size"))


def test_a_context_can_be_the_best(tmp_path):
    settings = {key: value for key, value in SETTINGS.items() if key != "context"}
    runs = build_runs(["dlinear"], settings)
    (tuned,) = tune_models(wave(1200), runs, settings, tmp_path, trials=3, overwrite=False)
    assert {trial.params["context"] for trial in tuned.trials} <= {25, 50, 100, 200}
    assert tuned.run.data.context == tuned.best.settings["context"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tune(tmp_path_factory.mktemp("whole"), 9)


@pytest.mark.parametrize("killed_in", [1, 8])
def test_a_search_killed_in_a_trial_goes_on_to_the_trials_of_one_that_was_not(whole, tmp_path, killed_in):
    def kill(model, number, trial):
        if number == killed_in:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, 9, on_trial=kill)
    assert trials_of(tune(tmp_path, 9)) == trials_of(whole)
    assert any(trial.ended == PRUNED for trial in whole[0].trials)


def test_a_trial_that_was_cut_short_is_made_again(tmp_path):
    def cut(model, epoch):
        raise KeyboardInterrupt

    settings = dict(SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        tune_models(
            wave(300),
            build_runs(["dlinear"], settings),
            settings,
            tmp_path,
            trials=2,
            overwrite=False,
            on_epoch=cut,
        )
    assert not list(tmp_path.glob("tune/*.json"))
    assert len(tune(tmp_path, 2)[0].trials) == 2
    assert sorted(path.name for path in (tmp_path / "tune").iterdir()) == ["dlinear.json", "dlinear.toml"]


def test_a_search_does_not_depend_on_the_test_part(tmp_path):
    found = []
    for factor in (1.0, 50.0):
        trace = wave(300)
        trace.requests[242:] *= factor
        found.append(trials_of(tune(tmp_path / str(factor), 3, trace=trace)))
    assert found[0] == found[1]


def test_settings_that_cannot_be_trained_are_set_aside(tmp_path, own_registry):
    @register_model("picky")
    class Picky(torch.nn.Module):
        def __init__(self, channels, context, horizon, *, width: int = 4):
            super().__init__()
            if width != 4:
                raise ValueError("width is not 4")
            self.layer = torch.nn.Linear(channels, width)

        def forward(self, x):
            return self.layer(x)

    fixed = {"learning_rate": 0.01, "weight_decay": 0.01, "batch_size": 64}
    (tuned,) = tune(tmp_path, 6, models=("picky",), **fixed)
    ended = {trial.params["width"]: trial.ended for trial in tuned.trials}
    assert ended[4] == COMPLETE
    assert all("width is not 4" in why for width, why in ended.items() if width != 4)
    assert len(ended) > 1
    assert tuned.best.settings == {"width": 4}
    assert trials_of(tune(tmp_path, 6, models=("picky",), **fixed)) == trials_of([tuned])


def test_settings_as_given_that_cannot_be_trained_end_the_search(tmp_path):
    with pytest.raises(TrainingError, match="calendar: expected a trace with wall-clock times"):
        tune(tmp_path, 3, calendar="day")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 3}, "dlinear.json: expected epochs = 3, got 2 in the saved run"),
        ({"learning_rate": 0.002}, "dlinear.json: expected learning_rate to be a fixed value, got .*default.*--overw"),
        ({"trace": wave(301)}, "dlinear.json: expected a run on this trace"),
    ],
)
def test_a_search_of_other_settings_is_not_taken_up(tmp_path, given, message):
    tune(tmp_path, 1)
    with pytest.raises(CheckpointError, match=message):
        tune(tmp_path, 2, **given)
    assert len(tune(tmp_path, 1, overwrite=True, **given)[0].trials) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "trials": []}', "null"])
def test_a_damaged_log_is_refused(tmp_path, text):
    tune(tmp_path, 1)
    (tmp_path / "tune" / "dlinear.json").write_text(text)
    with pytest.raises(CheckpointError, match="dlinear.json: expected the trials of a search, got other JSON"):
        tune(tmp_path, 2)
