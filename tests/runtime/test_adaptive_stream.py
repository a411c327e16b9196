"""`Predictor(..., adapt=True)`: the layer sees each finished step once, and judges what was really forecast."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Predictor
from runtime.adaptive import AdaptiveQuantiles

BIN_S, L, H, RATIO = 10.0, 10, 4, 3
GAP_S = 21600.0
ROWS = np.random.default_rng(8).gamma(2.0, 40.0, (200, 3)).round().astype(np.float32)


@pytest.fixture
def adaptive(artifacts: Path) -> Predictor:
    """The artifact `demand`: L=10, H=4, bins of 10 s, forecast steps of 30 s."""
    return Predictor(artifacts / "demand", device="cpu", adapt=True, breaker=False)


def by_hand(p: Predictor, rows: np.ndarray, every: int) -> tuple[AdaptiveQuantiles, list[np.ndarray]]:
    """What the layer makes of the model's own forecasts for windows of `rows`."""
    layer, found = AdaptiveQuantiles(p.manifest["levels"], horizon=H, channels=3, ratio=RATIO), []
    for i, row in enumerate(rows):
        layer.learn(row)
        if i >= L - 1 and i % every == 0:
            found.append(layer.adjust(p.predict(rows[i - L + 1 : i + 1])))
    return layer, found


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_the_stream_adapts_as_the_layer_does_by_hand(adaptive: Predictor, every: int) -> None:
    found = []
    for i, row in enumerate(ROWS):
        adaptive.observe_bin(i * BIN_S, *row)
        if i >= L - 1 and i % every == 0:
            found.append(adaptive.forecast())
            assert adaptive.forecast() is found[-1]
    assert {forecast.source for forecast in found} == {"model+adaptive"}
    for forecast, expected in zip(found, by_hand(adaptive, ROWS, every)[1], strict=True):
        np.testing.assert_array_equal(forecast.values, expected)
        assert not forecast.values.flags.writeable
    assert not np.array_equal(found[-1].values, adaptive.predict(ROWS[-L:]))


