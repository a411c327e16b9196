"""`fcast-train --tune` as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.training.test_warm_start import run_cli, wave, write

SMALL = ["--series", "load", "--context", "12", "--horizon", "2", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "t.csv", wave(300))


def test_a_search_trains_its_best_settings_and_writes_them_for_config(trace_file, tmp_path):
    command = ["--trace", trace_file, "--model", "dlinear", *SMALL, "--out", tmp_path / "a"]
    result = run_cli(*command, "--tune", 3)
    assert result.exit_code == 0, result.output
    assert "dlinear: trial 3/3" in result.stderr
    assert "the best of 3 trials" in result.stdout
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    found = report["search"]["dlinear"]
    assert found["best_wql"] <= found["as_given_wql"]
    for key, value in found["settings"].items():
        assert f"--set {key}={value:g}" in result.stdout
    again = ["--trace", trace_file, "--model", "dlinear", "--config", tmp_path / "a" / "tuned.toml"]
    assert run_cli(*again, "--device", "cpu", "--out", tmp_path / "b").exit_code == 0
    weights = [(tmp_path / out / "dlinear" / "model.safetensors").read_bytes() for out in ("a", "b")]
    assert weights[0] == weights[1]


def test_an_earlier_search_goes_on_with_resume_and_its_run_gives_way_to_a_better_one(trace_file, tmp_path):
    command = ["--trace", trace_file, "--model", "dlinear", *SMALL, "--out", tmp_path]
    assert run_cli(*command, "--tune", 1).exit_code == 0
    refused = run_cli(*command, "--tune", 4, "--set", "seed=0")
    assert refused.exit_code == 2
    assert "got checkpoint.json; give --resume" in refused.stderr
    result = run_cli(*command, "--tune", 4, "--resume", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["search"]["dlinear"]["trials"] == 4
    settings = json.loads((tmp_path / "dlinear" / "checkpoint.json").read_text())["config"]["fit"]
    assert settings["learning_rate"] == report["search"]["dlinear"]["settings"]["learning_rate"]
    assert run_cli(*command, "--tune", 4, "--resume").exit_code == 0
    assert run_cli(*command, "--tune", 1, "--overwrite").exit_code == 0


def test_several_models_are_searched_on_the_same_windows(trace_file, tmp_path):
    words = [word for word in SMALL if word not in ("--context", "12")]
    command = ["--trace", trace_file, "--model", "dlinear,multiscale", *words, "--set", "hidden_size=4"]
    result = run_cli(*command, "--tune", 2, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    search = json.loads(result.stdout)["search"]
    assert set(search) == {"dlinear", "multiscale"}
    assert not any("context" in found["settings"] for found in search.values())
    best = min(search, key=lambda name: search[name]["best_wql"])
    assert (tmp_path / "tuned.toml").read_text() == (tmp_path / "tune" / f"{best}.toml").read_text()


def test_a_run_that_is_not_of_the_search_is_kept(trace_file, tmp_path):
    command = ["--trace", trace_file, "--model", "dlinear", *SMALL, "--out", tmp_path]
    assert run_cli(*command).exit_code == 0
    result = run_cli(*command, "--tune", 2, "--resume")
    assert result.exit_code == 2
    assert "expected no run but one of this search, got another; choose another --out" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune", "0"], "--tune: expected 1 trial or more, got 0"),
        (["--tune", "2", "--model", "gru,damped_holt"], "--tune: expected models to train, got the baseline"),
        (["--tune", "2", "--split", "80,20,0"], "split: expected a test part for the report"),
        (["--tune", "2", "--resume", "--overwrite"], "--resume: expected it without --overwrite"),
    ],
)
def test_bad_options_give_one_clear_line(trace_file, tmp_path, arguments, message):
    result = run_cli("--trace", trace_file, *SMALL, "--out", tmp_path / "runs", *arguments)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert (result.exit_code, len(errors)) == (2, 1), result.output
    assert message in errors[0]
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_in_a_search_says_how_to_go_on(trace_file, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.search.fit", interrupted)
    result = run_cli("--trace", trace_file, *SMALL, "--out", tmp_path, "--tune", "2")
    assert result.exit_code == 130
    assert "Repeat the command to go on." in result.stderr


def test_a_search_that_replaces_earlier_runs_and_is_stopped_goes_on_with_resume(trace_file, tmp_path, monkeypatch):
    command = ["--trace", trace_file, "--model", "dlinear", *SMALL, "--out", tmp_path]
    assert run_cli(*command).exit_code == 0

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.search.fit", interrupted)
        stopped = run_cli(*command, "--tune", "2", "--overwrite")
    assert "with --resume instead of --overwrite to go on" in stopped.stderr
    assert run_cli(*command, "--tune", "2", "--resume").exit_code == 0


def test_without_optuna_one_line_says_what_to_install(trace_file, tmp_path):
    code = "import sys; sys.modules['optuna'] = None; from training.cli_train import main; main(sys.argv[1:])"
    words = ["--trace", trace_file, "--model", "dlinear", *SMALL, "--out", tmp_path / "runs", "--tune", "2"]
    bare = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert bare.stderr == "Error: expected the package optuna, got none; pip install 'fcast[train]'\n"
