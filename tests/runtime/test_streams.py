"""Many streams before one model: each on its own, forecast together as one by one, let go in the order of use."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Forecast, InputError, Predictor
from runtime.device import Session
from runtime.live import LiveStream
from runtime.together import PIECE

BIN_S = {"requests": 1.0, "load": 60.0, "counts": 10.0, "demand": 10.0}
GAP_S = 21600.0


def feed(stream: LiveStream | Predictor, name: str, steps: int, *, seed: int = 0, start: int = 0) -> None:
    rows = np.random.default_rng(seed).integers(0, 4000, (steps, 3)).tolist()
    for i, (a, b, c) in enumerate(rows, start):
        if name == "requests":
            stream.observe(float(i), b, c)
        elif name == "counts":
            stream.observe_bin(i * BIN_S[name], a)
        else:
            stream.observe_bin(i * BIN_S[name], a, b, c)


def assert_same(found: Forecast, expected: Forecast) -> None:
    assert (found.source, found.start_s) == (expected.source, expected.start_s)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-5)
    assert (found.aggregates is None) == (expected.aggregates is None)
    if found.aggregates is not None:
        np.testing.assert_allclose(found.aggregates, expected.aggregates, rtol=1e-5, atol=1e-5)


def open_one(artifacts: Path, name: str, **options: Any) -> Predictor:
    return Predictor(artifacts / name, device="cpu", **options)


@pytest.mark.parametrize("name", BIN_S)
def test_each_stream_forecasts_as_a_predictor_of_its_own(artifacts: Path, name: str) -> None:
    p = open_one(artifacts, name)
    keys = (1, "1", None, ("a", 2))
    for step in range(40):
        for i, key in enumerate(keys):
            feed(p.stream(key), name, 1, seed=100 * i + step, start=step)
    assert p.forecast().source == "fallback:prior"
    for i, key in enumerate(keys):
        alone = open_one(artifacts, name)
        for step in range(40):
            feed(alone, name, 1, seed=100 * i + step, start=step)
        np.testing.assert_array_equal(p.stream(key).forecast().values, alone.forecast().values)


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("name", BIN_S)
def test_forecasts_together_are_those_one_by_one(artifacts: Path, name: str, adapt: bool) -> None:
    many, single = open_one(artifacts, name, adapt=adapt), open_one(artifacts, name, adapt=adapt)
    lengths = [0, 1, 5, 9, 11, 12, 16, 17, 40, 60]
    sources = set()
    for step in range(8):
        for key, length in enumerate(lengths):
            # Every third stream stands still in some rounds, and one is behind a gap.
            if step % 3 == 0 or key % 3:
                start = 100 * step + (round(GAP_S / BIN_S[name]) + 1 if key == 7 and step > 4 else 0)
                for p in (many, single):
                    feed(p.stream(key), name, length, seed=key, start=start)
        now_s = 100 * step * BIN_S[name] if step % 2 else None
        found = many.forecast_many(reversed(range(len(lengths))), now_s)
        assert list(found) == list(reversed(range(len(lengths))))
        for key, forecast in found.items():
            assert_same(forecast, single.stream(key).forecast(now_s))
            assert many.stream(key).forecast() is forecast
            sources.add(forecast.source)
        assert many.forecast_many([3, 3, 0]) == {3: found[3], 0: found[0]}
    # A context of four steps is whole before its own quantiles are worth anything.
    short = set() if name == "counts" else {"fallback:empirical"}
    assert sources == {"model+adaptive" if adapt else "model", "fallback:prior"} | short


def test_time_that_has_passed_finishes_the_bins_of_all(load: Predictor) -> None:
    for key in range(3):
        load.stream(key).observe(10.0, 1, 1)
    found = load.forecast_many(range(3), now_s=600.0)
    assert {forecast.start_s for forecast in found.values()} == {600.0}


def test_more_streams_than_a_run_takes_are_all_answered(requests: Predictor) -> None:
    keys = range(2 * PIECE + 3)
    for key in keys:
        feed(requests.stream(key), "requests", 17, seed=key)
    found = requests.forecast_many(keys)
    for key in keys:
        context = requests.stream(key)._stream.steps.last(16)
        np.testing.assert_allclose(found[key].values, requests.predict(context), rtol=1e-5, atol=1e-5)
        assert found[key].values.base is None, "a view would keep the others' forecasts alive"


def test_no_streams_are_no_forecasts(requests: Predictor) -> None:
    assert requests.forecast_many([]) == {}


def test_a_forecast_that_is_not_finite_takes_no_other_along(requests: Predictor) -> None:
    largest = float(np.finfo(np.float32).max)
    for key in range(3):
        feed(requests.stream(key), "requests", 17, seed=key)
    for i in range(17, 40):
        requests.stream(1).observe(float(i), largest, largest)
    with pytest.warns(RuntimeWarning, match="gave numbers that are negative, not finite"):
        found = requests.forecast_many(range(3))
    assert [found[key].source for key in range(3)] == ["model", "fallback:empirical", "model"]
    assert np.isfinite(found[1].values).all()


def test_a_model_that_fails_leaves_the_fallback(requests: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in range(3):
        feed(requests.stream(key), "requests", 17, seed=key)

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: the GPU fell off the bus")

    monkeypatch.setattr(Session, "run", fail)
    with pytest.warns(RuntimeWarning, match="the GPU fell off the bus"):
        found = requests.forecast_many(range(3))
    assert {forecast.source for forecast in found.values()} == {"fallback:empirical"}


def test_streams_are_observed_and_asked_while_the_model_runs(
    requests: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in range(3):
        feed(requests.stream(key), "requests", 17, seed=key)
    run = Session.run

    def busy(*arrays: Any) -> Any:
        for key in range(4):  # a lock still held would never be free again
            requests.stream(key).observe(17.0, 5, 5)
            requests.stream(key).forecast()
        return run(*arrays)

    monkeypatch.setattr(Session, "run", busy)
    found = requests.forecast_many(range(3))
    assert {forecast.start_s for forecast in found.values()} == {16.0}
    monkeypatch.setattr(Session, "run", run)
    assert {requests.stream(key).forecast().start_s for key in range(3)} == {17.0}, "the newer one stands"


@pytest.mark.parametrize("now_s", ["now", float("nan"), np.float32(3)])
def test_a_time_that_is_none_changes_no_stream(load: Predictor, now_s: Any) -> None:
    for key in range(2):
        load.stream(key).observe(10.0, 1, 1)
    before = load.snapshot()
    with pytest.raises(InputError, match="now_s: expected"):
        load.forecast_many(range(2), now_s)
    assert load.snapshot() == before


def test_a_key_finds_the_same_stream_until_it_is_forgotten(requests: Predictor) -> None:
    stream = requests.stream("a")
    assert requests.stream("a") is stream
    assert requests.forget("a") is True
    assert requests.forget("a") is False
    assert requests.stream("a") is not stream
    stream.observe(1.0, 1, 1)  # works on, under no key
    assert requests.stream("a").forecast().start_s is None


def test_beyond_max_streams_the_one_asked_for_the_longest_ago_goes(artifacts: Path) -> None:
    p = open_one(artifacts, "requests", max_streams=3)
    for key in "abc":
        p.stream(key).observe(1.0, 1, 1)
    p.stream("a")
    p.forecast_many("b")
    gone = weakref.ref(p.stream("c"))
    p.forecast_many("ab")
    p.stream("d")
    gc.collect()
    assert p.keys() == ["a", "b", "d"]
    assert gone() is None
    assert p.stream("c").forecast().start_s is None, "a new one"
    assert p.keys() == ["b", "d", "c"]


def test_a_stream_that_a_caller_holds_is_found_under_its_key_all_the_while(artifacts: Path) -> None:
    p = open_one(artifacts, "requests", max_streams=2)
    held = p.stream("held")
    for key in range(50):
        held.observe(float(key), 1, 1)
        p.stream(key)
    assert p.keys() == ["held", 48, 49]
    assert p.stream("held") is held
    assert p.keys() == [49, "held"]
    p.stream(50), p.stream(51)
    assert p.forget("held") is True
    assert p.stream("held") is not held


@pytest.mark.parametrize("max_streams", [0, -1, 1.5, True, "9", None])
def test_max_streams_is_a_whole_number(artifacts: Path, max_streams: Any) -> None:
    with pytest.raises(InputError, match="max_streams: expected a whole number from 1, got"):
        open_one(artifacts, "requests", max_streams=max_streams)


@pytest.mark.parametrize("call", ["stream", "forget"])
def test_a_key_must_be_hashable(requests: Predictor, call: str) -> None:
    with pytest.raises(InputError, match=r"key: expected something hashable, such as a text or a number, got \[1\]"):
        getattr(requests, call)([1])


def test_threads_share_the_streams_of_one_predictor(artifacts: Path) -> None:
    p = open_one(artifacts, "requests", max_streams=40, breaker=False)
    failed: list[BaseException] = []
    held = [p.stream(("own", seed)) for seed in range(4)]

    def work(seed: int) -> None:
        rng, mine = np.random.default_rng(seed), held[seed]
        try:
            for i in range(300):
                mine.observe(float(i), 1, seed)
                p.stream(int(rng.integers(0, 60))).observe(1.0, 1, 1)
                found = p.forecast_many([("own", seed), *rng.integers(0, 60, 5).tolist()])
                assert found["own", seed].start_s == float(i)
                assert all(np.isfinite(forecast.values).all() for forecast in found.values())
                if i % 50 == 0:
                    p.forget(int(rng.integers(0, 60)))
                    assert len(p.keys()) <= 40 + 4 + 4 * 6
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for seed in range(4):
        alone = open_one(artifacts, "requests", breaker=False)
        for i in range(300):
            alone.observe(float(i), 1, seed)
        assert p.stream(("own", seed)) is held[seed]
        np.testing.assert_allclose(held[seed].forecast().values, alone.forecast().values, rtol=1e-5, atol=1e-5)
