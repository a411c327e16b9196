"""A stream of requests follows the rules of the series that models are trained on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.binding import Binding
from runtime.fallback import MIN_STEPS

GAP_S = 21600.0


def trace(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 1.7e9 + np.cumsum(rng.exponential(1.3, n)), rng.integers(0, 4000, (n, 2))


def feed(p: Predictor, time_s: np.ndarray, tokens: np.ndarray) -> None:
    for t, (request, response) in zip(time_s, tokens, strict=True):
        p.observe(t, request, response)


def test_the_stream_forecasts_what_predict_says_of_the_same_window(requests: Predictor) -> None:
    time_s, tokens = trace(60)
    # The rules, written for a whole trace: float64 differences, then float32.
    steps = np.column_stack([np.diff(time_s), tokens[1:]]).astype(np.float32)
    for i, (t, (request, response)) in enumerate(zip(time_s, tokens, strict=True)):
        requests.observe(t, request, response)
        forecast = requests.forecast()
        assert forecast.start_s == t
        assert forecast.source == ("model" if i >= 16 else forecast.source)
        if i >= 16:
            np.testing.assert_array_equal(forecast.values, requests.predict(steps[i - 16 : i]))


def test_without_history_the_prior_of_the_training_series_stands_in(requests: Predictor) -> None:
    prior = np.array(requests.manifest["prior"], np.float32)
    forecast = requests.forecast()
    assert forecast.source == "fallback:prior"
    assert forecast.start_s is None
    np.testing.assert_array_equal(forecast.values, np.broadcast_to(prior, (4, 3, 7)))
    requests.observe(5.0, 10, 10)
    assert requests.forecast().source == "fallback:prior"
    assert requests.forecast().start_s == 5.0


def test_a_short_history_stands_in_by_its_own_quantiles(requests: Predictor) -> None:
    time_s, tokens = trace(MIN_STEPS + 1)
    feed(requests, time_s[:-1], tokens[:-1])
    assert requests.forecast().source == "fallback:prior"
    requests.observe(time_s[-1], *tokens[-1])
    forecast = requests.forecast()
    assert forecast.source == "fallback:empirical"
    steps = np.column_stack([np.diff(time_s), tokens[1:]]).astype(np.float32)
    for i, level in enumerate(forecast.levels):
        np.testing.assert_allclose(forecast.at(level), np.tile(np.quantile(steps, level, axis=0), (4, 1)), rtol=1e-6)
        assert (np.diff(forecast.values, axis=2) >= 0).all()
        assert i < 7


def test_equal_times_are_an_inter_arrival_of_zero(requests: Predictor) -> None:
    for _ in range(17):
        requests.observe(100.0, 1, 1)
    np.testing.assert_array_equal(
        requests.forecast().values, requests.predict(np.tile(np.array([0, 1, 1], np.float32), (16, 1)))
    )


def test_a_gap_clears_the_history_and_gives_no_step(requests: Predictor) -> None:
    time_s, tokens = trace(30)
    feed(requests, time_s, tokens)
    assert requests.forecast().source == "model"
    requests.observe(time_s[-1] + GAP_S + 1, 5, 5)
    assert requests.forecast().source == "fallback:prior"
    later = time_s + 2 * GAP_S
    feed(requests, later[:17], tokens[:17])
    steps = np.column_stack([np.diff(later), tokens[1:]]).astype(np.float32)
    np.testing.assert_array_equal(requests.forecast().values, requests.predict(steps[:16]))


def test_a_silence_of_exactly_the_gap_is_still_a_silence(requests: Predictor) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))
    requests.observe(16.0 + GAP_S, 1, 1)
    assert requests.forecast().source == "model"
    steps = np.ones((16, 3), np.float32)
    steps[-1, 0] = GAP_S
    np.testing.assert_array_equal(requests.forecast().values, requests.predict(steps))


def test_now_says_that_the_silence_has_become_a_gap(requests: Predictor) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))
    standing = requests.forecast()
    assert requests.forecast(now_s=16.0 + GAP_S) is standing
    assert requests.forecast(now_s=17.0 + GAP_S).source == "fallback:prior"
    assert requests.forecast().start_s == 16.0


def test_a_standing_forecast_is_returned_again_until_a_step_comes(requests: Predictor) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))
    standing = requests.forecast()
    assert requests.forecast() is standing
    assert requests.forecast(now_s=20.0) is standing
    requests.observe(21.0, 1, 1)
    assert requests.forecast() is not standing


def test_a_forecasts_values_are_read_only_and_outlive_the_stream(requests: Predictor) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))
    forecast = requests.forecast()
    before = forecast.values.copy()
    feed(requests, np.arange(17.0, 80.0), np.full((63, 2), 3000))
    requests.forecast()
    np.testing.assert_array_equal(forecast.values, before)
    with pytest.raises(ValueError, match="read-only"):
        forecast.values[0] = 0


def test_two_threads_need_no_common_order(requests: Predictor) -> None:
    feed(requests, np.arange(984.0, 1001.0), np.ones((17, 2)))
    standing = requests.forecast(now_s=1000.5)
    requests.observe(1000.4, 1, 1)  # read before the other thread's clock, taken in after it
    assert requests.forecast().start_s == 1000.4
    requests.observe(1001.0, 1, 1)
    assert requests.forecast(now_s=1000.9) is requests.forecast() is not standing
    with pytest.raises(InputError, match=r"timestamp_s: expected a time not before 1001.0, the last request's"):
        requests.observe(1000.9, 1, 1)


def test_a_forecast_that_took_long_does_not_replace_a_newer_one(
    requests: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))
    asked, go_on, run = threading.Event(), threading.Event(), requests._model.answer

    def slow(*arrays: Any) -> Any:
        asked.set()
        assert go_on.wait(20)
        return run(*arrays)

    monkeypatch.setattr(requests._model, "answer", slow)
    older: list[Any] = []
    thread = threading.Thread(target=lambda: older.append(requests.forecast()))
    thread.start()
    assert asked.wait(20)
    monkeypatch.setattr(requests._model, "answer", run)
    requests.observe(17.0, 1, 1)
    newer = requests.forecast()
    go_on.set()
    thread.join()
    assert (older[0].start_s, newer.start_s) == (16.0, 17.0)
    assert requests.forecast() is newer


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.observe(99.0, 1, 1),
        lambda p: p.observe(float("nan"), 1, 1),
        lambda p: p.observe(float("inf"), 1, 1),
        lambda p: p.observe(1e17, 1, 1),
        lambda p: p.observe(np.float32(200), 1, 1),
        lambda p: p.observe("200", 1, 1),
        lambda p: p.observe(None, 1, 1),
        lambda p: p.observe(True, 1, 1),
        lambda p: p.observe(np.array([200.0]), 1, 1),
        lambda p: p.observe(200.0, -1, 1),
        lambda p: p.observe(200.0, float("nan"), 1),
        lambda p: p.observe(200.0, 1, float("inf")),
        lambda p: p.observe(200.0, 1e39, 1),
        lambda p: p.observe(200.0, 10**400, 1),
        lambda p: p.observe(200.0, 10**5000, 1),
        lambda p: p.observe(200.0, 1, "12"),
        lambda p: p.observe(200.0, True, 1),
        lambda p: p.observe(200.0, np.True_, 1),
        lambda p: p.observe(200.0, 1 + 0j, 1),
        lambda p: p.observe(200.0, 1),
        lambda p: p.observe(200.0),
        lambda p: p.observe_bin(200.0, 1, 1, 1),
        lambda p: p.forecast(now_s=float("nan")),
        lambda p: p.forecast(now_s="now"),
    ],
)
def test_a_bad_call_is_refused_and_changes_nothing(requests: Predictor, call: Any) -> None:
    feed(requests, np.linspace(0.0, 100.0, 20), np.ones((20, 2)))
    standing = requests.forecast()
    with pytest.raises(InputError, match=r"^\w+: expected .*, got "):
        call(requests)
    assert requests.forecast() is standing
    requests.observe(100.0, 1, 1)  # the time is where it was, too
    assert requests.forecast().start_s == 100.0


def test_numbers_of_any_real_type_and_size_are_taken(requests: Predictor) -> None:
    largest = float(np.finfo(np.float32).max)
    for row in [(0, 1, 1), (np.int64(1), np.float32(2.5), np.uint8(3)), (2.5, 0, largest), (3, 1 << 60, 0.1)]:
        requests.observe(*row)
    assert requests.forecast().source == "fallback:prior"


def test_time_may_begin_below_zero(requests: Predictor) -> None:
    feed(requests, np.arange(-20.0, 0.0), np.ones((20, 2)))
    assert requests.forecast().source == "model"


def test_a_model_that_is_not_finite_is_replaced_and_never_raises(requests: Predictor) -> None:
    feed(requests, np.arange(17.0), np.full((17, 2), np.finfo(np.float32).max))
    with pytest.warns(RuntimeWarning, match=r"model.onnx: the model gave numbers that are negative, not finite"):
        forecast = requests.forecast()
    assert forecast.source == "fallback:empirical"
    assert np.isfinite(forecast.values).all()
    requests.observe(17.0, *[np.finfo(np.float32).max] * 2)
    assert requests.forecast().source == "fallback:empirical"  # said once


def test_a_model_that_fails_is_replaced_and_never_raises(requests: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(requests, np.arange(17.0), np.ones((17, 2)))

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: the GPU fell off the bus")

    monkeypatch.setattr(Binding, "run", fail)
    with pytest.warns(RuntimeWarning, match="the GPU fell off the bus"):
        assert requests.forecast().source == "fallback:empirical"
