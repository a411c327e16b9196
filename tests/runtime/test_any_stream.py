"""Whatever is observed, in whatever pieces: a stream stays usable, its output valid, its window that of the batch."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import FcastError, Predictor
from tests.runtime.conftest import ARTIFACTS

BIN_S = {"requests": None, "load": 60.0, "counts": 10.0, "demand": 10.0, "carried": 60.0, "carried-requests": None}
KEYS = count()

odd = st.sampled_from(
    [float("nan"), float("inf"), -1.0, -0.0, 0, None, "1", True, 10**400, 1e39, 3.4e38, 1e-45, [], 1j]
)
values = st.one_of(odd, st.floats(0, 1e6), st.integers(0, 10**9), st.floats())
times = st.one_of(st.floats(0, 4e4), st.integers(0, 600).map(lambda i: 60.0 * i), odd, st.floats(-1e16, 1e16))
calls = st.one_of(
    st.tuples(st.just("observe"), times, values, values),
    st.tuples(st.just("observe_bin"), times, values, values, values),
    st.tuples(st.just("forecast"), times),
    st.tuples(st.just("good"), st.integers(1, 25), st.integers(0, 5000), st.integers(0, 5000)),
)


@cache
def predictor(name: str, adapt: bool = False) -> Predictor:
    return Predictor(ARTIFACTS / name, device="cpu", adapt=adapt, max_streams=5)


def assert_valid(forecast: Any) -> None:
    for values in (forecast.values, forecast.aggregates):
        if values is not None:
            assert np.isfinite(values).all()
            assert (values >= 0).all()
            assert (np.diff(values, axis=-1) >= 0).all()


def good(stream: Any, bin_s: float | None, steps: int, *sizes: float) -> None:
    """Steps that follow what was seen, as far as there is time left."""
    for _ in range(steps):
        start_s = stream._stream.start_s or 0.0
        if abs(start_s) > 1e12:
            return
        if bin_s is None or stream._stream._fed == "observe":
            stream.observe(start_s + (bin_s or 1.0), *sizes)
        else:
            stream.observe_bin(start_s, 3, *sizes)


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("name", BIN_S)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(sequence=st.lists(calls, max_size=25))
def test_any_calls_leave_the_stream_usable_and_its_forecasts_valid(name: str, adapt: bool, sequence: list[Any]) -> None:
    p, bin_s = predictor(name, adapt), BIN_S[name]
    stream = p.stream(next(KEYS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the model's own, of absurdly large numbers
        for call, *arguments in sequence:
            if call == "good":
                good(stream, bin_s, *arguments)
            else:
                with contextlib.suppress(FcastError):
                    getattr(stream, call)(*arguments)
            assert_valid(stream.forecast())
        history = p.manifest["context"] + 2
        good(stream, bin_s, history, 7, 8)
        assert_valid(stream.forecast())
        if abs(stream._stream.start_s or 0.0) <= 1e12 and stream._stream.steps.seen >= 16:
            last = stream._stream.steps.last(p.manifest["context"])
            if last.max() < 1e9:  # beyond, the model itself may overflow
                assert stream.forecast().source.startswith("model")


gaps = st.lists(st.floats(0.0, 90.0), min_size=1, max_size=60)


@pytest.mark.parametrize("name", ["requests", "load"])
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(gaps=gaps, cuts=st.sets(st.integers(0, 60)), kind=st.sampled_from(["forecast", "now", "deadline", "restore"]))
def test_any_split_of_the_input_gives_the_window_of_the_whole(name: str, gaps: Any, cuts: Any, kind: str) -> None:
    p, arrivals = predictor(name), np.cumsum(gaps)
    sizes = np.arange(2 * len(gaps)).reshape(-1, 2) % 97
    whole, split = p.stream(next(KEYS)), p.stream(next(KEYS))
    for i, (time_s, row) in enumerate(zip(arrivals.tolist(), sizes.tolist(), strict=True)):
        whole.observe(time_s, *row)
        split.observe(time_s, *row)
        if i in cuts:
            if kind == "restore":
                data, split = split.snapshot(), p.stream(next(KEYS))
                split.restore(data)
            elif kind == "deadline":
                split.forecast(deadline_s=5)
            else:
                split.forecast(now_s=time_s if kind == "now" else None)
    if name == "requests":
        batch = np.column_stack((np.diff(arrivals), sizes[1:]))
    else:  # bin by bin: the first was not watched from its beginning, the last is open
        bins = (arrivals // 60).astype(int)
        batch = np.zeros((bins[-1] + 1, 3))
        np.add.at(batch, bins, np.column_stack((np.ones(len(sizes)), sizes)))
        batch = batch[bins[0] + 1 : -1]
    for stream in (whole, split):
        np.testing.assert_array_equal(stream._stream.steps.last(), batch[-stream._stream.steps.length :].astype("f4"))
    np.testing.assert_array_equal(split.forecast().values, whole.forecast().values)
