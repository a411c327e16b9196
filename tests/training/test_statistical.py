"""AutoARIMA and AutoETS, where statsforecast is installed; what is said where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.training.test_baselines import CONTEXT, HORIZON, LEVELS, TEST, VALIDATION, _series, _traffic
from tests.training.test_cli_train import write
from tests.training.traces import request_trace
from training import statistical
from training.baselines import left_out, run_baselines
from training.cli_backtest import main
from training.cli_train import main as train
from training.metrics import wql

needs_statsforecast = pytest.mark.skipif(
    not statistical.installed(), reason="needs statsforecast (pip install 'fcast[arima]')"
)
OPTIONS = {"context": CONTEXT, "horizon": HORIZON, "levels": LEVELS, "validation": VALIDATION}


def test_without_the_library_both_are_left_out_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistical, "installed", lambda: False)
    series = _series(_traffic())
    assert run_baselines(series, **OPTIONS, test=TEST, only=statistical.NAMES) == []
    reasons = left_out(series, validation=VALIDATION, test=TEST, only=statistical.NAMES)
    assert reasons == dict.fromkeys(
        statistical.NAMES, "needs statsforecast, which is not installed: pip install 'fcast[arima]'"
    )
    assert "fcast[arima]" in left_out(series, validation=VALIDATION, test=TEST)["auto_arima"]


def test_the_backtest_refuses_to_go_without_the_library_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistical, "installed", lambda: False)
    result = CliRunner().invoke(main, ["runs/none", "--trace", "none.csv", "--arima"])
    assert result.exit_code == 1
    assert result.stderr == "Error: --arima: expected the package statsforecast, got none; pip install 'fcast[arima]'\n"


def test_both_run_only_when_asked_for() -> None:
    series = _series(_traffic())
    found = {baseline.name for baseline in run_baselines(series, **OPTIONS, test=TEST)}
    assert found.isdisjoint(statistical.NAMES)
    reasons = left_out(series, validation=VALIDATION, test=TEST)
    assert all(reasons[name].startswith("slow, so it runs only when asked for by name") for name in statistical.NAMES)


def test_the_training_part_is_the_longest_piece_before_validation() -> None:
    assert statistical.training_part(np.array([0, 300]), 450) == slice(0, 300)
    assert statistical.training_part(np.array([0, 100, 600]), 450) == slice(100, 450)


@needs_statsforecast
def test_a_short_training_part_says_so() -> None:
    assert statistical.problem(np.array([0, 40]), 80) == "the training part has 40 steps in one piece, fewer than 50"


@needs_statsforecast
@pytest.mark.parametrize("name", statistical.NAMES)
def test_a_random_walk_is_forecast_as_well_as_by_its_last_value(name: str) -> None:
    values = np.abs(np.random.default_rng(0).normal(0.0, 5.0, (700, 1)).cumsum(axis=0) + 500.0)
    series = _series(values)
    found = run_baselines(series, **OPTIONS, test=TEST, only=(name, "last_value"))
    target = series.values[TEST[:, None] + np.arange(HORIZON)]
    scores = {baseline.name: wql(baseline.test, target, LEVELS)[0] for baseline in found}
    assert scores[name] < 1.1 * scores["last_value"]


@needs_statsforecast
@pytest.mark.parametrize("name", statistical.NAMES)
def test_a_forecast_is_ordered_not_negative_and_of_the_past_alone(name: str) -> None:
    values = _traffic()
    altered = values.copy()
    altered[TEST[3] :] = altered[TEST[3] :] * 3.0 + 11.0
    before, after = (run_baselines(_series(v), **OPTIONS, test=TEST, only=(name,))[0] for v in (values, altered))
    assert before.test.shape == (len(TEST), HORIZON, 2, len(LEVELS))
    assert np.isfinite(before.test).all()
    assert (before.test >= 0).all()
    assert (np.diff(before.test, axis=-1) >= 0).all()
    np.testing.assert_array_equal(after.test[:4], before.test[:4])
    np.testing.assert_array_equal(after.validation, before.validation)


@needs_statsforecast
@pytest.mark.parametrize("name", statistical.NAMES)
def test_silence_is_forecast_as_silence(name: str) -> None:
    (found,) = run_baselines(_series(np.zeros((700, 1))), **OPTIONS, test=TEST, only=(name,))
    np.testing.assert_array_equal(found.test, 0.0)


@needs_statsforecast
def test_the_backtest_shows_both_beside_the_others_and_says_how_far_it_is(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.csv", request_trace(400))
    small = ["--context", "16", "--horizon", "3", "--epochs", "1", "--device", "cpu"]
    trained = CliRunner().invoke(train, ["--trace", str(trace), "--model", "dlinear", "--out", str(tmp_path), *small])
    assert trained.exit_code == 0, trained.output
    result = CliRunner().invoke(main, [str(tmp_path / "dlinear"), "--trace", str(trace), "--arima", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(statistical.NAMES) < {row["name"] for row in report["forecasters"]}
    assert set(report["left_out"]).isdisjoint(statistical.NAMES)
    assert "auto_arima: fitted on" in result.stderr


def test_a_young_segment_is_forecast_by_its_last_value() -> None:
    class Never:
        def forward(self, history, h):
            raise AssertionError("asked with too little history")

    values = np.arange(30.0)
    points = statistical.forecast(
        "auto_ets", Never(), values, first=np.array([20]), origins=np.array([25]), horizon=HORIZON
    )
    np.testing.assert_array_equal(points, [[24.0] * HORIZON])
