"""The rules for odd streams, row by row as the table in docs/runtime.md has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Forecast, InputError, Predictor

GAP_S = 21600.0


def fill(p: Any, n: int, *, every_s: float = 1.0, start_s: float = 0.0) -> float:
    """The time of the last of n requests."""
    for i in range(n):
        p.observe(start_s + i * every_s, 100, 50)
    return start_s + (n - 1) * every_s


def assert_valid(forecast: Forecast) -> None:
    assert np.isfinite(forecast.values).all()
    assert (forecast.values >= 0).all()
    assert (np.diff(forecast.values, axis=-1) >= 0).all()


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_time_that_runs_backwards_is_refused_and_nothing_is_lost(artifacts: Path, name: str) -> None:
    p = Predictor(artifacts / name, device="cpu")
    last_s = fill(p, 40, every_s=30.0)
    before = p.forecast()
    with pytest.raises(InputError, match="timestamp_s: expected a time not before"):
        p.observe(last_s - 100.0, 1, 1)
    assert p.forecast() is before
    p.observe(last_s, 1, 1)


def test_equal_times_are_inter_arrivals_of_zero_and_one_bin(requests: Predictor, load: Predictor) -> None:
    fill(requests, 20, every_s=0.0)
    assert requests.forecast().source == "model"
    assert (requests._live._stream.steps.last()[:, 0] == 0).all()
    fill(load, 20, every_s=0.0)
    assert load._live._stream._totals == (20.0, 2000.0, 1000.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_gap_of_hours_begins_anew_and_silence_short_of_it_does_not(artifacts: Path, name: str) -> None:
    for silence_s, source in ((GAP_S, "model"), (GAP_S + 60.0, "fallback:prior")):
        p = Predictor(artifacts / name, device="cpu")
        last_s = fill(p, 40, every_s=30.0)
        p.observe(last_s + silence_s, 100, 50)
        assert p.forecast().source == source
        assert_valid(p.forecast())


def test_idle_time_is_bins_of_zero_and_a_long_inter_arrival(requests: Predictor, load: Predictor) -> None:
    last_s = fill(load, 40, every_s=30.0)
    idle = load.forecast(now_s=last_s + 3600.0)
    assert idle.source == "model"
    assert (load._live._stream.steps.last(12) == 0).all()
    assert_valid(idle)
    last_s = fill(requests, 20)
    assert requests.forecast(now_s=last_s + 3600.0) is requests.forecast()
    requests.observe(last_s + 3600.0, 1, 1)
    assert requests._live._stream.steps.last(1)[0, 0] == 3600.0


@pytest.mark.parametrize("burst", [1_000_000, 1e30])
def test_a_million_requests_in_one_bin_are_one_step(load: Predictor, burst: float) -> None:
    for i in range(14):
        load.observe_bin(i * 60.0, burst if i == 13 else 5, 100, 50)
    assert load.forecast().source == "model"
    assert_valid(load.forecast())


@pytest.mark.slow
def test_a_million_single_requests_in_one_bin_are_counted_exactly(load: Predictor) -> None:
    fill(load, 20, every_s=60.0)
    for _ in range(1_000_000):
        load.observe(1200.0, 3, 1)
    load.observe(1260.0, 1, 1)
    assert load._live._stream.steps.last(1).tolist() == [[1e6, 3e6, 1e6]]


@pytest.mark.parametrize("name", ["requests", "load"])
def test_zero_tokens_are_numbers_like_others(artifacts: Path, name: str) -> None:
    p = Predictor(artifacts / name, device="cpu")
    for i in range(40):
        p.observe(i * 30.0, 0, 0)
    assert p.forecast().source == "model"
    assert_valid(p.forecast())


ABSURD = [-1, float("nan"), float("inf"), -float("inf"), 1e39, 10**400, "7", None, True, 1j, [1]]


@pytest.mark.parametrize("value", ABSURD, ids=lambda v: repr(v)[:10])
@pytest.mark.parametrize("name", ["requests", "load"])
def test_absurd_sizes_are_refused_and_nothing_changes(artifacts: Path, name: str, value: Any) -> None:
    p = Predictor(artifacts / name, device="cpu")
    last_s = fill(p, 40, every_s=30.0)
    before = p.forecast()
    for sizes in ((value, 1), (1, value)):
        with pytest.raises(InputError, match="_tokens: expected a finite number from 0"):
            p.observe(last_s + 5.0, *sizes)
    assert p.forecast() is before


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), 1e300, "7", None, True, np.float32(7)], ids=repr)
@pytest.mark.parametrize("name", ["requests", "load"])
def test_absurd_times_are_refused_and_nothing_changes(artifacts: Path, name: str, time_s: Any) -> None:
    p = Predictor(artifacts / name, device="cpu")
    fill(p, 40, every_s=30.0)
    before = p.forecast()
    with pytest.raises(InputError, match="timestamp_s: expected"):
        p.observe(time_s, 1, 1)
    with pytest.raises(InputError, match="now_s: expected"):
        p.forecast(now_s=time_s if time_s is not None else "None")
    assert p.forecast() is before


def test_the_largest_numbers_give_a_valid_forecast(requests: Predictor) -> None:
    largest = float(np.finfo(np.float32).max)
    for i in range(20):
        requests.observe(float(i), largest, largest)
    with pytest.warns(RuntimeWarning, match="forecasts come from the fallback"):
        assert_valid(requests.forecast())


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_clock_set_back_is_refused_until_it_has_caught_up(artifacts: Path, name: str) -> None:
    p = Predictor(artifacts / name, device="cpu")
    last_s = fill(p, 40, every_s=30.0)
    refused = 0
    for i in range(1, 20):
        try:
            p.observe(last_s - 120.0 + 30.0 * i, 100, 50)
        except InputError:
            refused += 1
    assert 0 < refused <= 4
    assert p.forecast(now_s=last_s - 500.0).source == "model"
    assert_valid(p.forecast())


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_clock_set_far_ahead_and_back_is_a_new_stream_of_its_key(artifacts: Path, name: str) -> None:
    p = Predictor(artifacts / name, device="cpu")
    last_s = fill(p.stream("a"), 40, every_s=30.0)
    p.stream("a").observe(last_s + 1e6, 1, 1)
    assert p.stream("a").forecast().source == "fallback:prior"
    with pytest.raises(InputError, match="expected a time not before"):
        p.stream("a").observe(last_s + 30.0, 1, 1)
    p.forget("a")
    fill(p.stream("a"), 40, every_s=30.0, start_s=last_s + 30.0)
    assert p.stream("a").forecast().source == "model"


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_restart_goes_on_from_a_snapshot_as_if_there_were_none(artifacts: Path, name: str) -> None:
    one, other = (Predictor(artifacts / name, device="cpu") for _ in range(2))
    last_s = fill(one, 40, every_s=30.0)
    other.restore(one.snapshot())
    for p in (one, other):
        fill(p, 5, every_s=30.0, start_s=last_s + 3000.0)
    np.testing.assert_array_equal(other.forecast().values, one.forecast().values)
    assert other.forecast().source == "model"


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("name", ["requests", "load"])
def test_sizes_next_to_nothing_are_forecast_in_a_host_that_has_numpy_raise(
    artifacts: Path, name: str, adapt: bool
) -> None:
    p = Predictor(artifacts / name, device="cpu", adapt=adapt)
    with np.errstate(all="raise"):
        for i in range(60):
            step_s, size = 60.0 * i, 1.4e-45 * (i % 7)
            p.observe(step_s, size, size) if name == "requests" else p.observe_bin(step_s, size, size, size)
            assert_valid(p.forecast())
