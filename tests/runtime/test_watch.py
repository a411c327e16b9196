"""A watch takes newer versions by itself, tells of bad ones once, and the host never feels it."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import InputError, Predictor
from tests.runtime.conftest import ARTIFACTS
from tests.runtime.versions import Publish, assert_forecasts_of, cut_model, feed

ROOT = Path(__file__).parents[2]


def wait_for(true: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


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


def test_a_process_ends_with_its_watch_at_work(tmp_path: Path) -> None:
    code = """
    import sys
    from pathlib import Path
    from runtime import Predictor
    from tests.runtime.versions import publish_under
    predictor = Predictor(publish_under(Path(sys.argv[1]), 1), device="cpu")
    predictor.watch(every_s=0.0001)
    for version in range(2, 6):
        publish_under(Path(sys.argv[1]), version)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
