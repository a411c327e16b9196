"""`predict`: stateless, checked, the same from any thread and for any batch."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.binding import Binding


def windows(n: int, length: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 50.0, (n, length, 3)).astype(np.float32)


def test_a_row_of_a_batch_equals_a_batch_of_one(load: Predictor) -> None:
    context, time_s = windows(7, 12), 1.7e9 + np.arange(7) * 9000.0
    batch = load.predict(context, time_s)
    assert batch.shape == (7, 3, 3, 7)
    assert batch.dtype == np.float32
    for i in range(7):
        one = load.predict(context[i], time_s[i])
        assert one.shape == (3, 3, 7)
        np.testing.assert_allclose(one, batch[i], rtol=1e-5)
        np.testing.assert_array_equal(one, load.predict(context[i : i + 1], time_s[i : i + 1])[0])


def test_one_time_serves_the_whole_batch(load: Predictor) -> None:
    context = windows(3, 12)
    once = load.predict(context, 1.7e9)
    np.testing.assert_array_equal(once, load.predict(context, np.full(3, 1.7e9)))
    np.testing.assert_array_equal(once, load.predict(context, [1.7e9] * 3))
    np.testing.assert_array_equal(once, load.predict(context, np.int64(1_700_000_000)))
    assert not np.array_equal(once, load.predict(context, 1.7e9 + 20_000))


def test_any_memory_layout_gives_the_same_forecast(requests: Predictor) -> None:
    context = windows(4, 16)
    expected = requests.predict(context)
    wide = np.zeros((4, 32, 3), np.float32)
    wide[:, ::2] = context
    for other in (np.asfortranarray(context), wide[:, ::2], context[::-1][::-1]):
        np.testing.assert_array_equal(requests.predict(other), expected)
    context.flags.writeable = False
    np.testing.assert_array_equal(requests.predict(context), expected)


def test_forecasts_are_ordered_and_not_negative(requests: Predictor) -> None:
    forecast = requests.predict(windows(50, 16))
    assert (forecast >= 0).all()
    assert (np.diff(forecast, axis=-1) >= 0).all()


def test_predict_and_the_stream_leave_each_other_alone(requests: Predictor) -> None:
    for i in range(20):
        requests.observe(float(i), 5, 5)
    standing = requests.forecast()
    context = windows(2, 16)
    first = requests.predict(context)
    requests.observe(20.0, 500, 500)
    np.testing.assert_array_equal(requests.predict(context), first)
    assert standing.source == "model"


def test_threads_get_what_one_thread_gets(requests: Predictor) -> None:
    contexts = [windows(3, 16, seed) for seed in range(8)]
    expected = [requests.predict(context) for context in contexts]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(200):
            k = (i + offset) % 8
            if not np.array_equal(requests.predict(contexts[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_thread_may_observe_while_another_forecasts(requests: Predictor) -> None:
    failed: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                forecast = requests.forecast()
                assert np.isfinite(forecast.values).all()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for i in range(3000):
        requests.observe(i * 0.5, i % 7, i % 5)
    done.set()
    thread.join()
    assert failed == []
    last = np.array([[0.5, i % 7, i % 5] for i in range(2984, 3000)], np.float32)
    np.testing.assert_array_equal(requests.forecast().values, requests.predict(last))


GOOD = windows(2, 16)


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (GOOD.tolist(), r"context: expected a numpy array, .* got list; use np.asarray\(context, dtype=np.float32\)"),
        (None, "context: expected a numpy array, .* got NoneType"),
        (GOOD.astype(np.float64), r"context: expected float32 .* got float64; use context.astype\(np.float32\)"),
        (GOOD.astype(">f4"), r"context: expected float32 .* got >f4; use context.astype"),
        (GOOD.astype(int), "context: expected float32 .* got int64"),
        (np.ma.masked_array(GOOD), "context: expected a numpy array, .* got MaskedArray"),
        (GOOD[:, :15], r"context: expected shape \(16, 3\) or \(batch, 16, 3\), got \(2, 15, 3\)"),
        (GOOD[..., :2], r"got \(2, 16, 2\)"),
        (GOOD[0, 0], r"got \(3,\)"),
        (GOOD[None], r"got \(1, 2, 16, 3\)"),
        (GOOD[:0], r"got \(0, 16, 3\)"),
        (np.float32(1), "context: expected a numpy array, .* got float32"),
    ],
)
def test_a_context_of_the_wrong_kind_is_refused(requests: Predictor, context: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        requests.predict(context)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-3])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 15, 2)])
def test_a_value_that_cannot_be_is_refused_with_its_place(requests: Predictor, value: float, place: Any) -> None:
    context = GOOD.copy()
    context[place] = value
    channel = ("inter_arrival_s", "request_tokens", "response_tokens")[place[2]]
    said = rf"context\[{place[0]}, {place[1]}, {place[2]}\]: expected finite numbers from 0 in channel '{channel}', got"
    with pytest.raises(InputError, match=said):
        requests.predict(context)


@pytest.mark.parametrize(
    ("time_s", "said"),
    [
        (None, "time_s: expected the relative time of the last step in seconds, as 'load' has a clock, got None"),
        (np.arange(3.0), r"time_s: expected a number or \(2,\) for this context, got shape \(3,\)"),
        (np.zeros((2, 1)), r"got shape \(2, 1\)"),
        (np.zeros(2, np.float32), "time_s: expected float64 seconds, got float32"),
        (np.float32(1), "time_s: expected float64 seconds, got float32"),
        ([1.0, np.nan], "time_s: expected finite seconds"),
        (float("inf"), "time_s: expected a finite number"),
        (True, "time_s: expected a finite number"),
        ("now", "time_s: expected a finite number"),
        (["a", "b"], "time_s: expected float64 seconds, got <U1"),
        (np.array(["2024-01-01"], "M8[s]"), "time_s: expected float64 seconds, got datetime64"),
    ],
)
def test_a_time_that_is_none_is_refused(load: Predictor, time_s: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load.predict(windows(2, 12), time_s)


def test_a_time_for_a_model_without_a_clock_is_refused(requests: Predictor) -> None:
    with pytest.raises(InputError, match="time_s: expected None, as 'requests' has no clock, got 5.0"):
        requests.predict(GOOD, 5.0)


def test_a_window_without_a_batch_takes_one_time(load: Predictor) -> None:
    context = windows(1, 12)[0]
    np.testing.assert_array_equal(load.predict(context, [1.7e9]), load.predict(context, np.array(1.7e9)))
    with pytest.raises(InputError, match=r"time_s: expected a number for this context, got shape \(2,\)"):
        load.predict(context, [1.0, 2.0])


def test_predict_says_what_the_model_says_even_when_it_is_not_finite(requests: Predictor) -> None:
    huge = np.full((16, 3), np.finfo(np.float32).max, np.float32)
    assert np.isinf(requests.predict(huge)).any()


@pytest.mark.parametrize("inside", [{}, {"_sess": SimpleNamespace(run_with_iobinding=lambda bound: None)}])
def test_a_session_without_what_is_not_promised_runs_too(requests: Predictor, inside: dict[str, Any]) -> None:
    session = requests._model.session
    real = session._session
    public = SimpleNamespace(io_binding=real.io_binding, run_with_iobinding=real.run_with_iobinding, **inside)
    bound = Binding(session._ort, public, requests._model.manifest, session.stats.row())
    for window in windows(3, 16):
        bound.window[...] = window
        bound.run()
        np.testing.assert_array_equal(bound.forecast(), requests.predict(window))


def test_one_look_finds_every_number_that_is_no_forecast(demand: Predictor) -> None:
    bound = demand._model.session.take_binding()
    views = dict(bound._views)
    rng = np.random.default_rng(0)
    for view in views.values():
        view[...] = np.sort(rng.exponential(1.0, view.shape), axis=2)
    assert bound.outputs_are_valid()
    for view in views.values():
        for place in np.ndindex(view.shape):
            for bad in (np.nan, -np.nan, np.inf, -np.inf, -1.0, *([-view[place]] if view[place] else [])):
                good, view[place] = view[place], bad
                assert not bound.outputs_are_valid(), (place, bad)
                view[place] = good
        view[0, 0, 1], fell = view[0, 0, 0] / 2, view[0, 0, 1]
        assert not bound.outputs_are_valid()
        view[0, 0, 1] = fell
        group, view[0, 0] = view[0, 0].copy(), -1.0  # in order, and negative
        assert not bound.outputs_are_valid()
        view[0, 0] = group
    assert bound.outputs_are_valid()
    views["forecast"][:], views["demand"][:] = 0.0, np.finfo(np.float32).max
    assert bound.outputs_are_valid()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, -1.0, -1e-45])
def test_one_look_finds_every_number_that_is_no_context(requests: Predictor, bad: float) -> None:
    bound = requests._model.session.take_binding()
    bound.window[...] = windows(1, 16)[0]
    for place in np.ndindex(bound.window.shape):
        good, bound.window[place] = bound.window[place], bad
        assert not bound.context_is_valid()
        bound.window[place] = good
    assert bound.context_is_valid()
    bound.window[...] = np.finfo(np.float32).max
    assert bound.context_is_valid()
