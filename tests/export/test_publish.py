"""Publishing: whole or not at all, whatever happens to the process, the disk or a competitor."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import ExportError
from export.publish import check_name, publish, staging, write_file
from tests.export.publishing import CONFIG, publish_one, visible
from training.errors import ConfigError


def version_files(version: int) -> dict[str, str]:
    return {f"gru/{version}/model.onnx": "weights", f"gru/{version}/manifest.json": str(version)}


def test_versions_count_up_and_the_first_brings_the_configuration(tmp_path: Path) -> None:
    assert publish_one(tmp_path) == (tmp_path / "gru/1", 1)
    assert publish_one(tmp_path) == (tmp_path / "gru/2", 2)
    assert visible(tmp_path) == {"gru/config.pbtxt": CONFIG, **version_files(1), **version_files(2)}
    assert not list(tmp_path.glob(".staging*"))


def test_the_number_of_a_deleted_version_is_not_used_again(tmp_path: Path) -> None:
    publish_one(tmp_path)
    folder, _ = publish_one(tmp_path)
    folder.rename(tmp_path / "gru/old")
    assert publish_one(tmp_path)[1] == 3


def test_versions_put_there_by_hand_are_not_overwritten(tmp_path: Path) -> None:
    publish_one(tmp_path)
    (tmp_path / "gru/7").mkdir()
    assert publish_one(tmp_path)[1] == 8


def test_versions_are_numbers_and_later_ones_do_not_touch_them(tmp_path: Path) -> None:
    def state(version: int) -> dict[str, tuple[int, int, bytes]]:
        files = sorted((tmp_path / f"gru/{version}").iterdir())
        return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    publish_one(tmp_path)
    first, config = state(1), (tmp_path / "gru/config.pbtxt").stat()
    for _ in range(10):
        publish_one(tmp_path)
    assert state(1) == first
    assert (tmp_path / "gru/config.pbtxt").stat().st_mtime_ns == config.st_mtime_ns
    folders = {path.name for path in (tmp_path / "gru").iterdir() if path.is_dir()}
    assert folders == {str(version) for version in range(1, 12)}


def test_a_configuration_tuned_by_hand_stays_and_is_what_the_next_version_is_sealed_with(tmp_path: Path) -> None:
    publish_one(tmp_path)
    tuned = CONFIG + "instance_group [ { kind: KIND_CPU } ]\n"
    (tmp_path / "gru/config.pbtxt").write_text(tuned)
    seen = []
    with staging(tmp_path) as stage:
        write_file(stage / "version/model.onnx", b"weights")
        publish(
            stage / "version",
            out=tmp_path,
            name="gru",
            config=CONFIG,
            seal=lambda folder, version, beside: seen.append((version, beside)),
        )
    assert seen == [(2, tuned.encode())]
    assert (tmp_path / "gru/config.pbtxt").read_text() == tuned


def test_another_contract_under_the_same_name_is_refused(tmp_path: Path) -> None:
    publish_one(tmp_path)
    with pytest.raises(ExportError, match=r"the contract of its other versions, '.* 8, 3 .*', got '.* 9, 3 .*another"):
        publish_one(tmp_path, config=CONFIG.replace("8", "9"))
    assert visible(tmp_path) == {"gru/config.pbtxt": CONFIG, **version_files(1)}


def test_a_folder_that_is_no_artifact_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gru").mkdir()
    (tmp_path / "gru/thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match=r"expected an artifact with a config\.pbtxt.*choose another --name"):
        publish_one(tmp_path)
    assert visible(tmp_path) == {"gru/thesis.tex": "mine"}


@pytest.mark.parametrize("name", ["", ".", "..", "../gru", "a/b", "-x", ".hidden", "a b", "a\n", "ä", "a" * 101])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name: expected letters"):
        check_name(name)


@pytest.mark.parametrize("name", ["gru", "chat-load_60s.v2", "7"])
def test_plain_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("earlier", [0, 1], ids=["first version", "second version"])
@pytest.mark.parametrize("step", ["fsync", "rename", "mkdir"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, earlier: int
) -> None:
    for _ in range(earlier):
        publish_one(tmp_path)
    before = visible(tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(ExportError, match=r"expected a writable folder with free space, got No space left.*--out"):
        publish_one(tmp_path)
    monkeypatch.undo()
    assert visible(tmp_path) == before
    assert not list(tmp_path.glob(".staging*"))


@pytest.mark.parametrize("earlier", [0, 1], ids=["first version", "second version"])
def test_a_failure_after_the_rename_is_a_warning_since_the_version_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    for _ in range(earlier):
        publish_one(tmp_path)
    fsync, version = os.fsync, earlier + 1

    def failing(descriptor: int) -> None:
        if (tmp_path / f"gru/{version}").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.warns(
        RuntimeWarning, match=rf"gru/{version}: published, but the disk has not confirmed it \(Input/outp"
    ):
        assert publish_one(tmp_path) == (tmp_path / f"gru/{version}", version)
    assert visible(tmp_path).items() >= version_files(version).items()
    assert {path.name for path in (tmp_path / "gru").glob(".*")} == {".highest_version"}


def test_a_failure_removes_the_output_folders_it_made_and_no_others(tmp_path: Path) -> None:
    def failing(out: Path) -> None:
        with staging(out) as stage:
            write_file(stage / "version/model.onnx", b"half")
            raise ExportError("the disk is full")

    (tmp_path / "mine").mkdir()
    for out in ("mine", "mine/a/b"):
        with pytest.raises(ExportError, match="^the disk is full$"):
            failing(tmp_path / out)
        assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize("out", ["file/out", "file"])
def test_an_output_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match=r"file.*expected a writable folder.*choose another --out"):
        publish_one(tmp_path / out)


def test_a_read_only_output_folder_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(ExportError, match="expected a writable folder with free space, got Read-only file system"):
        publish_one(tmp_path)


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from tests.export.publishing import publish_one
calls, last = itertools.count(1), int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        if next(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("fsync", "rename", "replace", "mkdir"):
    setattr(os, name, dying(getattr(os, name)))
publish_one(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("earlier", [0, 1], ids=["first version", "second version"])
def test_a_process_killed_at_any_moment_leaves_only_whole_versions(tmp_path: Path, earlier: int) -> None:
    allowed = [
        {},
        {"gru/config.pbtxt": CONFIG, **version_files(1)},
        {"gru/config.pbtxt": CONFIG, **version_files(1), **version_files(2)},
    ]
    finished, last = False, 0
    while not finished:
        last += 1
        out = tmp_path / str(last)
        for _ in range(earlier):
            publish_one(out)
        done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(last)], check=False)
        finished = done.returncode == 0
        assert visible(out) in allowed[earlier : earlier + 2]
        version = publish_one(out)[1]  # a later export is not disturbed, and cleans up
        assert visible(out)[f"gru/{version}/manifest.json"] == str(version)
        assert not list(out.glob(".staging*"))
    assert last > 8


def test_a_number_that_was_visible_is_not_used_again_whatever_was_killed_and_deleted(tmp_path: Path) -> None:
    finished, last, appeared = False, 0, 0
    while not finished:
        last += 1
        out = tmp_path / str(last)
        publish_one(out)
        finished = subprocess.run([sys.executable, "-c", KILLED, str(out), str(last)], check=False).returncode == 0
        if (out / "gru/2").exists():
            appeared += 1
            (out / "gru/2").rename(out / "gru/deleted")
            assert publish_one(out)[1] == 3
        hidden = {path.name for path in (out / "gru").glob(".*")}
        assert hidden == {".highest_version"}
    assert appeared >= 2  # killed after the rename, and not killed


def test_concurrent_publishers_each_get_a_version_of_their_own(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from tests.export.publishing import publish_one as p\n"
    script += "for _ in range(10): p(Path(sys.argv[1]))"
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    expected = {"gru/config.pbtxt": CONFIG}
    for version in range(1, 31):
        expected |= version_files(version)
    assert visible(tmp_path) == expected
    assert not list(tmp_path.glob(".staging*"))


def test_the_staging_folder_of_a_live_export_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".staging-1-dead").mkdir()
    with staging(tmp_path) as live:
        assert not (tmp_path / ".staging-1-dead").exists()
        publish_one(tmp_path)
        assert live.exists()
    assert not live.exists()


def test_an_interrupted_export_removes_its_staging_folder(tmp_path: Path) -> None:
    def interrupted() -> None:
        with staging(tmp_path) as stage:
            write_file(stage / "version/model.onnx", b"half")
            raise KeyboardInterrupt("Ctrl-C")

    with pytest.raises(KeyboardInterrupt, match="^Ctrl-C$"):
        interrupted()
    assert list(tmp_path.iterdir()) == []