def test_single_requests_adapt_as_their_bins_do(artifacts: Path, adaptive: Predictor) -> None:
    counts = Predictor(artifacts / "demand", device="cpu", adapt=True, breaker=False)
    rng = np.random.default_rng(9)
    time_s = np.cumsum(rng.exponential(2.0, 900))
    index, done = (time_s // BIN_S).astype(int), 0
    per_bin = np.bincount(index)
    for t, k in zip(time_s, index, strict=True):
        adaptive.observe(t, 5, 5)
        while done < k:
            if done:  # the first bin was not watched from its beginning
                counts.observe_bin(done * BIN_S, per_bin[done], 5 * per_bin[done], 5 * per_bin[done])
                counts.forecast()
                adaptive.forecast(now_s=min((done + 1) * BIN_S, t))
            done += 1
    one, other = adaptive.forecast(), counts.forecast()
    assert one.source == other.source == "model+adaptive"
    assert one.start_s == other.start_s


def test_the_model_alone_speaks_without_it(adaptive: Predictor) -> None:
    demand = Predictor(adaptive._model.folder, device="cpu", breaker=False)
    for i, row in enumerate(ROWS):
        for p in (demand, adaptive):
            p.observe_bin(i * BIN_S, *row)
            p.forecast()
    assert demand.forecast().source == "model"
    np.testing.assert_array_equal(demand.forecast().values, demand.predict(ROWS[-L:]))
    np.testing.assert_array_equal(adaptive.predict(ROWS[-L:]), demand.predict(ROWS[-L:]))
    np.testing.assert_array_equal(adaptive.forecast().aggregates, demand.forecast().aggregates)


def test_what_was_observed_without_a_forecast_teaches_nothing(adaptive: Predictor) -> None:
    for i, row in enumerate(ROWS):
        adaptive.observe_bin(i * BIN_S, *row)
    np.testing.assert_array_equal(adaptive.forecast().values, adaptive.predict(ROWS[-L:]))


def test_the_fallback_is_neither_adapted_nor_judged(adaptive: Predictor, demand: Predictor) -> None:
    for i, row in enumerate(ROWS[: L - 1]):
        for p in (adaptive, demand):
            p.observe_bin(i * BIN_S, *row)
        assert adaptive.forecast().source.startswith("fallback:")
        np.testing.assert_array_equal(adaptive.forecast().values, demand.forecast().values)
    adaptive.observe_bin((L - 1) * BIN_S, 1e6, 1e6, 1e6)
    window = np.concatenate([ROWS[: L - 1], np.full((1, 3), 1e6, np.float32)])
    np.testing.assert_array_equal(adaptive.forecast().values, adaptive.predict(window))


def fed(p: Predictor, rows: np.ndarray, start_s: float = 0.0) -> None:
    for i, row in enumerate(rows):
        p.observe_bin(start_s + i * BIN_S, *row)
        p.forecast()


def test_a_gap_keeps_what_was_learnt_and_judges_no_forecast_across_it(adaptive: Predictor) -> None:
    fed(adaptive, ROWS)
    after_s = len(ROWS) * BIN_S + 2 * GAP_S // BIN_S * BIN_S
    later = np.full((L, 3), 1e6, np.float32)
    for i, row in enumerate(later):
        adaptive.observe_bin(after_s + i * BIN_S, *row)
    layer, _ = by_hand(adaptive, ROWS, 1)
    layer.clear()
    np.testing.assert_array_equal(adaptive.forecast().values, layer.adjust(adaptive.predict(later)))


def test_a_silence_longer_than_the_horizon_costs_no_time(edited: Any) -> None:
    p = Predictor(edited("demand", bin_s=0.001, step_s=0.003, gap_s=1e12), device="cpu", adapt=True, breaker=False)
    for i, row in enumerate(ROWS[:50]):
        p.observe_bin(i * 0.001, *row)
        p.forecast()
    begun = time.perf_counter()
    p.observe_bin(1e8, 1, 1, 1)  # 10**11 bins later
    assert p.forecast().source == "model+adaptive"
    assert time.perf_counter() - begun < 5


def test_idle_bins_that_end_at_once_are_judged_one_by_one(artifacts: Path, adaptive: Predictor) -> None:
    other = Predictor(artifacts / "demand", device="cpu", adapt=True, breaker=False)
    for p in (adaptive, other):
        fed(p, ROWS[:60])
    for i in range(60, 60 + H * RATIO - 1):
        other.observe_bin(i * BIN_S, 0, 0, 0)
    for p in (adaptive, other):
        p.observe_bin((60 + H * RATIO - 1) * BIN_S, 0, 0, 0)
    np.testing.assert_array_equal(adaptive.forecast().values, other.forecast().values)


def test_a_requests_model_adapts_too(artifacts: Path) -> None:
    p = Predictor(artifacts / "requests", device="cpu", adapt=True, breaker=False)
    layer = AdaptiveQuantiles(p.manifest["levels"], horizon=4, channels=3)
    rng = np.random.default_rng(10)
    steps = rng.gamma(2.0, 100.0, (80, 3)).round().astype(np.float32)
    at_s = 0.0
    p.observe(at_s, 1, 1)
    for i, (wait_s, *sizes) in enumerate(steps.tolist()):
        at_s += wait_s
        p.observe(at_s, *sizes)
        layer.learn(steps[i])
        if i >= 15:
            expected = layer.adjust(p.predict(steps[i - 15 : i + 1]))
            np.testing.assert_array_equal(p.forecast().values, expected)
    assert p.forecast().source == "model+adaptive"


def test_a_forecast_overtaken_by_the_stream_is_judged_by_what_came_after(adaptive: Predictor) -> None:
    fed(adaptive, ROWS[:100])
    ask = adaptive._model.answer

    def slow(*arguments: Any) -> Any:
        found = ask(*arguments)
        adaptive.observe_bin(100 * BIN_S, *ROWS[100])
        return found

    adaptive._model.answer = slow  # type: ignore[method-assign]
    layer, _ = by_hand(adaptive, ROWS[:100], 1)
    adaptive._live._standing = None
    adaptive.forecast()
    adaptive._model.answer = ask  # type: ignore[method-assign]
    layer.learn(ROWS[100])
    np.testing.assert_array_equal(adaptive.forecast().values, layer.adjust(adaptive.predict(ROWS[101 - L : 101])))


def test_threads_that_observe_and_ask_do_not_upset_it(adaptive: Predictor) -> None:
    failed: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                values = adaptive.forecast().values
                assert np.isfinite(values).all()
                assert (np.diff(values, axis=-1) >= 0).all()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(2000):
        adaptive.observe_bin(i * BIN_S, *ROWS[i % len(ROWS)])
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert adaptive.forecast().source == "model+adaptive"
