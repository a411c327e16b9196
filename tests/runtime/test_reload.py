"""Another version comes into service between two forecasts, proven first; a bad one changes nothing."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import ArtifactError, DeviceError, InputError, Predictor
from runtime.live import LiveStream
from runtime.model import Model
from tests.runtime.conftest import ARTIFACTS, replace_file, seal

Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Puts a version of `requests` into an artifact of this test's own, whole as the exporter does it."""

    def put(version: int, *, of: int = 1, damage: Callable[[Path], None] | None = None, **changes: Any) -> Path:
        root, staged = tmp_path / "requests", tmp_path / f"staged-{version}"
        root.mkdir(exist_ok=True)
        shutil.copytree(ARTIFACTS / "requests" / str(of), staged)
        manifest = json.loads((staged / "manifest.json").read_text())
        seal(staged, manifest | {"version": version} | changes)
        if damage is not None:
            damage(staged)
        staged.rename(root / str(version))
        return root

    return put


def feed(stream: LiveStream | Predictor, steps: int = 20, start: int = 0) -> None:
    for i in range(start, start + steps):
        stream.observe(float(i), 100 + i, 50)


def other_numbers(folder: Path) -> None:
    with np.load(folder / "golden.npz") as found:
        arrays = dict(found)
    arrays["forecast"] = arrays["forecast"] * np.float32(1.01)
    np.savez_compressed(folder / "staged.npz", **arrays)
    data = (folder / "staged.npz").read_bytes()
    (folder / "staged.npz").unlink()
    replace_file(folder, "golden.npz", data)


def cut_model(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-10])


def not_onnx(folder: Path) -> None:
    replace_file(folder, "model.onnx", b"not a graph")


