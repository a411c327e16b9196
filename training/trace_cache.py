"""A cache of parsed traces: the next start reads arrays instead of text.

One file for each set of trace files and options, in the folder of `cache_folder`: arrays in `.npy` format one after the
other, of which the first holds the facts as JSON. It is used only while nothing about the trace files has changed:
path, size, inode, times of the last change of content and of the inode, and a sample of the content. The time of the
inode's change can't be set back, as that of the content can, so an edit that keeps the size and restores the time is
seen too. Files that changed in the last seconds are not trusted yet: a second edit might carry the same times. Entries
of other versions of the reading code are not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from training.readers import expand, read_trace
from training.trace import Trace
from training.trace_file import COLUMNS

VARIABLE = "FCAST_CACHE"
"""Environment variable: another folder, or `off`."""
SMALLEST_BYTES = 8 << 20
"""Less than this is read anew: it takes a fraction of a second."""
LARGEST_BYTES = 2 << 30
"""The entries used longest ago go when all together take more; the newest stays."""

_AT_REST_S = 2.0
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_NAME = "fcast-trace-"


def cache_folder() -> Path | None:
    """Where parsed traces are kept: `$FCAST_CACHE`, else the user's caches; None for `off`."""
    asked = os.environ.get(VARIABLE, "")
    if asked.lower() == "off":
        return None
    if asked:
        return Path(asked).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fcast" / "traces"


def read_cached(
    paths: Sequence[str | Path],
    *,
    folder: Path | None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    clean: bool = False,
    on_bytes: Callable[[int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Trace:
    """Like `training.readers.read_trace`, from the cache where it holds these files as they are.

    Nothing about the cache makes a run fail: what can't be read is made again, what can't be written is left.

    Args:
        paths, format, columns, clean, on_bytes: see `training.readers.read_trace`.
        folder: of the cache; None for none.
        say: called with a line for the user.
    """

    def read() -> Trace:
        return read_trace(paths, format=format, columns=columns, clean=clean, on_bytes=on_bytes)

    files = expand(paths)
    asked = {"format": format, "columns": dict(columns or {}), "clean": clean}
    found = _states(files)
    if folder is None or found is None or sum(state["size"] for state in found) < SMALLEST_BYTES:
        return read()
    facts = {"reader": _reader(), "files": found, **asked}
    key = json.dumps({**asked, "paths": [state["path"] for state in found]}, sort_keys=True)
    entry = folder / f"{_NAME}{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if (trace := _load(entry, facts)) is not None:
        say(f"Read from the cache {entry}; {VARIABLE}=off reads the files")
        return trace
    started_s = time.time()
    trace = read()
    if _states(files) != found or any(state["changed_ns"] / 1e9 > started_s - _AT_REST_S for state in found):
        return trace
    try:
        bytes_kept = _store(entry, trace, facts)
    except OSError as error:
        say(f"{entry}: expected to keep the parsed trace, got '{error.strerror or error}'; set {VARIABLE} to a folder")
    else:
        say(f"Kept for the next start in {entry}, {bytes_kept / 1e6:.0f} MB; {VARIABLE}=off keeps nothing")
    return trace


def _states(files: Sequence[Path]) -> list[dict[str, Any]] | None:
    """What tells whether files are as they were; None where one can't be read."""
    states = []
    try:
        for path in files:
            facts, digest = path.stat(), hashlib.sha256()
            with open(path, "rb") as file:
                for index in range(_SAMPLES):
                    file.seek(max(0, facts.st_size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
            states.append(
                {
                    "path": str(path.resolve()),
                    "size": facts.st_size,
                    "modified_ns": facts.st_mtime_ns,
                    "changed_ns": facts.st_ctime_ns,
                    "inode": facts.st_ino,
                    "sample": digest.hexdigest(),
                }
            )
    except OSError:
        return None
    return states


@cache
def _reader() -> str:
    """Identifies the code that turns files into a trace."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(
        [*here.glob("trace*.py"), *(here / f"{name}.py" for name in ("readers", "formats", "cleaning"))]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(entry: Path, facts: dict[str, Any]) -> Trace | None:
    if not entry.exists():
        return None
    try:
        with open(entry, "rb") as file:
            meta: dict[str, Any] = json.loads(np.load(file, allow_pickle=False).tobytes())
            if meta.pop("facts") != facts:
                return None
            sums = meta.pop("sums")
            columns: dict[str, np.ndarray] = {name: np.load(file, allow_pickle=False) for name in sums}
        if sums != {name: _checksum(column) for name, column in columns.items()}:
            return None
        meta |= {name: tuple(meta[name]) for name in ("sources", "notes")}
        trace = Trace(**{**dict.fromkeys(COLUMNS), **columns, **meta})
        os.utime(entry)  # used now
    except Exception:  # a damaged file may fail in any way; it is made again
        return None
    return trace


def _checksum(column: np.ndarray) -> int:
    """The sum of a column's bytes in words of eight: sees any bit that flipped, at the speed of memory."""
    words = np.frombuffer(column, np.uint64, column.nbytes // 8)
    rest = column.view(np.uint8)[words.nbytes :]
    return (int(words.sum()) + int.from_bytes(rest.tobytes(), "little")) % 2**64


def _store(entry: Path, trace: Trace, facts: dict[str, Any]) -> int:
    """Write an entry, whole or not at all; gives its size in bytes.

    Raises:
        OSError: it can't be written, or the disk has little room left.
    """
    columns = {name: column for name in COLUMNS if (column := getattr(trace, name)) is not None}
    meta = {"bin_s": trace.bin_s, "clock": trace.clock, "sources": trace.sources, "notes": trace.notes, "facts": facts}
    meta["sums"] = {name: _checksum(column) for name, column in columns.items()}
    folder = entry.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if 4 * sum(column.nbytes for column in columns.values()) > shutil.disk_usage(folder).free:
        raise OSError("little room on the disk")
    aside = folder / f".{entry.name}.{os.getpid()}.part"
    try:
        with open(aside, "wb") as file:
            for array in (np.frombuffer(json.dumps(meta).encode(), np.uint8), *columns.values()):
                np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(aside, entry)
    finally:
        aside.unlink(missing_ok=True)
    _make_room(folder, entry)
    return size


def _make_room(folder: Path, newest: Path) -> None:
    """Remove the entries used longest ago, and what killed writers left."""
    old = [path for pattern in (f"{_NAME}*.npy", f".{_NAME}*.part") for path in folder.glob(pattern) if path != newest]
    room = LARGEST_BYTES - newest.stat().st_size
    for path in sorted(old, key=lambda path: path.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
