"""`--config`: several runs of one file, and a run made again from what its folder holds."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.test_cli_train import one_line, run, write
from tests.training.traces import request_trace
from training import many_runs
from training.errors import CheckpointError, ConfigError
from training.run_file import differences, read_run_file, table_settings

SHARED = """
context = 16
horizon = 3
epochs = 2
device = "cpu"
"""
THREE = """
[[run]]
model = ["gru", "dlinear"]
ensemble = true
hidden_size = 8

[[run]]
name = "too-long"
model = "dlinear"
context = 600

[[run]]
name = "other-seed"
model = "gru"
hidden_size = 8
seed = 1
"""


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "made.csv", request_trace(500))


def config(path, text):
    path.write_text(text)
    return path


def test_each_run_has_its_folder_and_one_that_fails_loses_no_other(trace_file, tmp_path):
    file, out = config(tmp_path / "runs.toml", SHARED + THREE), tmp_path / "runs"
    result = run("--trace", trace_file, "--config", file, "--out", out)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    for name in ("gru-dlinear/gru", "gru-dlinear/dlinear", "gru-dlinear/ensemble", "other-seed/gru"):
        assert (out / name / "checkpoint.json").exists()
        assert name in result.stdout
    for name in ("gru-dlinear", "other-seed"):
        assert (out / name / "report.md").exists()
        assert (out / name / "curves.png").exists()
    assert "too-long failed: train part: expected at least one window of 600 + 3 steps" in result.stdout
    weights = [(out / name / "gru" / "model.safetensors").read_bytes() for name in ("gru-dlinear", "other-seed")]
    assert weights[0] != weights[1]


def test_the_baselines_of_equal_data_are_tuned_once(trace_file, tmp_path, monkeypatch):
    tuned = []
    inner = many_runs.tune_baselines
    monkeypatch.setattr(many_runs, "tune_baselines", lambda data: tuned.append(data.config) or inner(data))
    text = SHARED + '[[run]]\nname = "a"\n[[run]]\nname = "b"\nseed = 1\n[[run]]\nname = "c"\ncontext = 20\n'
    file = config(tmp_path / "runs.toml", text)
    result = run("--trace", trace_file, "--config", file, "--out", tmp_path, "--set", "hidden_size=8", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["reports"].keys() == {"a", "b", "c"}
    assert [data.context for data in tuned] == [16, 20]
    small = ["--context", "16", "--horizon", "3", "--epochs", "2", "--set", "hidden_size=8", "--device", "cpu"]
    alone = run("--trace", trace_file, "--out", tmp_path / "alone", *small, "--json")
    assert json.loads(alone.stdout)["baselines"] == json.loads(result.stdout)["reports"]["b"]["baselines"]


def test_a_failure_that_nobody_foresaw_is_told_and_the_rest_trains(trace_file, tmp_path, monkeypatch):
    inner = many_runs.train_models

    def out_of_memory(data, runs, out, **options):
        if out.name == "a":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(data, runs, out, **options)

    monkeypatch.setattr(many_runs, "train_models", out_of_memory)
    text = SHARED + 'model = "dlinear"\n[[run]]\nname = "a"\n[[run]]\nname = "b"\n'
    result = run("--trace", trace_file, "--config", config(tmp_path / "r.toml", text), "--out", tmp_path)
    assert result.exit_code == 1
    assert "a failed: OutOfMemoryError: CUDA out of memory" in result.stdout
    assert (tmp_path / "b" / "dlinear" / "checkpoint.json").exists()


def test_the_same_command_with_resume_trains_what_is_missing(trace_file, tmp_path):
    text = SHARED + 'model = "dlinear"\n[[run]]\nname = "a"\n[[run]]\nname = "b"\n'
    arguments = ["--trace", trace_file, "--config", config(tmp_path / "r.toml", text), "--out", tmp_path / "runs"]
    assert run(*arguments).exit_code == 0
    assert "--resume" in one_line(run(*arguments), 2)
    (tmp_path / "runs" / "b" / "dlinear" / "checkpoint.json").unlink()
    before = (tmp_path / "runs" / "a" / "dlinear" / "checkpoint.json").stat().st_mtime_ns
    assert run(*arguments, "--resume").exit_code == 0
    assert (tmp_path / "runs" / "a" / "dlinear" / "checkpoint.json").stat().st_mtime_ns == before
    assert (tmp_path / "runs" / "b" / "dlinear" / "checkpoint.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[run]]\nepoch = 3\n", "run gru: setting: expected a known key, got 'epoch'; did you mean 'epochs'"),
        ('[[run]]\nmodel = "gruu"\n', "run gruu: .*did you mean 'gru'"),
        ("[[run]]\nmodel = 3\n", 'expected model as "gru" or'),
        ('[[run]]\nname = "../x"\n', "expected name as that of a folder, got '../x'"),
        ("[[run]]\n[[run]]\n", "expected runs with names of their own, got 'gru' twice"),
        ('[[run]]\nensemble = "yes"\n', "expected ensemble as true or false"),
        ("[[run]]\nensemble = true\n", "--ensemble: expected two models or more"),
        ("[run]\nepochs = 3\n", r"expected runs as \[\[run\]\] tables"),
        ("[data]\nepochs = 3\n", "expected flat keys, got 'data'"),
    ],
)
def test_every_run_is_checked_before_the_first_trains(trace_file, tmp_path, text, message):
    file = config(tmp_path / "runs.toml", SHARED + '[[run]]\nname = "first"\n' * ("[[run]]" in text) + text)
    result = run("--trace", trace_file, "--config", file, "--out", tmp_path / "runs")
    one_line(result, 2)
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(result.stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", [["--model", "gru"], ["--ensemble"], ["--tune", "2"]])
def test_options_of_a_single_run_do_not_go_with_several(trace_file, tmp_path, option):
    file = config(tmp_path / "runs.toml", SHARED + THREE)
    line = one_line(run("--trace", trace_file, "--config", file, "--out", tmp_path, *option), 2)
    assert f"{option[0]}: expected it without [[run]] tables" in line


def test_a_table_overrides_what_all_share_and_the_command_line_both(tmp_path):
    file = read_run_file(config(tmp_path / "r.toml", SHARED + "[[run]]\nepochs = 5\n"))
    (table,) = file.tables
    assert table_settings(file, table) == {"context": 16, "horizon": 3, "epochs": 5, "device": "cpu"}


@pytest.mark.parametrize("model", ["gru", "transformer", "multiscale", "damped_holt"])
def test_a_run_made_again_from_its_folder_is_equal_to_the_bit(trace_file, tmp_path, model):
    first = ["--model", model, "--series", "load", "--bin", "1", "--context", "16", "--horizon", "3", "--seed", "7"]
    more = ["--epochs", "2", "--device", "cpu", "--set", "split=50,30,20", "--set", "levels=0.1,0.5,0.9"]
    hyper = {"gru": ["--set", "hidden_size=8"], "transformer": ["--set", "d_model=8", "--set", "nhead=2"]}
    done = run("--trace", trace_file, "--out", tmp_path / "a", *first, *more, *hyper.get(model, []))
    assert done.exit_code == 0, done.output
    for source in (tmp_path / "a" / model, tmp_path / "a" / model / "checkpoint.json"):
        again = run("--trace", trace_file, "--out", tmp_path / "b", "--config", source, "--overwrite")
        assert again.exit_code == 0, again.output
        assert "May come out otherwise than the run did" not in again.stderr
        for name in ("model.safetensors", "windows.safetensors"):
            assert (tmp_path / "a" / model / name).read_bytes() == (tmp_path / "b" / model / name).read_bytes()
        metas = [json.loads((tmp_path / out / model / "checkpoint.json").read_text()) for out in "ab"]
        assert metas[0]["config"] == metas[1]["config"]
        assert metas[0]["scores"] == metas[1]["scores"]


def test_a_warm_run_asks_for_the_weights_that_it_began_with(trace_file, tmp_path):
    small = ["--model", "gru", "--set", "hidden_size=8", "--context", "16", "--horizon", "3", "--epochs", "1"]
    assert run("--trace", trace_file, "--out", tmp_path / "a", *small, "--device", "cpu").exit_code == 0
    start = ["--from", tmp_path / "a" / "gru"]
    assert run("--trace", trace_file, "--out", tmp_path / "b", *start, "--epochs", "1").exit_code == 0
    again = ["--trace", trace_file, "--out", tmp_path / "c", "--config", tmp_path / "b" / "gru"]
    assert "expected --from with the weights that the run began with" in one_line(run(*again), 2)
    result = run(*again, *start)
    assert result.exit_code == 0, result.output
    weights = [(tmp_path / out / "gru" / "model.safetensors").read_bytes() for out in "bc"]
    assert weights[0] == weights[1]


def test_what_makes_a_run_come_out_otherwise_is_said(trace_file, tmp_path):
    small = ["--model", "dlinear", "--context", "16", "--horizon", "3", "--epochs", "1", "--device", "cpu"]
    assert run("--trace", trace_file, "--out", tmp_path / "a", *small).exit_code == 0
    other = write(tmp_path / "other.csv", request_trace(450, seed=5))
    result = run("--trace", other, "--out", tmp_path / "b", "--config", tmp_path / "a" / "dlinear")
    assert result.exit_code == 0, result.output
    assert (
        "May come out otherwise than the run did: the trace is another than that of the run (made.csv, "
        in result.stderr
    )
    made = json.loads((tmp_path / "a" / "dlinear" / "checkpoint.json").read_text())
    same = {"fingerprint": made["trace"]["fingerprint"], "libraries": made["libraries"]}
    threads = made["training"]["threads"]
    assert differences(made, **same, threads=threads) == []
    (line,) = differences(made, **same, threads=threads + 3)
    assert f"set OMP_NUM_THREADS={threads}" in line
    newer = {**same, "libraries": {**made["libraries"], "torch": "9.9"}}
    assert differences(made, **newer, threads=threads) == [f"torch is 9.9, was {made['libraries']['torch']}"]
    on_gpu = {**made, "training": {**made["training"], "device": "cuda:0"}}
    assert "only runs on the CPU come out equal" in differences(on_gpu, **same, threads=threads)[0]


def test_folders_that_can_not_be_made_again_say_why(trace_file, tmp_path):
    small = ["--context", "16", "--horizon", "3", "--epochs", "1", "--device", "cpu", "--set", "hidden_size=8"]
    models = ["--model", "gru,dlinear", "--ensemble"]
    assert run("--trace", trace_file, "--out", tmp_path / "a", *models, *small).exit_code == 0
    with pytest.raises(ConfigError, match="expected a run that was trained, got an ensemble of gru, dlinear"):
        read_run_file(tmp_path / "a" / "ensemble")
    with pytest.raises(CheckpointError, match="got a folder of runs; give one of"):
        read_run_file(tmp_path / "a")
