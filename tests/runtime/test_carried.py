"""A stream before a stateful model: its state is carried on, and nothing but valid steps ever moves it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import ArtifactError, Predictor
from runtime.carried import Carried
from runtime.live import LiveStream
from runtime.step import StepBinding, StepSession
from tests.runtime.conftest import ARTIFACTS, replace_file

STATEFUL = ["carried", "carried-requests"]
T0_S = 60_000.0
each = pytest.mark.parametrize("name", STATEFUL)


def open_(name: str, **settings: Any) -> Predictor:
    return Predictor(ARTIFACTS / name, version=1, device="cpu", **settings)


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Steps as they are observed; inter-arrivals are multiples of 1/8 s, so that times differ by exactly them."""
    found = np.random.default_rng(seed).integers(1, 400, (count, 3)).astype(np.float32)
    found[:, 0] /= 8
    return found


def feed(stream: LiveStream | Predictor, name: str, given: np.ndarray, start: int = 0) -> None:
    """Observe steps; the first of a stream of requests needs one request before it."""
    for i, row in enumerate(given.tolist(), start):
        if name == "carried":
            stream.observe_bin(T0_S + 60.0 * i, *row)
        else:
            last_s = getattr(stream, "_live", stream)._stream.start_s
            if last_s is None:
                stream.observe(last_s := T0_S, 0, 0)
            stream.observe(last_s + row[0], *row[1:])


def window(p: Predictor, given: np.ndarray) -> dict[str, np.ndarray]:
    """What the model of windows says of the last L of some steps."""
    length = p.manifest["context"]
    time_s = T0_S + 60.0 * (len(given) - 1) if p.manifest["kind"] == "load" else None
    return p.predict_outputs(np.ascontiguousarray(given[-length:]), time_s)


@each
def test_the_first_forecast_is_that_of_the_window(name: str) -> None:
    p = open_(name)
    length = p.manifest["context"]
    feed(p, name, rows(length - 1))
    assert p.forecast().source.startswith("fallback:")
    p = open_(name)
    feed(p, name, rows(length))
    forecast = p.forecast()
    assert forecast.source == "model:stateful"
    np.testing.assert_allclose(forecast.values, window(p, rows(length))["forecast"], rtol=1e-5)


@each
@pytest.mark.parametrize("seed", range(4))
def test_however_often_a_stream_is_asked_its_forecast_is_the_same(name: str, seed: int) -> None:
    given, rng = rows(40, seed), np.random.default_rng(seed)
    always, sometimes = open_(name), open_(name)
    length = always.manifest["context"]
    waiting = 0
    for i in range(len(given)):
        feed(always, name, given[i : i + 1], i)
        feed(sometimes, name, given[i : i + 1], i)
        forecast = always.forecast()
        waiting += 1
        if rng.random() < 0.4 or waiting == length or i + 1 == length:
            np.testing.assert_allclose(sometimes.forecast().values, forecast.values, rtol=1e-5)
            waiting = 0
    assert not np.allclose(forecast.values, window(always, given)["forecast"], rtol=1e-3), "nothing was carried"


@each
def test_beyond_a_context_of_steps_it_begins_cold(name: str) -> None:
    p = open_(name)
    length = p.manifest["context"]
    given = rows(3 * length + 1)
    feed(p, name, given[:length])
    p.forecast()
    feed(p, name, given[length : 2 * length], length)
    assert not np.allclose(p.forecast().values, window(p, given[: 2 * length])["forecast"], rtol=1e-3)
    feed(p, name, given[2 * length :], 2 * length)
    np.testing.assert_allclose(p.forecast().values, window(p, given)["forecast"], rtol=1e-5)


def test_after_a_gap_it_begins_cold() -> None:
    p = open_("carried")
    feed(p, "carried", rows(9))
    p.forecast()
    late = 9 + 24 * 60
    feed(p, "carried", rows(5, seed=1), late)
    assert p.forecast().source.startswith("fallback:")
    feed(p, "carried", rows(6, seed=1)[5:], late + 5)
    want = p.predict(rows(6, seed=1), T0_S + 60.0 * (late + 5))
    np.testing.assert_allclose(p.forecast().values, want, rtol=1e-5)


