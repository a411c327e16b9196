"""What is judged, what is not, and what `Predictor.stats` tells of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.judge import SPACING, WINDOW
from runtime.rivals import rivals_of
from tests.runtime.breaking import NUMBERS, SPOILT, Host


def judged(host: Host) -> int:
    breaker = host.p._live._breaker
    assert breaker is not None
    return breaker.judge.judged


@pytest.mark.parametrize("name", ["requests", "demand", "counts"])
def test_scores_are_those_of_the_forecasts_that_were_given(name: str) -> None:
    host = Host(name, adapt=name == "demand")
    m = host.p._model.manifest
    ratio, span, channels = m.steps_per_forecast_step, m.horizon * m.steps_per_forecast_step, len(m.channels)
    given, windows = {}, {}
    for _ in range(12 * max(SPACING, span)):
        host.observe()
        given[host.fed], windows[host.fed] = host.p.forecast().values, host.window()
    first = m.context
    at = list(range(first, host.fed - span + 1, max(SPACING, span)))
    assert judged(host) == len(at) > 8
    rows = NUMBERS[: host.fed, :channels].astype(np.float64)
    came = np.stack([rows[i : i + span].reshape(m.horizon, ratio, channels).sum(axis=1) for i in at])
    levels = np.array(m.levels)
    expected, covered = [], []
    for kind in range(3):
        said = np.stack([rivals_of(m).beside(given[i], windows[i])[kind] for i in at])
        error = came[..., None] - said
        loss = np.maximum(levels * error, (levels - 1) * error).mean(axis=-1)
        expected.append(float(np.mean(2 * loss.sum(axis=(0, 1)) / came.sum(axis=(0, 1)))))
        covered.append((error <= 0).mean(axis=(0, 1, 2)))
    found = host.p.stats()["judged"]
    assert (found["forecasts"], found["streams"], found["open"]) == (len(at), 1, 0)
    tolerance = 2e-2 if name == "requests" else 1e-5  # arrivals are rounded, as times grow
    np.testing.assert_allclose(list(found["wql"].values()), expected, rtol=tolerance)
    assert list(found["wql"]) == ["model", "recent_quantiles", "last_value"]
    np.testing.assert_allclose(list(found["coverage"].values()), covered[0], atol=1e-2)
    assert tuple(found["coverage"]) == m.levels


def test_the_last_forecasts_of_every_stream_count() -> None:
    host = Host("requests")
    for key in ("a", "b", None):
        host.fed = 0
        stream = host.p if key is None else host.p.stream(key)
        for _ in range(SPACING * (WINDOW + 4)):
            host.observe(stream)
            stream.forecast()
    found = host.p.stats()["judged"]
    assert (found["forecasts"], found["streams"]) == (3 * WINDOW, 3)


def test_nothing_is_judged_across_a_gap() -> None:
    host = Host("demand")
    m = host.p._model.manifest
    assert m.bin_s is not None
    for burst in range(4):
        for i in range(m.context + 5):
            host.p.observe_bin(burst * 1e6 + i * m.bin_s, 1e3, 1e3, 1e3)
            host.p.forecast()
    assert judged(host) == 0


def test_steps_without_traffic_are_not_judged() -> None:
    host = Host("demand")
    m = host.p._model.manifest
    assert m.bin_s is not None
    for i in range(400):
        host.p.observe_bin(i * m.bin_s, 0, 0, 0)
        host.p.forecast()
    assert judged(host) == 0
    assert host.p.forecast().source == "model"


def test_a_stream_that_is_asked_too_seldom_is_not_judged_and_goes_on() -> None:
    host = Host("demand")
    m = host.p._model.manifest
    for _ in range(6):
        for _ in range(2 * m.horizon * m.steps_per_forecast_step + 1):
            host.observe()
        host.p.forecast()
    assert judged(host) == 0
    for _ in range(6):
        for _ in range(2 * m.horizon * m.steps_per_forecast_step):
            host.observe()
        host.p.forecast()
    assert judged(host) == 6


@pytest.mark.parametrize("largest", [3.4e38, 1e30])
def test_absurd_values_are_judged_without_a_fuss(largest: float) -> None:
    host = Host("requests")
    for i in range(600):
        host.p.observe(float(i), largest if i % 7 == 0 else 0.0, largest)
        assert np.isfinite(host.p.forecast().values).all()
    assert judged(host) > 40
    assert all(np.isfinite(score) for score in host.p.stats()["judged"]["wql"].values())


def test_drift_is_a_wql_twice_that_of_validation(edited: Callable[..., Path]) -> None:
    for usual, drift in ((0.3, False), (0.05, True)):
        host = Host(edited("requests", scores={"validation": {"wql": {"mean": usual}}}).parent)
        host.run(SPACING * (WINDOW - 1))
        assert host.p.stats()["judged"]["drift"] is False  # too few
        host.run(SPACING * 4)
        found = host.p.stats()["judged"]
        assert found["validation_wql"] == usual
        assert 0.15 < found["wql"]["model"] < 0.5
        assert (found["drift"], found["drift_reasons"]) == (drift, ["wql"] if drift else [])
        shutil.rmtree(host.p._model.folder.parent)


def test_drift_is_a_coverage_far_from_its_level() -> None:
    host = Host("requests")
    host.spoil = SPOILT["halved"]
    host.run(SPACING * (WINDOW + 4))
    found = host.p.stats()["judged"]
    assert found["drift"]
    assert "coverage of 0.5" in found["drift_reasons"]
    assert found["coverage"][0.5] < 0.2


def test_a_quantile_of_nothing_that_covered_as_much_on_validation_is_no_drift(edited: Callable[..., Path]) -> None:
    channels = ("requests", "request_tokens", "response_tokens")
    for usual, drift in ((0.8, False), (0.1, True)):
        coverage = {channel: [usual, *[0.8] * 6] for channel in channels}
        host = Host(edited("load", scores={"validation": {"coverage": coverage}}).parent)
        host.spoil = lambda values: np.where(np.arange(values.shape[-1]) < 4, 0, values)
        m = host.p._model.manifest
        assert m.bin_s is not None
        busy = np.random.default_rng(3).random(2000) < 0.2
        for i, row in enumerate(NUMBERS[:2000] * busy[:, None]):
            host.p.observe_bin(i * m.bin_s, *row.tolist())
            host.p.forecast()
        found = host.p.stats()["judged"]
        assert found["forecasts"] == WINDOW
        assert 0.5 < found["coverage"][0.1] < 0.9
        assert ("coverage of 0.1" in found["drift_reasons"]) is drift
        shutil.rmtree(host.p._model.folder.parent)


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"validation": 3},
        {"validation": "x"},
        {"validation": {"wql": {"mean": -1}, "coverage": [0.5]}},
        *(
            {"validation": {"coverage": told}}
            for told in ({}, {"requests": []}, {"requests": "x"}, {"requests": [None] * 7})
        ),
        {"validation": {"coverage": {"requests": [10**320] * 7}, "wql": {"mean": 10**320}}},
    ],
)
def test_scores_of_another_kind_are_none(edited: Callable[..., Path], scores: object) -> None:
    host = Host(edited("requests", scores=scores).parent)
    host.run(SPACING * (WINDOW + 4))
    found = host.p.stats()["judged"]
    assert (found["validation_wql"], found["drift"]) == (None, False)
