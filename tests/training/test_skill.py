"""Skill over the last value: measured, between 0 and 1, and saved with every model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.test_fit import run_of
from tests.training.traces import request_trace
from training.compare import score_baselines, tune_baselines
from training.metrics import scores
from training.run import prepare, train_model
from training.skill import measure_skill


@pytest.fixture(scope="module")
def data():
    return prepare(request_trace(400), run_of(split=[80, 20, 0]).data)


def test_the_last_value_itself_has_no_skill_and_perfect_forecasts_have_all(data):
    last = next(row for row in score_baselines(data, tune_baselines(data)) if row["name"] == "last_value")
    assert "test" not in last
    none = measure_skill(data.series, data.split, data.config, found=last["validation"])
    assert none["confidence"] == [0.0] * data.config.horizon
    assert none["wql"]["model"] == none["wql"]["last_value"]
    target = data.series.values[data.split.validation[:, None] + np.arange(data.config.horizon)]
    perfect = scores(np.repeat(target[..., None], 7, axis=3), target, data.config.levels, data.series.channels)
    assert measure_skill(data.series, data.split, data.config, found=perfect)["confidence"] == [1.0, 1.0, 1.0]


def test_a_constant_trace_has_nothing_to_be_better_at(data):
    series = replace(data.series, values=np.full_like(data.series.values, 3.0))
    found = {"wql_steps": {"mean": [0.0] * data.config.horizon}}
    assert measure_skill(series, data.split, data.config, found=found)["confidence"] == [0.0] * data.config.horizon


def test_every_checkpoint_holds_it_and_one_without_a_test_part_has_no_test_scores(data, tmp_path):
    run = replace(run_of("gru", hidden_size=4, epochs=1), data=data.config)
    meta = train_model(data, run, tmp_path).meta
    assert set(meta["scores"]) == {"validation"}
    assert meta["split"]["test"] == 0
    assert meta["split"]["test_from_s"] is None
    steps = np.array(meta["scores"]["validation"]["wql_steps"]["mean"])
    assert meta["skill"]["wql"]["model"] == pytest.approx(steps.mean())
    assert (steps / (1 - np.array(meta["skill"]["confidence"]))).mean() == pytest.approx(
        meta["skill"]["wql"]["last_value"]
    )