@each
@pytest.mark.parametrize("how", ["raises", "not a number", "a state that is none"])
def test_a_run_that_fails_leaves_the_state_as_it_was(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p, undisturbed = open_(name), open_(name)
    given = rows(14)
    for one in (p, undisturbed):
        feed(one, name, given[:12])
        one.forecast()

    def fail(self: StepBinding) -> None:
        if how == "raises":
            raise RuntimeError("no memory")
        self._outputs[:], self.after[:] = (np.nan, 0.0) if how == "not a number" else (1.0, np.inf)

    feed(p, name, given[12:13], 12)
    with monkeypatch.context() as patched:
        patched.setattr(StepBinding, "run", fail)
        with pytest.warns(RuntimeWarning, match="from the fallback"):
            forecast = p.forecast()
    assert forecast.source == "fallback:empirical"
    feed(p, name, given[13:], 13)
    feed(undisturbed, name, given[12:], 12)
    np.testing.assert_allclose(p.forecast().values, undisturbed.forecast().values, rtol=1e-5)
    assert p.stats()["failures"] == {"error" if how == "raises" else "invalid": 1}


@each
def test_many_streams_are_asked_together_as_one_by_one(name: str) -> None:
    together, alone = open_(name), open_(name)
    length = together.manifest["context"]
    seen = dict.fromkeys(range(12), 0)
    rng = np.random.default_rng(5)
    for _ in range(8):
        for key in seen:
            count = int(rng.integers(0, length))  # 0: what stands is returned
            given = rows(60, seed=key)[seen[key] : seen[key] + count]
            for p in (together, alone):
                feed(p.stream(key), name, given, seen[key])
            seen[key] += count
        found = together.forecast_many(seen)
        for key in seen:
            want = alone.stream(key).forecast()
            assert found[key].source == want.source
            np.testing.assert_allclose(found[key].values, want.values, rtol=1e-5)
    assert together.stats()["batch_runs"]["windows"] > 0


@each
def test_one_bad_stream_of_a_batch_takes_no_other_along(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = open_(name)
    for key in "abc":
        feed(p.stream(key), name, rows(10, seed=ord(key)))
    run = StepSession.run

    def spoil(self: StepSession, *given: Any) -> Any:
        outputs, after = run(self, *given)
        after[1] = np.nan
        return outputs, after

    monkeypatch.setattr(StepSession, "run", spoil)
    with pytest.warns(RuntimeWarning, match="from the fallback"):
        sources = [forecast.source for forecast in p.forecast_many("abc").values()]
    assert sources == ["model:stateful", "fallback:empirical", "model:stateful"]


def test_a_forecast_with_a_deadline_carries_the_same_state() -> None:
    given = rows(20)
    handed, here = open_("carried"), open_("carried")
    for i in range(len(given)):
        for p in (handed, here):
            feed(p, "carried", given[i : i + 1], i)
        forecast, want = handed.forecast(deadline_s=30.0), here.forecast()
        assert forecast.source == want.source
        np.testing.assert_array_equal(forecast.values, want.values)


def test_corrections_under_drift_go_on_top() -> None:
    p = open_("carried", adapt=True)
    feed(p, "carried", rows(8))
    assert p.forecast().source == "model:stateful+adaptive"


def test_predict_is_of_windows_and_leaves_the_stream_alone() -> None:
    p, other = open_("carried"), open_("carried")
    for one in (p, other):
        feed(one, "carried", rows(9))
        one.forecast()
        feed(one, "carried", rows(10)[9:], 9)
    first = p.predict(rows(6, seed=3), T0_S)
    np.testing.assert_array_equal(p.predict(rows(6, seed=3), T0_S), first)
    np.testing.assert_array_equal(p.forecast().values, other.forecast().values)


def test_threads_that_forecast_while_steps_come_leave_the_state_of_all_steps() -> None:
    given = rows(300)
    busy, quiet = open_("carried"), open_("carried")
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            busy.forecast()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(len(given)):
        feed(busy, "carried", given[i : i + 1], i)
        busy.forecast()
        feed(quiet, "carried", given[i : i + 1], i)
        quiet.forecast()
    over.set()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(busy.forecast().values, quiet.forecast().values, rtol=1e-4)


def test_a_slower_thread_takes_no_state_back() -> None:
    manifest = open_("carried")._model.manifest
    other = open_("carried")._model.manifest
    early, late = (Carried(manifest, 0, seen, np.zeros(1, np.float32)) for seen in (7, 8))
    assert Carried.newer(early, late) is late
    assert Carried.newer(late, early) is late
    assert Carried.newer(late, after_gap := late._replace(clears=1, seen=6)) is after_gap
    assert Carried.newer(late, swapped := early._replace(manifest=other)) is swapped


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ARTIFACTS / "carried", tmp_path / "carried"))