def wait_for(true: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def assert_forecasts_of(p: Predictor, version: int, *streams: LiveStream | Predictor) -> None:
    """That these streams say what the version says for the windows they hold."""
    alone = Predictor(ARTIFACTS / "requests", version=version, device="cpu")
    for stream in streams:
        live = stream._live if isinstance(stream, Predictor) else stream
        window = live._stream.steps.last(16)
        np.testing.assert_array_equal(stream.forecast().values, alone.predict(window))
        np.testing.assert_array_equal(p.predict(window), alone.predict(window))


def test_a_newer_version_answers_with_the_streams_as_they_are(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    assert p.reload() is False
    held = p.stream("a")
    feed(p), feed(held, 30)
    before = p.forecast(), held.forecast()
    assert p.forecast() is before[0]
    publish(2, of=2)
    assert p.reload() is True
    assert (p.manifest["version"], p.device, p.reload_error) == (2, "cpu", None)
    assert "version=2" in repr(p)
    assert_forecasts_of(p, 2, p, held)
    assert p.forecast() is not before[0]
    assert p.forecast() is p.forecast(), "the new one stands"
    assert p.forecast_many(["a"])["a"] is held.forecast()
    feed(held, 3, start=30)
    assert_forecasts_of(p, 2, held)
    new = p.stream("b")
    feed(new)
    assert_forecasts_of(p, 2, new)
    assert p.reload() is False


def test_any_version_may_be_asked_for(publish: Publish) -> None:
    publish(1)
    publish(3)
    p = Predictor(publish(2, of=2), device="cpu")
    assert p.manifest["version"] == 3
    assert p.reload(2) is True
    feed(p)
    assert_forecasts_of(p, 2, p)
    assert p.reload() is True
    assert p.manifest["version"] == 3


def test_rollback_goes_back_at_once_and_forth_again(publish: Publish) -> None:
    publish(1)
    p = Predictor(publish(2, of=2), version=1, device="cpu")
    feed(p)
    with pytest.raises(ArtifactError, match="rollback: expected a version that was in service before .*1, got none"):
        p.rollback()
    p.reload()
    assert_forecasts_of(p, 2, p)
    shutil.rmtree(publish(4).parent)  # from memory
    p.rollback()
    assert p.manifest["version"] == 1
    assert_forecasts_of(p, 1, p)
    p.rollback()
    assert_forecasts_of(p, 2, p)


@pytest.mark.parametrize(
    ("damage", "changes", "said"),
    [
        (other_numbers, {}, r"golden.npz: window \d, step \d, \w+, level [\d.]+, batch 6: expected .*do not serve"),
        (cut_model, {}, "model.onnx: expected .* bytes, found"),
        (not_onnx, {}, "model.onnx: expected an ONNX file"),
        (lambda folder: (folder / "golden.npz").unlink(), {}, "golden.npz: expected a file, found none"),
        (lambda folder: (folder / "extra").touch(), {}, "extra: expected the files of the manifest alone"),
        (None, {"schema": 99}, "expected"),
        (None, {"clock": "relative"}, "manifest.json: expected clock 'epoch', as in service, got 'relative'; open it"),
        (None, {"gap_s": 60.0}, "manifest.json: expected gap_s 21600.0, as in service, got 60.0"),
    ],
)
def test_a_bad_version_is_refused_and_the_old_one_stays(
    publish: Publish, damage: Any, changes: dict[str, Any], said: str
) -> None:
    p = Predictor(publish(1), device="cpu")
    feed(p)
    model, before = p._model, p.forecast()
    publish(2, of=2, damage=damage, **changes)
    with pytest.raises(ArtifactError, match=said):
        p.reload()
    assert p._model is model
    assert p.forecast() is before, "what stood still stands"
    with pytest.raises(ArtifactError, match="rollback: expected"):
        p.rollback()
    publish(3, of=2)
    assert p.reload() is True


def test_several_differences_are_counted(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    publish(2, damage=other_numbers)
    with pytest.raises(ArtifactError, match=r"do not serve this artifact here \(and 5 more: fcast-verify .*2\)"):
        p.reload()


def test_the_device_is_the_one_in_service(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Predictor(publish(1), device="cpu")
    publish(2)
    monkeypatch.setattr(p._model.session, "device", "cuda:1")  # as if it ran on one
    with pytest.raises(DeviceError, match="device: expected .*'cuda:1'"):
        p.reload()
    assert p.manifest["version"] == 1


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
def test_a_version_that_is_none_is_refused(publish: Publish, version: Any) -> None:
    p = Predictor(publish(1), version=1, device="cpu")
    with pytest.raises(InputError, match="version: expected a whole number from 1"):
        p.reload(version)


def test_a_version_that_is_not_there_is_refused(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    with pytest.raises(ArtifactError, match="expected version 7, found 1"):
        p.reload(7)


def test_one_versions_folder_has_no_other_to_go_to(publish: Publish) -> None:
    p = Predictor(publish(1) / "1", device="cpu")
    for call in (p.reload, p.watch):
        with pytest.raises(InputError, match="reload: expected a Predictor of an artifact's folder .*with version=1"):
            call()


def test_the_host_may_change_its_working_directory(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publish(1)
    monkeypatch.chdir(root.parent)
    p = Predictor("requests", device="cpu")
    monkeypatch.chdir("/")
    assert p.reload() is False
    publish(2)
    assert p.reload() is True


@pytest.mark.parametrize("many", [False, True])
def test_a_forecast_under_way_ends_with_the_model_it_began_with(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    p = Predictor(publish(1), device="cpu")
    publish(2, of=2)
    stream = p.stream("a")
    feed(stream)
    old, name = p._model, "answers" if many else "answer"
    ask, found = getattr(old, name), []

    def slow(*arguments: Any) -> Any:
        assert p.reload() is True  # no lock is held that it would need
        found.append(stream.forecast())
        return ask(*arguments)

    monkeypatch.setattr(old, name, slow)
    given = p.forecast_many(["a"])["a"] if many else stream.forecast()
    window = stream._stream.steps.last(16)
    np.testing.assert_allclose(given.values, old.outputs(window, None)["forecast"], rtol=1e-6)
    np.testing.assert_array_equal(found[0].values, p.predict(window))
    assert stream.forecast() is found[0], "the newer model's stands"


def test_the_prior_is_that_of_the_version_in_service(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    prior = np.array(p.manifest["prior"])
    publish(2, prior=(2 * prior).tolist())
    before = p.forecast().values
    p.reload()
    np.testing.assert_allclose(p.forecast().values, 2 * before, rtol=1e-5)


def test_a_snapshot_holds_no_forecast_of_a_model_that_has_left(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    publish(2, of=2)
    feed(p), feed(p.stream("a"))
    p.forecast_many(["a"]), p.forecast()
    p.reload()
    whole, one = p.snapshot(), p.stream("a").snapshot()
    again = Predictor(publish(3).parent / "requests", version=2, device="cpu")
    again.restore(whole)
    assert_forecasts_of(again, 2, again, again.stream("a"))
    again.stream("b").restore(one)
    assert_forecasts_of(again, 2, again.stream("b"))


def test_corrections_under_drift_go_on_through_a_swap(publish: Publish) -> None:
    publish(1)
    swapped = Predictor(publish(2), version=1, device="cpu", adapt=True)
    steady = Predictor(ARTIFACTS / "requests", version=1, device="cpu", adapt=True)
    for i in range(80):
        if i in (30, 31, 60):
            swapped.reload(2) if i != 31 else swapped.rollback()
        for p in (swapped, steady):
            feed(p, 1, start=i)
        np.testing.assert_array_equal(swapped.forecast().values, steady.forecast().values)
        assert swapped.forecast().source == steady.forecast().source


def test_a_model_that_left_before_the_last_one_is_freed(publish: Publish) -> None:
    publish(1), publish(2), publish(3)
    p = Predictor(publish(4), version=1, device="cpu")
    held = [p.stream(key) for key in range(3)]
    gone: list[weakref.ref[Model]] = []
    for version in (2, 3, 4):
        for stream in held[: version - 1]:  # some hold a forecast of an older model
            feed(stream, start=20 * version)
            stream.forecast()
        gone.append(weakref.ref(p._model))
        p.reload(version)
    gc.collect()
    assert [model() is None for model in gone] == [True, True, False]


def test_threads_forecast_on_while_versions_come_and_go(publish: Publish) -> None:
    publish(1), publish(2, of=2)
    p = Predictor(publish(3), version=1, device="cpu", max_streams=8)
    feed(p)
    done, failed = threading.Event(), []
    expected = [Predictor(ARTIFACTS / "requests", version=v, device="cpu") for v in (1, 2)]

    def work(key: int) -> None:
        stream, i = p.stream(key), 0
        try:
            feed(stream)
            while not done.is_set():
                feed(stream, 1, start=20 + i)
                i += 1
                window = stream._stream.steps.last(16)
                found = (stream.forecast() if i % 2 else p.forecast_many([key])[key]).values
                assert any(np.allclose(found, e.predict(window), rtol=1e-5) for e in expected)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(key,)) for key in range(3)]
    for thread in threads:
        thread.start()
    for i in range(12):
        if i % 3 == 2:
            p.rollback()
        p.reload(i % 3 + 1)
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_watch_takes_each_newer_version(publish: Publish) -> None:
    with Predictor(publish(1), device="cpu") as p:
        feed(p)
        publish(2, of=2)
        p.watch(every_s=0.01)
        wait_for(lambda: p.manifest["version"] == 2)
        assert_forecasts_of(p, 2, p)
        publish(3)
        wait_for(lambda: p.manifest["version"] == 3)
    publish(4)
    time.sleep(0.05)
    assert p.manifest["version"] == 3, "closed"
    p.close()
    assert_forecasts_of(p, 1, p)


def test_a_watch_leaves_a_rollback_alone(publish: Publish) -> None:
    with Predictor(publish(1), device="cpu") as p:
        publish(2, of=2)
        p.watch(every_s=0.01)
        wait_for(lambda: p.manifest["version"] == 2)
        p.rollback()
        time.sleep(0.05)
        assert p.manifest["version"] == 1
        publish(3)
        wait_for(lambda: p.manifest["version"] == 3)


def test_a_bad_version_is_told_once_and_tried_again_when_its_files_change(publish: Publish) -> None:
    root = publish(1)
    with Predictor(root, device="cpu") as p, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        feed(p)
        p.watch(every_s=0.01)
        publish(2, of=2, damage=cut_model)
        wait_for(lambda: p.reload_error)
        assert "2/model.onnx: expected" in str(p.reload_error)
        time.sleep(0.05)
        (root / "2" / "model.onnx").write_bytes(b"still not all")
        time.sleep(0.05)
        assert p.manifest["version"] == 1
        assert_forecasts_of(p, 1, p)
        shutil.copy(ARTIFACTS / "requests/2/model.onnx", root / "2" / "model.onnx")  # the copy has ended
        wait_for(lambda: p.manifest["version"] == 2)
        assert p.reload_error is None
    (said,) = [str(warning.message) for warning in told]
    assert said.endswith("version 1 stays in service (said once)")


def test_a_folder_that_goes_away_is_told_once_and_comes_back(publish: Publish) -> None:
    root = publish(1)
    with Predictor(root, device="cpu") as p, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        root.rename(root.parent / "away")
        p.watch(every_s=0.005)
        wait_for(lambda: p.reload_error)
        time.sleep(0.05)
        (root.parent / "away").rename(root)
        wait_for(lambda: p.reload_error is None)
    (said,) = [str(warning.message) for warning in told]
    assert "expected an artifact's folder, found nothing there" in said


def test_a_host_that_makes_errors_of_warnings_is_spared(publish: Publish) -> None:
    with Predictor(publish(1), device="cpu") as p, warnings.catch_warnings():
        warnings.simplefilter("error")
        publish(2, damage=cut_model)
        p.watch(every_s=0.01)
        wait_for(lambda: p.reload_error)
        publish(3)
        wait_for(lambda: p.manifest["version"] == 3)


@pytest.mark.parametrize("every_s", [0, -1.0, float("nan"), float("inf"), "60", None, 1e30])
def test_seconds_between_looks_are_above_0(publish: Publish, every_s: Any) -> None:
    p = Predictor(publish(1), device="cpu")
    with pytest.raises(InputError, match="every_s: expected"):
        p.watch(every_s)


def test_a_second_watch_replaces_the_first(publish: Publish) -> None:
    before = threading.active_count()
    with Predictor(publish(1), device="cpu") as p:
        p.watch(60.0)
        p.watch(60.0)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_watch_keeps_no_predictor_alive(publish: Publish) -> None:
    p = Predictor(publish(1), device="cpu")
    p.watch(every_s=0.01)
    gone, watch = weakref.ref(p), p._watch
    assert watch is not None
    del p
    wait_for(lambda: gc.collect() is not None and gone() is None)
    wait_for(lambda: not watch._thread.is_alive())
    watch.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_forecasts_reloads_and_may_watch(publish: Publish) -> None:
    with Predictor(publish(1), device="cpu") as p:
        feed(p)
        p.forecast()
        p.watch(every_s=60.0)
        wait_for(lambda: p._watch is not None and p._watch._thread.is_alive())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                publish(2, of=2)
                feed(p, 1, start=20)
                assert_forecasts_of(p, 1, p)
                p.watch(every_s=0.01)
                wait_for(lambda: p.manifest["version"] == 2)
                assert_forecasts_of(p, 2, p)
                p.close()
                code = 0
            except BaseException as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
