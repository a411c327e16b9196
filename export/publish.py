"""Publishing: an artifact appears whole or not at all, under a version that is never used twice.

Everything is written into `<out>/.staging-*`, on the destination's own file system, synced to disk and
moved by one `rename`. Two publishers never wait for each other: the one whose rename finds the number taken
takes the next. A shared lock on `<out>` is held while a staging folder is in use, so that leftovers of killed
processes can be told from live ones: whoever gets the lock exclusively, at its start, knows that nobody is
exporting, and sweeps.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

from export.errors import ExportError, StorageError
from export.triton import contract
from training.errors import ConfigError

CONFIG = "config.pbtxt"
_HIGHEST = ".highest_version"
_STAGING = ".staging-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def check_name(name: str) -> str:
    """Return a name that is safe as a folder of a model repository.

    Raises:
        ConfigError: it has other characters than letters, digits, `_`, `.` and `-`, or a wrong first one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name: expected letters, digits, '_', '.' and '-', a letter or digit first, got '{name}'; "
            "choose such a name"
        )
    return name


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A private folder inside `out`, removed at the end whatever happens; after a failure `out` too, if it was made.

    Raises:
        ExportError: `out` cannot be written.
    """
    made = [folder for folder in (out, *out.parents) if not os.path.lexists(folder)]
    try:
        with _staging(out) as stage:
            yield stage
    except BaseException:
        for folder in made:
            with suppress(OSError):  # somebody else is using it by now
                folder.rmdir()
        raise


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sweep(out, lock)
        stage = out / f"{_STAGING}{os.getpid()}-{secrets.token_hex(4)}"
        with _writing(out):
            stage.mkdir()
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        os.close(lock)


def write_file(path: Path, content: bytes) -> None:
    """Write a file and sync it to the disk, making its folder.

    Raises:
        ExportError: the disk is full, or the folder cannot be written.
    """
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def publish(
    staged: Path, *, out: Path, name: str, config: str, seal: Callable[[Path, int, bytes], None]
) -> tuple[Path, int]:
    """Move a staged version into the repository.

    Args:
        staged: the folder of the version's files, inside a `staging` of `out`.
        out: the repository.
        name: the artifact's name.
        config: text of config.pbtxt for a name that is not there yet. One that is keeps the file of its first version,
            whose hash its versions hold, as long as the contract in it is the same.
        seal: called with the folder, the version it is about to take and the content of config.pbtxt that it will stand
            beside; writes what depends on them.

    Returns:
        The published folder and its version. What fails once it is there gives a RuntimeWarning.

    Raises:
        ExportError: the name holds something else or another contract, or the disk is full or not writable. Nothing was
            published.
    """
    target = out / name
    while True:
        fresh = not (target.is_dir() and any(target.iterdir()))
        beside = config.encode() if fresh else _same_contract(target, config)
        version = 1 if fresh else _highest_version(target) + 1
        seal(staged, version, beside)
        try:
            with _writing(out):
                if fresh:
                    _move_with_config(staged, target, config)
                else:
                    _sync(staged)
                    _record_highest(target, version, aside=staged.with_name("highest"))
                    os.rename(staged, target / str(version))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            continue
        _settle(target, version, parent=target.parent if fresh else target)
        return target / str(version), version


def _move_with_config(staged: Path, target: Path, config: str) -> None:
    """The first version of a name: the folder and its config.pbtxt appear together."""
    whole = staged.with_name("whole")
    write_file(whole / CONFIG, config.encode())
    write_file(whole / _HIGHEST, b"1\n")
    os.rename(staged, whole / "1")
    try:
        _sync(whole / "1")
        _sync(whole)
        os.rename(whole, target)
    except OSError:
        os.rename(whole / "1", staged)
        raise


def _settle(target: Path, version: int, *, parent: Path) -> None:
    """After the rename: the version is live, so that nothing here may fail the export."""
    try:
        _sync(parent)
    except OSError as error:
        warnings.warn(
            f"{target / str(version)}: published, but the disk has not confirmed it ({error.strerror or error}); "
            "after a loss of power check that it is still there",
            RuntimeWarning,
            stacklevel=3,
        )


def _same_contract(target: Path, config: str) -> bytes:
    """The content of the config.pbtxt that is there, when it has the contract of `config`."""
    try:
        existing = (target / CONFIG).read_bytes()
    except OSError as error:
        raise ExportError(
            f"{target}: expected an artifact with a {CONFIG}, got {error.strerror}; choose another --name"
        ) from error
    pairs = zip_longest(contract(existing.decode(errors="replace")), contract(config), fillvalue="")
    for old, new in pairs:
        if old != new:
            raise ExportError(
                f"{target}: expected the contract of its other versions, '{old}', got '{new}'; choose another --name"
            )
    return existing


def _highest_version(target: Path) -> int:
    """The highest version ever published: a deleted one is not handed out again."""
    found = [int(child.name) for child in target.iterdir() if child.name.isascii() and child.name.isdigit()]
    with suppress(OSError, ValueError):
        found.append(int((target / _HIGHEST).read_text(encoding="ascii")))
    return max(found, default=0)


def _record_highest(target: Path, version: int, *, aside: Path) -> None:
    """Before the rename: of two bad ends, a number that is skipped is better than one that is used twice."""
    try:
        write_file(aside, f"{max(version, _highest_version(target))}\n".encode())
        os.replace(aside, target / _HIGHEST)
    except (OSError, ExportError):  # at worst the number of a version that is deleted by hand comes back
        pass


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(out: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody is exporting, or the file system has no locks: sweep another time
        pass
    else:
        for leftover in out.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_SH)


@contextmanager
def _writing(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _TAKEN and where.is_dir():
            raise
        raise StorageError(
            f"{where}: expected a writable folder with free space, got {error.strerror or error}; "
            "free some space, correct its permissions or choose another --out"
        ) from error