def test_before_another_version_it_begins_from_the_last_steps(versions: Path) -> None:
    p = Predictor(versions, version=1, device="cpu")
    given = rows(11)
    feed(p, "carried", given[:9])
    p.forecast()
    assert p.reload(2)
    np.testing.assert_allclose(p.forecast().values, window(p, given[:9])["forecast"], rtol=1e-5)
    feed(p, "carried", given[9:10], 9)
    assert not np.allclose(p.forecast().values, window(p, given[:10])["forecast"], rtol=1e-3)
    p.rollback()
    np.testing.assert_allclose(p.forecast().values, window(p, given[:10])["forecast"], rtol=1e-5)


def test_a_snapshot_goes_on_before_another_version_without_its_state(versions: Path) -> None:
    p, newer = (Predictor(versions, version=version, device="cpu") for version in (1, 2))
    feed(p, "carried", rows(9))
    p.forecast()
    newer.restore(p.snapshot())
    np.testing.assert_allclose(newer.forecast().values, window(newer, rows(9))["forecast"], rtol=1e-5)


def test_a_version_without_a_step_graph_serves_by_windows(edited: Callable[..., Path]) -> None:
    p = Predictor(edited("carried", step=...), device="cpu")
    feed(p, "carried", rows(9))
    forecast = p.forecast()
    assert forecast.source == "model"
    np.testing.assert_array_equal(forecast.values, window(p, rows(9))["forecast"])


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({"means": 7, "hidden": 4}, r"'means' to be tensor\(float\) \(1, any, 7\), got tensor\(float\) \(1, any, 6\)"),
        ({"means": 6}, "expected the inputs context, time_s, means, got "),
        ({"means": 6, "hidden": 4, "cell": 4}, "expected the inputs "),
        ({}, "expected 'step' to be names of states"),
        ({"means": 6, "hidden": 0}, "expected 'step' to be names of states"),
        ({"means": 1 << 16, "hidden": 1}, "at most 65536 numbers of state"),
        ({"forecast": 6, "hidden": 4}, "expected 'step' to be names of states"),
        ({"next_means": 6, "hidden": 4}, "expected 'step' to be names of states"),
        ([6, 4], "expected 'state' to be an object"),
    ],
)
def test_a_manifest_that_lies_about_the_state_is_refused(
    edited: Callable[..., Path], state: Any, complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        Predictor(edited("carried", step={"state": state}), device="cpu")


def test_a_step_graph_that_is_missing_or_cut_is_refused(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("carried")
    whole = (folder / "step.onnx").read_bytes()
    os.remove(folder / "step.onnx")
    with pytest.raises(ArtifactError, match=r"step.onnx: expected a file, found none"):
        Predictor(folder, device="cpu")
    (folder / "step.onnx").write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"step.onnx: expected \d+ bytes, found \d+ bytes"):
        Predictor(folder, device="cpu")
    replace_file(folder, "step.onnx", whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"step.onnx: expected "):
        Predictor(folder, device="cpu")


def test_a_step_graph_with_weights_elsewhere_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("carried")
    replace_file(folder, "step.onnx", (ARTIFACTS / "external.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"step.onnx: expected all weights inside the file"):
        Predictor(folder, device="cpu")


def test_the_graph_of_windows_is_no_step_graph(copied: Callable[[str], Path]) -> None:
    folder = copied("carried")
    replace_file(folder, "step.onnx", (folder / "model.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"step.onnx: expected the inputs context, time_s, means, hidden, got"):
        Predictor(folder, device="cpu")
