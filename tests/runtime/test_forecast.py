"""What can be asked of a forecast."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from runtime import Forecast, InputError

LEVELS = (0.1, 0.5, 0.9)
REQUESTS = ("inter_arrival_s", "request_tokens", "response_tokens")
LOAD = ("requests", "request_tokens", "response_tokens")


def make(
    channels: tuple[str, ...],
    step_s: float | None,
    start_s: float | None = 1000.0,
    aggregates: np.ndarray | None = None,
) -> Forecast:
    values = np.arange(4 * 3 * 3, dtype=np.float32).reshape(4, 3, 3)
    return Forecast(
        values=values,
        levels=LEVELS,
        channels=channels,
        step_s=step_s,
        start_s=start_s,
        source="model",
        aggregates=aggregates,
    )


def with_aggregates() -> Forecast:
    """Sums of 100, 200, 150 (a model need not be consistent) and 400 over the first steps, peaks of 60, 50, 80, 80."""
    sums, peaks = np.array([100.0, 200.0, 150.0, 400.0]), np.array([60.0, 50.0, 80.0, 80.0])
    channel, level = np.array([1.0, 10.0, 100.0]), np.array([0.5, 1.0, 2.0])
    both = [rows[:, None, None] * channel[:, None] * level for rows in (sums, peaks)]
    return make(LOAD, 60.0, aggregates=np.concatenate(both, axis=1).astype(np.float32))


def test_at_gives_one_level() -> None:
    forecast = make(LOAD, 60.0)
    np.testing.assert_array_equal(forecast.at(0.9), forecast.values[:, :, 2])
    np.testing.assert_array_equal(forecast.at(np.float64(0.1)), forecast.values[:, :, 0])


@pytest.mark.parametrize("level", [0.6, 0.50001, 5, None, "0.5", True, float("nan")])
def test_a_level_that_was_not_forecast_is_refused(level: Any) -> None:
    with pytest.raises(InputError, match=r"level: expected one of 0.1, 0.5, 0.9, got"):
        make(LOAD, 60.0).at(level)


def test_the_next_request_comes_one_inter_arrival_after_the_last() -> None:
    following = make(REQUESTS, None).next_request()
    assert (following.timestamp_s, following.request_tokens, following.response_tokens) == (1001.0, 4.0, 7.0)
    assert make(REQUESTS, None).next_request(0.9).timestamp_s == 1002.0


def test_without_an_observation_the_next_request_has_a_size_but_no_time() -> None:
    following = make(REQUESTS, None, start_s=None).next_request()
    assert following.timestamp_s is None
    assert following.request_tokens == 4.0


def test_each_question_belongs_to_its_kind_of_series() -> None:
    with pytest.raises(InputError, match="next_request: expected a forecast of a 'requests' series, got 'load'"):
        make(LOAD, 60.0).next_request()
    with pytest.raises(InputError, match="demand: expected a forecast of a 'load' series, got 'requests'"):
        make(REQUESTS, None).demand(60)
    with pytest.raises(InputError, match="peak: expected a forecast of a 'load' series, got 'requests'"):
        make(REQUESTS, None).peak(60)


@pytest.mark.parametrize(
    ("lead_time_s", "steps"),
    [(0, [0, 0, 0, 0]), (60, [1, 0, 0, 0]), (90, [1, 0.5, 0, 0]), (225.0, [1, 1, 1, 0.75]), (240, [1, 1, 1, 1])],
)
def test_demand_sums_the_steps_of_the_lead_time_the_last_pro_rata(lead_time_s: float, steps: list[float]) -> None:
    forecast = make(LOAD, 60.0)
    np.testing.assert_allclose(forecast.demand(lead_time_s, level=0.5), np.array(steps) @ forecast.at(0.5))
    assert forecast.demand(np.float32(lead_time_s)).shape == (3,)


def test_demand_grows_with_the_lead_time_and_the_level() -> None:
    forecast = make(LOAD, 60.0)
    rows = [forecast.demand(lead).tolist() for lead in np.linspace(0, 240, 49)]
    assert rows == sorted(rows)
    assert (forecast.demand(100, level=0.9) >= forecast.demand(100, level=0.1)).all()


@pytest.mark.parametrize(
    ("lead_time_s", "expected"),
    [(0, 0), (15, 25), (60, 100), (90, 150), (120, 200), (150, 200), (180, 200), (210.0, 300), (240, 400)],
)
def test_demand_is_the_models_own_and_linear_within_a_step(lead_time_s: float, expected: float) -> None:
    forecast = with_aggregates()
    for level, factor in ((0.1, 0.5), (0.5, 1.0), (0.9, 2.0)):
        found = forecast.demand(lead_time_s, level=level)
        np.testing.assert_allclose(found, expected * factor * np.array([1.0, 10.0, 100.0]))
        assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("lead_time_s", "expected"), [(0, 0), (1, 60), (60, 60), (61, 60), (120, 60), (121, 80), (180, 80), (240, 80)]
)
def test_peak_is_the_models_own_and_counts_the_last_step_whole(lead_time_s: float, expected: float) -> None:
    found = with_aggregates().peak(lead_time_s, level=0.5)
    np.testing.assert_allclose(found, expected * np.array([1.0, 10.0, 100.0]))
    assert found.dtype == np.float64


@pytest.mark.parametrize("question", [Forecast.demand, Forecast.peak])
def test_without_aggregates_or_with_no_answer_is_less_for_a_longer_lead_time(question: Any) -> None:
    for forecast in (make(LOAD, 60.0), with_aggregates()):
        rows = np.array([question(forecast, lead) for lead in np.linspace(0, 240, 97)])
        assert (np.diff(rows, axis=0) >= 0).all()
        assert rows[0].tolist() == [0, 0, 0]


def test_peak_without_aggregates_is_the_largest_quantile_of_a_step() -> None:
    falling = make(LOAD, 60.0)
    falling = replace(falling, values=falling.values[::-1])
    np.testing.assert_array_equal(falling.peak(0), [0, 0, 0])
    for lead_time_s in (1, 60, 61, 240):
        np.testing.assert_array_equal(falling.peak(lead_time_s, level=0.5), falling.at(0.5)[0])
    rising = make(LOAD, 60.0)
    np.testing.assert_array_equal(rising.peak(61, level=0.5), rising.at(0.5)[1])


def test_whole_steps_stay_whole_when_they_are_divided() -> None:
    forecast = replace(make(LOAD, 60.0), step_s=0.1)
    for whole in range(1, 5):
        np.testing.assert_array_equal(forecast.peak(min(whole * 0.1, 0.4)), forecast.at(0.9)[whole - 1])


@pytest.mark.parametrize("lead_time_s", [-1, 240.001, float("nan"), float("inf"), None, "60", True])
def test_a_lead_time_that_cannot_be_answered_says_the_longest(lead_time_s: Any) -> None:
    with pytest.raises(InputError, match=r"lead_time_s: expected 0 to 240 \(4 steps of 60 s\), got"):
        make(LOAD, 60.0).demand(lead_time_s)
    with pytest.raises(InputError, match=r"lead_time_s: expected 0 to 240"):
        with_aggregates().peak(lead_time_s)


def test_a_forecast_is_plain_in_a_dict() -> None:
    plain = make(LOAD, 60.0).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["values"][3][2][1] == 34.0
    assert plain["kind"] == "load"
    assert "aggregates" not in plain
    assert with_aggregates().to_dict()["aggregates"][3][5][2] == 16000.0


def test_a_forecast_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="source"):
        make(LOAD, 60.0).source = "mine"  # type: ignore[misc]
