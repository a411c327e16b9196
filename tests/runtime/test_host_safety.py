"""A predictor inside a host: hammered by threads, forked, and seen through its counters."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime import Predictor
from runtime.stats import BOUNDS_S, TOTAL, Stats
from tests.runtime.conftest import ARTIFACTS

ROOT = Path(runtime.__file__).parents[1]

FORK = """
import os, sys, warnings
from runtime import Predictor, DeviceError
p = Predictor({artifact!r}, device="cpu", threads={threads})
def feed(start):
    for i in range(start, start + 20):
        p.observe(float(i), 10, 20)
        p.stream("other").observe(float(i), 5, 5)
feed(0)
assert p.forecast().source == p.forecast(deadline_s=9).source == {source!r}
assert p.stream("other").forecast(deadline_s=9).source == {source!r}
child = os.fork()
if child == 0:
    code = 1
    try:
        feed(20)
        {then}
        code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
feed(20)
assert p.forecast().source == p.stream("other").forecast(deadline_s=9).source == {source!r}
print("done")
"""
WORKS = """
        assert p.forecast().source == p.stream("other").forecast(deadline_s=9).source == {source!r}
        assert p.predict(p._live._stream.steps.last(p.manifest["context"])).shape[1:] == (3, 7)
        assert len(p.forecast_many(["other", "third"])) == 2
"""
REFUSES = """
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert p.forecast().source == "fallback:empirical"
        assert "got a forked child" in str(said[0].message), said
        try:
            p.predict(p._live._stream.steps.last(p.manifest["context"]))
        except DeviceError as error:
            assert str(error).startswith("fork: expected the process that loaded the model"), error
        else:
            raise AssertionError
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("threads", "then"), [(1, WORKS), (2, REFUSES)], ids=["one thread", "two threads"])
@pytest.mark.parametrize(("name", "source"), [("requests", "model"), ("carried-requests", "model:stateful")])
def test_a_forked_child_forecasts_or_says_why_not(name: str, source: str, threads: int, then: str) -> None:
    then = then.strip().replace("{source!r}", repr(source))
    code = FORK.format(artifact=str(ARTIFACTS / name), threads=threads, then=then, source=source)
    run = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_threads_hammer_one_predictor(requests: Predictor) -> None:
    failed: list[BaseException] = []
    rounds, context = 200, np.ones((16, 3), np.float32)
    expected = requests.predict(context)
    clock = iter(range(10**9))
    in_order = threading.Lock()

    def observe() -> None:
        for _ in range(rounds * 5):
            with in_order:  # one stream's times must come in order
                requests.observe(float(next(clock)), 1, 1)

    def feed(key: int) -> None:
        for i in range(rounds):
            requests.stream(key).observe(float(i), 2, 2)

    def check(forecast: Any) -> None:
        assert np.isfinite(forecast.values).all()
        assert (np.diff(forecast.values, axis=-1) >= 0).all()

    def forecast() -> None:
        starts = [-1.0]
        for i in range(rounds):
            found = requests.forecast(deadline_s=0.001 if i % 3 == 0 else None)
            check(found)
            if found.source == "model":
                assert found.start_s is not None
                assert found.start_s >= starts[-1], "forecasts of one caller never go back"
                starts.append(found.start_s)

    def forecast_many() -> None:
        for i in range(rounds):
            for found in requests.forecast_many(range(6), now_s=float(i)).values():
                check(found)

    def predict() -> None:
        for _ in range(rounds):
            np.testing.assert_array_equal(requests.predict(context), expected)

    def look() -> None:
        for _ in range(rounds):
            requests.stats(), requests.keys(), requests.snapshot()

    def guarded(work: Any, *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failed.append(error)

    work: list[tuple[Any, ...]] = [(observe,), (observe,), (feed, 1), (feed, 2), (forecast,), (forecast,)]
    work += [(forecast_many,), (predict,), (predict,), (look,)]
    threads = [threading.Thread(target=guarded, args=arguments) for arguments in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failed == []
    assert requests.forecast().start_s == rounds * 10 - 1.0
    assert requests.stats()["runs"]["count"] >= 2 * rounds + 1, "no run goes uncounted"


def test_stats_count_runs_and_sources_of_all_streams(requests: Predictor) -> None:
    for key in range(3):
        for i in range(17):
            requests.stream(key).observe(float(i), 1, 1)
    requests.forecast()
    requests.stream(0).forecast(), requests.stream(0).forecast()
    requests.forecast_many([1, 2])
    requests.predict(np.ones((16, 3), np.float32))
    found = requests.stats()
    assert (found["name"], found["version"]) == ("requests", 2)
    assert found["sources"] == {"fallback:prior": 1, "model": 3}
    assert found["failures"] == {}
    assert found["runs"]["count"] == 2
    assert (found["batch_runs"]["count"], found["batch_runs"]["windows"]) == (1, 2)
    assert 0 < found["runs"]["total_s"] < 60
    below = found["runs"]["below_s"]
    assert list(below) == list(BOUNDS_S)
    assert below[float("inf")] == 2
    assert 0 < found["runs"]["p50_s"] <= found["runs"]["p999_s"]


def test_the_histogram_holds_every_time_below_its_bound() -> None:
    stats, rng = Stats(), np.random.default_rng(0)
    row, other = stats.row(), stats.row()
    times = np.concatenate(([0, 1, 1023, 1024, 1 << 33, 1 << 40], (10 ** rng.uniform(1, 11, 500)).astype(int))).tolist()
    for i, took_ns in enumerate(times):
        (row if i % 2 else other)[took_ns.bit_length()] += 1
        (row if i % 2 else other)[TOTAL] += took_ns
    found = stats.read()["runs"]
    assert (found["count"], found["total_s"]) == (len(times), sum(times) / 1e9)
    for bound, count in found["below_s"].items():
        assert count == sum(took_ns < bound * 1e9 for took_ns in times)
    for name, level in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99)):
        true = np.quantile(times, level, method="inverted_cdf") / 1e9
        assert true <= found[name]
        assert found[name] <= 2.0 * true or found[name] in (BOUNDS_S[0], float("inf"))


def test_each_version_has_counters_of_its_own_which_its_goldens_do_not_move(artifacts: Path) -> None:
    p = Predictor(artifacts / "requests", version=1, device="cpu")
    context = np.ones((16, 3), np.float32)
    p.predict(context)
    assert p.reload(2)
    found = p.stats()
    assert (found["version"], found["runs"]["count"], found["batch_runs"]["windows"]) == (2, 0, 0)
    assert found["batch_runs"]["total_s"] == found["runs"]["total_s"] == 0
    p.predict(context), p.predict(context)
    assert p.stats()["runs"]["count"] == 2
    p.rollback()
    assert (p.stats()["version"], p.stats()["runs"]["count"]) == (1, 1)


def test_stats_of_a_new_predictor_are_empty(requests: Predictor) -> None:
    found = requests.stats()
    assert found["runs"]["count"] == found["batch_runs"]["count"] == 0
    assert found["runs"]["p50_s"] is None
    assert found["sources"] == {}
