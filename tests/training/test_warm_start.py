"""A warm start: the weights of one run are the beginning of another, or the difference is named."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.training.traces import count_trace, request_trace
from training.checkpoint import load_checkpoint
from training.checkpoint_file import save_checkpoint_file
from training.cli_train import main
from training.config import build_runs
from training.ensemble import build_ensemble
from training.errors import CheckpointError, ConfigError
from training.fit import validation_wql
from training.run import build_model, prepare, train_model, window_source
from training.warm_start import LEARNING_RATE, start_from, warm_run

SETTINGS = {"series": "load", "context": 12, "horizon": 2, "epochs": 3, "device": "cpu", "calibrate": False}


def wave(bins: int = 400, *, level: float = 60.0, seed: int = 1, bin_s: float = 60.0):
    rng = np.random.default_rng(seed)
    return count_trace(rng.poisson(level * (1 + 0.5 * np.sin(np.arange(bins) / 4))), bin_s=bin_s)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    run = build_runs(["gru"], {**SETTINGS, "epochs": 8, "learning_rate": 0.02, "hidden_size": 8})[0]
    train_model(prepare(wave(), run.data), run, folder)
    return folder


def begin(source, trace, **given):
    """Data, run and the model before its first epoch."""
    start = load_checkpoint(source)
    run = warm_run(start, [], {"device": "cpu", "epochs": 3, "calibrate": False, **given})
    data = prepare(trace, run.data)
    model = build_model(data, run)
    begun = start_from(model, start, window_source(data, torch.device("cpu")), data.split)
    return data, run, model, begun.statistics


def test_on_its_own_trace_a_warm_start_is_the_model_it_came_from(source):
    _, run, model, statistics = begin(source, wave())
    start = load_checkpoint(source)
    context = torch.from_numpy(start.windows["context"][:5])
    assert statistics == "kept"
    assert torch.equal(model.eval()(context)[0], start.model(context)[0])
    assert run.fit.start == start.sha256


def test_on_a_service_of_another_size_it_takes_new_statistics_and_is_ahead_of_random_weights(source):
    data, run, model, statistics = begin(source, wave(level=3000.0, seed=2))
    windows = window_source(data, torch.device("cpu"))
    ours, random = (validation_wql(m, windows, data.split.validation) for m in (model, build_model(data, run)))
    assert statistics in ("new", "moved")
    assert ours < 0.7 * random


def test_the_choice_of_statistics_does_not_read_the_test_part(source):
    found = []
    for factor in (1.0, 50.0):
        trace = wave(level=500.0)
        trace.requests[330:] *= factor
        found.append(begin(source, trace)[2:])
    (a, chosen_a), (b, chosen_b) = found
    assert chosen_a == chosen_b
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_that_only_harms_keeps_the_weights_it_began_with(source, tmp_path):
    data, run, model, _ = begin(source, wave(), learning_rate=1.0)
    checkpoint = train_model(data, run, tmp_path, start=load_checkpoint(source))
    facts = checkpoint.meta["training"]
    assert (facts["best_epoch"], facts["statistics"]) == (0, "kept")
    assert facts["from"] == load_checkpoint(source).sha256
    assert torch.equal(checkpoint.model.state_dict()["head.weight"], model.state_dict()["head.weight"])
    windows = window_source(data, torch.device("cpu"))
    assert facts["best_validation_wql"] == pytest.approx(validation_wql(model, windows, data.split.validation))


def test_a_warm_start_interrupted_and_resumed_ends_with_the_same_weights(source, tmp_path):
    data, run, _, _ = begin(source, wave(level=300.0, seed=3), learning_rate=0.01)
    start = load_checkpoint(source)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = train_model(data, run, tmp_path / "whole", start=start)
    assert whole.meta["training"]["best_epoch"] > 0

    def interrupt(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(data, run, tmp_path / "parts", start=start, on_epoch=interrupt)
    resumed = train_model(data, run, tmp_path / "parts", start=start, resume=True)
    assert resumed.sha256 == whole.sha256


def test_a_warm_start_is_refitted_on_train_and_validation_from_the_same_weights(source, tmp_path):
    data, run, _, _ = begin(source, wave(level=300.0, seed=3), learning_rate=0.01, refit=True)
    checkpoint = train_model(data, run, tmp_path, start=load_checkpoint(source))
    assert checkpoint.meta["training"]["best_epoch"] > 0


def test_weights_that_are_no_help_are_named(source, tmp_path, caplog):
    noise = count_trace(np.random.default_rng(0).poisson(60, 400))
    data, run, _, _ = begin(source, noise, bin_s=10.0)
    with caplog.at_level(logging.WARNING):
        train_model(data, run, tmp_path, start=load_checkpoint(source))
    assert "expected weights that are ahead of random ones on validation, got wQL" in caplog.text


def test_a_run_that_began_elsewhere_is_not_resumed(source, tmp_path):
    data, run, _, _ = begin(source, wave())
    train_model(data, run, tmp_path, start=load_checkpoint(source))
    cold = build_runs(["gru"], {**SETTINGS, "hidden_size": 8, "calendar": "none", "learning_rate": LEARNING_RATE})[0]
    cold = replace(cold, model=run.model)
    with pytest.raises(CheckpointError, match="expected start = None, got"):
        train_model(data, cold, tmp_path, resume=True)


def test_settings_are_those_of_the_checkpoint_unless_given(source):
    run = warm_run(load_checkpoint(source), [], {"epochs": 7, "learning_rate": 0.5})
    assert (run.data.series, run.data.context, run.data.horizon) == ("load", 12, 2)
    assert (run.model.model, run.model.params) == ("gru", {"hidden_size": 8})
    assert (run.fit.epochs, run.fit.learning_rate) == (7, 0.5)
    assert warm_run(load_checkpoint(source), ["gru"], {}).fit.learning_rate == LEARNING_RATE


def test_the_start_is_no_setting():
    with pytest.raises(ConfigError, match="expected a known key, got 'start'"):
        build_runs(["gru"], {"start": "0" * 64})


def test_the_width_of_a_bin_may_differ(source):
    data, *_ = begin(source, wave(bin_s=600.0), bin_s=600.0)
    assert data.series.bin_s == 600.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": 16}, "expected context = 12 as in that checkpoint, got 16; leave the setting out"),
        ({"horizon": 3}, "expected horizon = 2 as in that checkpoint, got 3"),
        ({"levels": [0.1, 0.5, 0.9]}, "expected levels = "),
        ({"hidden_size": 16}, "expected hidden_size = 8 as in that checkpoint, got 16"),
        ({"step_s": 120.0}, "expected bins per forecast step = 1 as in that checkpoint, got 2"),
        ({"log": False}, "expected log = True as in that checkpoint, got False"),
        ({"center": False}, "expected center = True as in that checkpoint, got False"),
    ],
)
def test_the_first_difference_is_named(source, tmp_path, given, message):
    start = load_checkpoint(source)
    run = warm_run(start, [], {"device": "cpu", **given})
    with pytest.raises(ConfigError, match=message):
        train_model(prepare(wave(), run.data), run, tmp_path, start=start)
    assert not list(tmp_path.iterdir())


def test_a_series_of_other_channels_is_refused(source, tmp_path):
    start = load_checkpoint(source)
    run = warm_run(start, [], {"device": "cpu", "bin_s": 1.0})
    with pytest.raises(ConfigError, match=r"expected channels = \['requests'\] as in that checkpoint, got \['req.*tok"):
        train_model(prepare(request_trace(500), run.data), run, tmp_path, start=start)


def test_other_models_are_refused(source):
    for models in (["dlinear"], ["gru", "lstm"]):
        with pytest.raises(ConfigError, match="expected --model gru as in that checkpoint, got " + ", ".join(models)):
            warm_run(load_checkpoint(source), models, {})


def test_an_ensemble_is_no_start(source, tmp_path):
    run = build_runs(["gru"], {**SETTINGS, "hidden_size": 8})[0]
    ensemble = build_ensemble(prepare(wave(), run.data), [source, source], tmp_path)
    with pytest.raises(ConfigError, match="expected one architecture, got an ensemble of gru, gru; give the run of a"):
        warm_run(ensemble, [], {})


def write(path, trace):
    rows = zip(trace.time_s, trace.requests, strict=True)
    path.write_text("start_s,requests\n" + "".join(f"{t:.0f},{n:.0f}\n" for t, n in rows))
    return path


def run_cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("form", ["folder", "file"])
def test_the_command_trains_from_a_folder_or_a_file_with_its_settings(source, tmp_path, form):
    given = source
    if form == "file":
        given = tmp_path / "source.pth"
        save_checkpoint_file(given, load_checkpoint(source))
    trace = write(tmp_path / "newer.csv", wave(level=70.0, seed=4))
    options = ["--trace", trace, "--from", given, "--epochs", 2, "--device", "cpu", "--out", tmp_path / "runs"]
    result = run_cli(*options)
    assert result.exit_code == 0, result.output
    meta = load_checkpoint(tmp_path / "runs" / "gru").meta
    assert (meta["context"], meta["training"]["from"]) == (12, load_checkpoint(source).sha256)
    assert meta["config"]["fit"]["start"] == meta["training"]["from"]
    assert run_cli(*options, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--from", "{source}", "--context", "20"], 2, "--from: expected context = 12"),
        (["--from", "{source}", "--model", "gru,lstm"], 2, "--from: expected --model gru"),
        (["--from", "/nothing"], 1, "/nothing: expected a run folder of fcast-train, got No such file"),
        (["--from", "/nothing.pth"], 1, "/nothing.pth: expected a file of save_model"),
        (["--from", "{source}", "--ensemble"], 2, "--ensemble: expected two models or more to train"),
        (["--from", "{source}", "--tune", "3"], 2, "--tune: expected it without --from"),
    ],
)
def test_a_bad_start_gives_one_clear_line(source, tmp_path, arguments, code, message):
    trace = write(tmp_path / "t.csv", wave())
    words = [word.format(source=source) for word in arguments]
    result = run_cli("--trace", trace, *words, "--out", tmp_path / "runs", "--device", "cpu")
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert (result.exit_code, len(errors)) == (code, 1), result.output
    assert message in errors[0]
    assert not (tmp_path / "runs").exists()


def test_the_report_says_when_the_start_has_seen_days_of_the_test_part(tmp_path):
    counts = wave(300).requests
    rows = [f"{1_700_000_040 + 60 * minute},{count:.0f}\n" for minute, count in enumerate(counts)]
    said = {}
    for out, part, start in (
        ("first", slice(0, 300), []),
        ("earlier", slice(0, 200), ["--from", tmp_path / "first/gru"]),
        ("newer", slice(100, 300), ["--from", tmp_path / "first/gru"]),
    ):
        trace = tmp_path / f"{out}.csv"
        trace.write_text("start_s,requests\n" + "".join(rows[part]))
        options = ["--series", "load", "--context", 12, "--horizon", 2, "--epochs", 1, "--device", "cpu"]
        result = run_cli("--trace", trace, *options, *start, "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
        said[out] = "trained on days of this test part: gru" in result.stdout
    assert said == {"first": False, "earlier": True, "newer": False}


def test_a_baseline_is_no_start(tmp_path):
    words = ["--trace", write(tmp_path / "t.csv", wave()), "--device", "cpu"]
    shape = ["--series", "load", "--context", 12, "--horizon", 2]
    trained = run_cli(*words, *shape, "--model", "last_value", "--out", tmp_path / "runs")
    assert trained.exit_code == 0, trained.output
    result = run_cli(*words, "--from", tmp_path / "runs" / "last_value", "--out", tmp_path / "more")
    assert result.exit_code == 2
    assert "--from: expected a trained model, got the baseline last_value" in result.stderr
