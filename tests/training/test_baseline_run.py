"""Baselines that `fcast-train` is asked for by name: tuned, saved and reported once."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from tests.training.test_cli_train import one_line, write
from tests.training.traces import request_trace
from training.backtest import rolling_forecasts
from training.checkpoint import load_checkpoint
from training.cli_backtest import main as backtest
from training.cli_train import _complete_models, main
from training.compare import check_runs
from training.config import ForecasterConfig, build_runs
from training.errors import CheckpointError, ConfigError
from training.forecasts import load_runs
from training.metrics import scores
from training.registry import model_class, register_model
from training.run import prepare
from training.windows import WindowSource

SMALL = ["--context", "16", "--horizon", "3", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trace") / "made.csv", request_trace(500))


def train(trace_file: Path, out: Path, models: str, *more: str) -> Result:
    arguments = ["--trace", str(trace_file), "--model", models, "--out", str(out), *SMALL, *more]
    return CliRunner().invoke(main, arguments)


def test_a_baseline_named_beside_a_model_is_saved_and_stands_in_the_report_once(
    trace_file: Path, tmp_path: Path
) -> None:
    result = train(trace_file, tmp_path, "dlinear,damped_holt")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in report["models"]] == ["dlinear"]
    row = next(row for row in report["baselines"] if row["name"] == "damped_holt")
    assert row["folder"] == str(tmp_path / "damped_holt")
    assert [b["name"] for b in report["baselines"] if "folder" in b] == ["damped_holt"]
    assert result.stdout.count("damped_holt") == 1 + result.stdout.partition("wQL, lower")[2].count("damped_holt")

    meta = load_checkpoint(tmp_path / "damped_holt").meta
    assert meta["scores"] == {part: row[part] for part in ("validation", "test")}
    chosen = {key: value for key, value in row["settings"].items() if not key.startswith("residuals")}
    assert meta["model"] == {"name": "damped_holt", "params": chosen}

    again = train(trace_file, tmp_path, "dlinear", "--resume")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_baselines_alone_give_a_report_without_models(trace_file: Path, tmp_path: Path) -> None:
    result = train(trace_file, tmp_path, "recent_quantiles,last_value")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["models"], report["best_model"]) == ([], None)
    assert "do not ship" not in result.stdout
    assert f"fcast-export {tmp_path / 'recent_quantiles'}" in result.stdout
    assert "epoch" not in result.stderr


@pytest.mark.parametrize("name", ["damped_holt", "recent_quantiles", "kalman_log1p"])
def test_a_saved_baseline_scores_what_the_report_says(name: str, tmp_path: Path) -> None:
    trace = request_trace(4000)
    settings = {"context": 16, "horizon": 3, "device": "cpu", "split": (70.0, 15.0, 15.0)}
    runs = build_runs([name], settings)
    data = prepare(trace, runs[0].data)
    result = train(write(tmp_path / "t.csv", trace), tmp_path, name, "--split", "70,15,15")
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(tmp_path / name)
    context = checkpoint.meta["context"]
    assert context <= data.split.validation[0]  # all of its windows have their context
    source = WindowSource(data.series, context=context, horizon=3, device=torch.device("cpu"))
    for part, origins in (("validation", data.split.validation), ("test", data.split.test)):
        found = scores(*rolling_forecasts(checkpoint.model, source, origins), data.config.levels, data.series.channels)
        assert found["wql"]["mean"] == pytest.approx(checkpoint.meta["scores"][part]["wql"]["mean"], rel=1e-4)


def test_a_context_is_no_longer_than_half_of_the_windows_can_fill(trace_file: Path, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.csv", request_trace(120))
    assert train(trace, tmp_path, "recent_quantiles,exponential_smoothing").exit_code == 0
    for name in ("recent_quantiles", "exponential_smoothing"):
        checkpoint = load_checkpoint(tmp_path / name)
        windows = checkpoint.meta["split"]["validation"] + checkpoint.meta["split"]["test"]
        assert checkpoint.meta["context"] <= 120
        assert len(checkpoint.windows["context"]) >= windows / 2


def test_resuming_returns_the_same_run_and_refuses_another(trace_file: Path, tmp_path: Path) -> None:
    assert train(trace_file, tmp_path, "damped_holt").exit_code == 0
    weights = (tmp_path / "damped_holt" / "model.safetensors").read_bytes()
    assert "--resume" in one_line(train(trace_file, tmp_path, "damped_holt"), 2)
    assert train(trace_file, tmp_path, "damped_holt", "--resume").exit_code == 0
    assert train(trace_file, tmp_path, "damped_holt", "--overwrite").exit_code == 0
    assert (tmp_path / "damped_holt" / "model.safetensors").read_bytes() == weights
    other = write(tmp_path / "other.csv", request_trace(450, seed=5))
    assert "damped_holt" in one_line(train(other, tmp_path, "damped_holt", "--resume"), 1)


@pytest.mark.parametrize(
    ("model", "series", "message"),
    [
        ("recent_quantiles", "load", "--model recent_quantiles: expected a series it applies to, got none: quantiles"),
        ("seasonal_naive", "requests", "--model seasonal_naive: expected a series it applies to, got none: a season"),
    ],
)
def test_a_baseline_that_does_not_apply_is_refused_with_the_reason(
    trace_file: Path, tmp_path: Path, model: str, series: str, message: str
) -> None:
    out = tmp_path / "runs"
    result = train(trace_file, out, f"dlinear,{model}", "--series", series, "--bin", "1")
    assert message in one_line(result, 2)
    assert not out.exists()


def test_an_altered_file_of_a_baseline_is_refused(trace_file: Path, tmp_path: Path) -> None:
    assert train(trace_file, tmp_path, "last_value,kalman").exit_code == 0
    weights = tmp_path / "last_value" / "model.safetensors"
    weights.write_bytes((tmp_path / "kalman" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="expected the weights of this model"):
        load_checkpoint(tmp_path / "last_value")


def test_a_baselines_name_is_completed_and_known_but_is_no_architecture() -> None:
    context = click.Context(main)
    assert _complete_models(context, main.params[0], "gru,recent") == ["gru,recent_quantiles"]
    assert ForecasterConfig(model="kalman").is_baseline
    assert not ForecasterConfig(model="gru").is_baseline
    with pytest.raises(ConfigError, match="kalman: expected an architecture, got a simple baseline; tune it with"):
        model_class("kalman")
    with pytest.raises(ConfigError, match="expected a new name, got 'kalman' of a simple baseline"):
        register_model("kalman")
    with pytest.raises(ConfigError, match="did you mean 'damped_holt'"):
        ForecasterConfig(model="damped_hold")


def test_a_baseline_takes_no_hyper_parameter_and_no_part_in_an_ensemble(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a known key, got 'hidden_size'"):
        build_runs(["kalman"], {"hidden_size": 8})
    with pytest.raises(ConfigError, match="--ensemble: expected two models or more to train"):
        check_runs(build_runs(["gru", "kalman"], {}), tmp_path, resume=False, overwrite=False, ensemble=True)


def test_a_backtest_leaves_runs_of_baselines_out_as_it_shows_every_baseline_anyway(
    trace_file: Path, tmp_path: Path
) -> None:
    assert train(trace_file, tmp_path, "dlinear,kalman").exit_code == 0
    folders = [str(tmp_path / name) for name in ("kalman", "dlinear")]
    assert [run.name for run in load_runs(folders)] == ["dlinear"]
    result = CliRunner().invoke(backtest, [*folders, "--trace", str(trace_file), "--json"])
    assert result.exit_code == 0, result.output
    names = [row["name"] for row in json.loads(result.stdout)["forecasters"]]
    assert names.count("kalman") == 1
    with pytest.raises(ConfigError, match=r"expected a run of a trained model, got simple baselines alone \(kalman\)"):
        load_runs(folders[:1])


def test_a_baseline_is_neither_searched_nor_started_from(trace_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    message = "--tune: expected models to train, got the baseline kalman; give it without --tune"
    assert message in one_line(train(trace_file, tmp_path, "gru,kalman", "--tune", "2"), 2)
    assert train(trace_file, tmp_path, "kalman").exit_code == 0
    again = train(trace_file, tmp_path / "again", "kalman", "--from", str(tmp_path / "kalman"))
    assert "--from: expected a trained model, got the baseline kalman" in one_line(again, 2)
