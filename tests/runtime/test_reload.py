"""Another version comes into service between two forecasts, proven first; a bad one changes nothing."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import ArtifactError, DeviceError, InputError, Predictor
from runtime.model import Model
from tests.runtime.conftest import ARTIFACTS, replace_file
from tests.runtime.versions import Publish, assert_forecasts_of, cut_model, feed


def other_numbers(folder: Path) -> None:
    with np.load(folder / "golden.npz") as found:
        arrays = dict(found)
    arrays["forecast"] = arrays["forecast"] * np.float32(1.01)
    np.savez_compressed(folder / "staged.npz", **arrays)
    data = (folder / "staged.npz").read_bytes()
    (folder / "staged.npz").unlink()
    replace_file(folder, "golden.npz", data)


def not_onnx(folder: Path) -> None:
    replace_file(folder, "model.onnx", b"not a graph")


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
    p = Predictor(publish(3), version=1, device="cpu", max_streams=8, breaker=False)
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
