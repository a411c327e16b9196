"""`fcast-train --list`: what a folder of runs holds, told truly, whatever state it is in."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.training.test_cli_train import one_line, run, write
from tests.training.traces import request_trace
from training.errors import CheckpointError
from training.run_list import best_run, list_runs

SMALL = ["--context", "16", "--horizon", "3", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of one command, a baseline's beside them, and one on another series below."""
    folder = tmp_path_factory.mktemp("list")
    trace = write(folder / "made.csv", request_trace(500))
    for out, more in (
        ("runs", ["--model", "gru,dlinear,damped_holt", "--set", "hidden_size=8"]),
        ("runs/load", ["--model", "dlinear", "--series", "load", "--bin", "1"]),
    ):
        result = run("--trace", trace, "--out", folder / out, *SMALL, *more)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained / "runs", tmp_path / "runs")


def by_name(out):
    return {row["name"]: row for row in list_runs(out)}


def test_every_run_is_listed_with_its_scores_beside_the_best_baseline(runs):
    rows = by_name(runs)
    assert rows.keys() == {"gru", "dlinear", "damped_holt", "load/dlinear"}
    report = json.loads((runs / "report.json").read_text())
    reported = {row["name"]: row for row in report["models"] + report["baselines"]}
    bar = reported[report["best_baseline"]]["test"]["wql"]["mean"]
    for name in ("gru", "dlinear", "damped_holt"):
        row = rows[name]
        assert (row["state"], row["problem"], row["model"]) == ("finished", None, name)
        assert row["validation"] == pytest.approx(reported[name]["validation"]["wql"]["mean"])
        assert row["test"] == pytest.approx(reported[name]["test"]["wql"]["mean"])
        assert row["best_baseline"]["name"] == report["best_baseline"]
        assert row["versus"] == pytest.approx(row["test"] / bar - 1)
        assert row["trace"]["sources"] == ["made.csv"]
        assert row["size_bytes"] == sum(path.stat().st_size for path in (runs / name).rglob("*") if path.is_file())
    assert [rows[name]["baseline"] for name in ("gru", "damped_holt")] == [False, True]
    assert rows["load/dlinear"]["data"]["series"] == "load"


def test_a_run_without_its_report_has_no_comparison(runs):
    (runs / "report.json").write_text("{")
    assert "versus" not in by_name(runs)["gru"]
    shutil.copy(runs / "load" / "report.json", runs / "report.json")  # a report on other data is not its own
    assert "versus" not in by_name(runs)["gru"]


def test_an_interrupted_run_says_how_far_it_came(runs):
    (runs / "gru" / "checkpoint.json").unlink()
    row = by_name(runs)["gru"]
    assert (row["state"], row["epochs"]) == ("unfinished", {"done": 2, "of": 2})
    assert "--resume" in row["problem"]
    (runs / "gru" / "last.safetensors").unlink()
    row = by_name(runs)["gru"]
    assert (row["state"], row["problem"]) == ("unfinished", "stopped before its first whole epoch")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "checkpoint.json").write_text("{"), "expected a checkpoint's JSON, got a damaged"),
        (lambda folder: (folder / "checkpoint.json").write_text('{"schema": 2}'), "got none for 'sha256'"),
        (lambda folder: (folder / "checkpoint.json").write_text('{"schema": 99}'), "expected checkpoint schema"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), r"expected sha256 \w+"),
        (lambda folder: (folder / "model.safetensors").unlink(), "expected a file of tensors, got none"),
        (
            lambda folder: [
                (folder / "checkpoint.json").unlink(),
                (folder / "last.safetensors").write_bytes(b"\xff" * 100),
            ],
            "expected a saved run, got a damaged file",
        ),
    ],
    ids=["cut facts", "no facts", "schema", "weights", "no weights", "cut progress"],
)
def test_a_damaged_run_is_shown_as_such_and_hides_no_other(runs, damage, problem):
    damage(runs / "gru")
    rows = by_name(runs)
    assert rows["gru"]["state"] == "damaged"
    assert [name for name, row in rows.items() if row["state"] == "finished"] == [
        name for name in rows if name != "gru"
    ]
    result = run("--list", "--out", runs)
    assert result.exit_code == 0
    assert "damaged" in result.stdout
    assert re.search(f"gru: .*{problem}", result.stdout)


def test_the_command_lists_without_a_trace_and_as_json(runs, tmp_path):
    result = run("--list", "--out", runs)
    assert result.exit_code == 0
    for name in ("gru", "load/dlinear", "damped_holt", "finished", "made.csv"):
        assert name in result.stdout
    assert json.loads(run("--list", "--out", runs, "--json").stdout) == list_runs(runs)
    (tmp_path / "empty").mkdir()
    result = run("--list", "--out", tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no runs" in result.stderr
    assert "expected a folder of runs, got none" in one_line(run("--list", "--out", tmp_path / "none"), 2)


def test_a_trace_is_still_asked_for(tmp_path):
    result = run("--out", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing option '--trace'" in result.stderr


def test_the_best_is_chosen_by_validation_and_never_by_test(runs):
    rows = list_runs(runs)
    models = [row for row in rows if row["name"] in ("gru", "dlinear")]
    best = min(models, key=lambda row: row["validation"])
    assert best_run(models, runs) is best
    for row in models:
        row["test"] = 9.0 if row is best else 0.0
    assert best_run(models, runs) is best


def test_a_baseline_that_was_tuned_on_validation_is_no_rival_of_a_model(runs):
    rows = [row for row in list_runs(runs) if row["name"] in ("gru", "damped_holt")]
    assert best_run(rows, runs)["name"] == "gru"
    assert best_run([row for row in rows if row["baseline"]], runs)["name"] == "damped_holt"


def test_runs_that_do_not_compare_and_folders_without_any_are_refused(runs):
    with pytest.raises(CheckpointError, match=r"expected runs on one trace .* got 2 kinds among .*load/dlinear"):
        best_run(list_runs(runs), runs)
    for name in ("gru", "dlinear", "damped_holt", "load/dlinear"):
        (runs / name / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected a finished run, got 4 others; see fcast-train --list"):
        best_run(list_runs(runs), runs)
