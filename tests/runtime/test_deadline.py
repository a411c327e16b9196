"""A forecast with a deadline comes in time, and the model's answer stands once it is there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.binding import Binding

LATE_S = 10.0
"""A deadline that nothing here misses, however busy the machine."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A model that gives no answer until the event is set."""
    go_on, run = threading.Event(), Binding.run

    def slow(self: Binding) -> None:
        assert go_on.wait(20)
        run(self)

    monkeypatch.setattr(Binding, "run", slow)
    yield go_on
    go_on.set()


def feed(p: Any, n: int, *, start: int = 0) -> None:
    for i in range(start, start + n):
        p.observe(float(i), 10 + i % 5, 3)


def wait_for(p: Any, source: str) -> Any:
    until = time.monotonic() + LATE_S
    while (forecast := p.forecast(deadline_s=0)).source != source:
        assert time.monotonic() < until
        time.sleep(0.001)
    return forecast


def test_a_model_in_time_gives_what_it_gives_without_a_deadline(requests: Predictor, artifacts: Any) -> None:
    other = Predictor(artifacts / "requests", device="cpu")
    for i in range(40):
        feed(requests, 1, start=i), feed(other, 1, start=i)
        found, expected = requests.forecast(deadline_s=LATE_S), other.forecast()
        assert (found.source, found.start_s) == (expected.source, expected.start_s)
        np.testing.assert_array_equal(found.values, expected.values)
        assert requests.forecast(deadline_s=0) is found


def test_without_a_forecast_before_the_history_stands_in(requests: Predictor, held: threading.Event) -> None:
    feed(requests, 20)
    late = requests.forecast(deadline_s=0.01)
    assert (late.source, late.start_s) == ("fallback:empirical", 19.0)
    held.set()
    assert wait_for(requests, "model").start_s == 19.0


def test_the_forecast_before_stands_in_while_it_reaches_ahead(
    requests: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(requests, 20)
    before = requests.forecast()
    go_on, run = threading.Event(), Binding.run
    monkeypatch.setattr(Binding, "run", lambda self: (go_on.wait(20), run(self))[1])
    for i in range(20, 23):  # it forecast four steps
        feed(requests, 1, start=i)
        late = requests.forecast(deadline_s=0)
        assert (late.source, late.start_s) == ("standing:model", 19.0)
        assert late.values is before.values
    feed(requests, 1, start=23)
    assert requests.forecast(deadline_s=0).source == "fallback:empirical"
    go_on.set()
    assert wait_for(requests, "model").start_s == 23.0


def test_over_a_swap_the_forecast_of_the_version_before_stands_in(
    artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = Predictor(artifacts / "requests", version=1, device="cpu")
    feed(p, 20)
    before = p.forecast()
    p.reload(2)
    go_on, run = threading.Event(), Binding.run
    monkeypatch.setattr(Binding, "run", lambda self: (go_on.wait(20), run(self))[1])
    late = p.forecast(deadline_s=0)
    assert (late.source, late.values is before.values) == ("standing:model", True)
    go_on.set()
    context = p._live._stream.steps.last().copy()
    np.testing.assert_array_equal(wait_for(p, "model").values, p.predict(context))


def test_a_forecast_from_before_a_gap_does_not_stand_in(load: Predictor, held: threading.Event) -> None:
    held.set()
    for i in range(14):
        load.observe_bin(i * 60.0, 1, 2, 3)
    assert load.forecast().source == "model"
    held.clear()
    for i in range(1000, 1012):
        load.observe_bin(i * 60.0, 1, 2, 3)
    assert load.forecast(deadline_s=0).source == "fallback:empirical"


def test_a_slow_model_is_asked_once_for_all_that_came_meanwhile(requests: Predictor, held: threading.Event) -> None:
    feed(requests, 20)
    for i in range(20, 60):
        feed(requests, 1, start=i)
        requests.forecast(deadline_s=0)
    held.set()
    assert wait_for(requests, "model").start_s == 59.0
    assert requests.stats()["runs"]["count"] <= 2, "the one it was busy with, and the newest"


def test_late_forecasts_are_counted_by_what_stood_in(requests: Predictor, held: threading.Event) -> None:
    feed(requests, 20)
    requests.forecast(deadline_s=0)
    held.set()
    wait_for(requests, "model")
    sources = requests.stats()["sources"]
    assert sources["model"] == 1
    assert sources["fallback:empirical"] >= 1


def test_a_short_history_needs_no_model_and_no_thread(requests: Predictor) -> None:
    before = set(threading.enumerate())
    feed(requests, 5)
    assert requests.forecast(deadline_s=0).source == "fallback:prior"
    assert set(threading.enumerate()) <= before


def test_a_failing_model_gives_the_fallback_in_time_too(requests: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("CUDA error: the GPU fell off the bus")

    monkeypatch.setattr(Binding, "run", fail)
    feed(requests, 20)
    with pytest.warns(RuntimeWarning, match="the GPU fell off the bus"):
        assert requests.forecast(deadline_s=LATE_S).source == "fallback:empirical"


def test_an_event_loop_goes_on_while_the_model_takes_long(requests: Predictor, held: threading.Event) -> None:
    feed(requests, 20)

    async def plan() -> list[str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while not held.is_set():
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.ensure_future(tick())
        sources = []
        for _ in range(5):
            begun = time.monotonic()
            sources.append(requests.forecast(deadline_s=0.002).source)
            assert time.monotonic() - begun < 1.0  # the model holds out for 20
            await asyncio.sleep(0.002)
        held.set()
        await ticker
        assert ticks >= 2
        return sources

    assert asyncio.run(plan()) == ["fallback:empirical"] * 5


def test_the_thread_ends_with_its_predictor(artifacts: Any) -> None:
    p = Predictor(artifacts / "requests", device="cpu")
    before = set(threading.enumerate())
    feed(p, 20)
    assert p.forecast(deadline_s=LATE_S).source == "model"
    (thread,) = (t for t in set(threading.enumerate()) - before if t.name == "fcast-deadline")
    del p
    thread.join(LATE_S)
    assert not thread.is_alive()


def test_streams_of_one_predictor_share_the_thread(requests: Predictor) -> None:
    before = set(threading.enumerate())
    for key in range(5):
        feed(requests.stream(key), 20)
        assert requests.stream(key).forecast(deadline_s=LATE_S).source == "model"
    assert len(set(threading.enumerate()) - before) == 1


@pytest.mark.parametrize("deadline_s", [-1, float("nan"), float("inf"), "1", True])
def test_a_deadline_is_a_number_of_seconds(requests: Predictor, deadline_s: Any) -> None:
    with pytest.raises(InputError, match="deadline_s: expected a finite number from 0"):
        requests.forecast(deadline_s=deadline_s)
