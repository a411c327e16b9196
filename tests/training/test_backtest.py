"""The scores of a backtest add up, nothing leaks from test, and refitted pieces cover the test part once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.traces import count_trace, request_trace
from training.config import DataConfig, build_runs
from training.errors import ConfigError
from training.evaluate import evaluate
from training.forecasts import Forecasts, Run, baseline_forecasts, ground_of
from training.metrics import wql
from training.refit import pieces_of, refit_forecasts
from training.run import prepare, train_model

CONFIG = DataConfig(series="load", context=16, horizon=3)


def load_data(bins=3000, *, counts=None, config=CONFIG):
    rng = np.random.default_rng(4)
    rate = 60 + 30 * np.sin(2 * np.pi * np.arange(bins) / 1440)
    counts = rng.poisson(rate) if counts is None else counts
    return prepare(count_trace(counts, bin_s=60.0, start_s=1.7e9 - 1.7e9 % 86400), config)


def oracle(data, *, factor=1.0, name="oracle"):
    """A model that knows what comes."""
    ground = ground_of(data)

    def said(part):
        target = factor * ground.target(part)
        return np.repeat(target[..., None], len(data.config.levels), axis=-1).astype(np.float32)

    return Forecasts(name=name, model=True, facts={}, validation=said("validation"), test=said("test"))


@pytest.fixture(scope="module")
def backtest():
    data = load_data(4500)
    return evaluate(data, [oracle(data), *baseline_forecasts(data)])


def row(report, name):
    return next(row for row in report["forecasters"] if row["name"] == name)


def test_an_oracle_scores_zero_and_is_clearly_better(backtest):
    found = row(backtest.report, "oracle")
    assert found["test"]["wql"]["mean"] == 0.0
    assert (found["difference"]["difference"], found["difference"]["verdict"]) == (-1.0, "better")
    assert found["decision"]["requests"]["rates"]["0.01"]["capacity"] == pytest.approx(1.0)
    assert found["decision"]["requests"]["difference"]["0.01"]["verdict"] == "better"
    assert backtest.report["forecasters"][0]["name"] == "oracle"


def test_the_report_is_json_and_names_what_it_compares_with(backtest):
    report = json.loads(json.dumps(backtest.report, allow_nan=False))
    assert row(report, report["best_baseline"])["difference"] is None
    assert row(report, report["best_planner"])["decision"]["requests"]["difference"] is None
    assert report["best_model"] == "oracle"
    assert (report["lead_time_s"], report["lead_step"]) == (180.0, 2)
    assert report["uncertainty"]["block_origins"] >= 3


def test_the_difference_is_that_of_the_reported_scores(backtest):
    report = backtest.report
    bar = row(report, report["best_baseline"])["test"]["wql"]["mean"]
    for found in report["forecasters"]:
        if found["difference"]:
            assert found["difference"]["difference"] == pytest.approx(found["test"]["wql"]["mean"] / bar - 1.0)


def test_coverage_of_the_steps_averages_to_that_of_the_channel(backtest):
    for found in backtest.report["forecasters"]:
        steps = np.array(found["test"]["coverage_steps"]["requests"])
        assert steps.shape == (3, 7)
        assert np.allclose(steps.mean(axis=0), found["test"]["coverage"]["requests"])


def test_the_error_of_an_hour_is_that_of_its_targets_alone(backtest):
    ground, found = backtest.ground, backtest.forecasts[1]
    hours = ground.target_time_s("test") // 3600 % 24
    hour = int(hours[len(hours) // 2, 0])
    at = np.flatnonzero((hours == hour).all(axis=1))  # all but the few that cross its edges
    expected = wql(found.test[at], ground.target("test")[at], backtest.report["levels"])[0]
    assert row(backtest.report, found.name)["test"]["by_hour"][hour] == pytest.approx(expected, rel=0.05)


def test_a_short_test_part_has_no_error_by_hour():
    data = load_data(600)
    assert all(
        r["test"]["by_hour"] is None
        for r in evaluate(data, [oracle(data), *baseline_forecasts(data)]).report["forecasters"]
    )


def test_the_lead_time_chooses_the_step():
    data = load_data(600)
    found = [oracle(data), *baseline_forecasts(data)]
    near, far = (evaluate(data, found, lead_time_s=lead).report for lead in (60.0, 180.0))
    assert (near["lead_step"], far["lead_step"]) == (0, 2)
    assert row(near, "last_value")["decision"] != row(far, "last_value")["decision"]


def test_an_idle_series_gives_scores_without_nan():
    data = load_data(counts=np.zeros(900))
    report = evaluate(data, [oracle(data), *baseline_forecasts(data)]).report
    json.dumps(report, allow_nan=False)
    assert row(report, "oracle")["difference"]["verdict"] == "no clear difference"


def test_a_requests_series_has_no_decision():
    data = prepare(request_trace(900), replace(CONFIG, series="requests"))
    report = evaluate(data, [oracle(data), *baseline_forecasts(data)]).report
    assert (report["best_planner"], report["lead_time_s"], report["step_s"]) == (None, None, None)
    assert all(found["decision"] is None for found in report["forecasters"])
    json.dumps(report, allow_nan=False)


def test_forecasts_are_kept_in_the_order_of_the_report(backtest):
    assert [found.name for found in backtest.forecasts] == [r["name"] for r in backtest.report["forecasters"]]


def test_pieces_cover_the_test_part_once_in_order():
    data = load_data()
    pieces = pieces_of(data, 4)
    assert np.concatenate([piece.split.test for piece in pieces]).tolist() == data.split.test.tolist()
    assert pieces[0].split.train.tolist() == data.split.train.tolist()


def test_a_piece_trains_and_tunes_only_on_steps_before_it():
    data = load_data()
    for piece in pieces_of(data, 4):
        begin = piece.split.test[0]
        assert max(piece.split.train.max(), piece.split.validation.max()) + 3 <= begin
        assert piece.split.validation_end == begin
        known = piece.split.train_end / begin
        assert known == pytest.approx(0.75, abs=0.01)


def test_more_pieces_than_windows_are_refused():
    data = load_data(120)
    with pytest.raises(ConfigError, match=r"--refit: expected pieces with test windows, got none.*fewer than 60"):
        pieces_of(data, 60)


def test_refitted_models_and_baselines_forecast_every_test_origin(tmp_path):
    data = load_data(700)
    (config,) = build_runs(["dlinear"], {"epochs": 1, "device": "cpu"})
    config = replace(config, data=CONFIG)
    (tmp_path / "run").mkdir()
    trained = train_model(data, config, tmp_path / "run")
    run = Run(name="dlinear", path="run", checkpoint=trained, judged=trained.model, config=config)
    told = []

    def on_piece(number, piece):
        told.append((number, len(piece.split.train)))
        return lambda name: (lambda windows, loss: None, lambda line: None)

    found = refit_forecasts([run], pieces_of(data, 2), tmp_path, device=torch.device("cpu"), on_piece=on_piece)
    assert [number for number, _ in told] == [0, 1]
    assert told[1][1] > told[0][1]
    by_name = {f.name: f for f in found}
    assert {"dlinear", "last_value", "damped_holt"} <= set(by_name)
    assert by_name["dlinear"].demand.shape == (len(data.split.test), 3, 2, 7)
    for forecast in found:
        assert forecast.test.shape == (len(data.split.test), 3, 1, 7)
        assert np.isfinite(forecast.test).all()
    # The last value is a tuned baseline whose residuals are learned anew: only the first piece is as without refit.
    fixed = next(f for f in baseline_forecasts(data) if f.name == "last_value")
    first = len(pieces_of(data, 2)[0].split.test)
    assert np.array_equal(by_name["last_value"].test[:first], fixed.test[:first])
    assert not np.array_equal(by_name["last_value"].test[first:], fixed.test[first:])
