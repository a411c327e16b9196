"""The cache of parsed traces: the same trace, sooner; never a stale one, and never a reason to fail."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.training.test_trace_read import AZURE, BURSTGPT, write
from training import trace_cache
from training.cli_trace import main
from training.errors import ConfigError, TraceError
from training.trace_cache import cache_folder, read_cached

FAILED = BURSTGPT + "200,GPT-4,10,0,10,Conversation log\n"


@pytest.fixture(autouse=True)
def _small_files_at_rest(monkeypatch):
    monkeypatch.setattr(trace_cache, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(trace_cache, "_AT_REST_S", -1e9)


def read(path, folder, **options):
    """The trace, what was said, and the bytes of the file that were read."""
    said, seen = [], []
    trace = read_cached([path], folder=folder, say=said.append, on_bytes=seen.append, **options)
    return trace, said, sum(seen)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (BURSTGPT, {}),
        (FAILED, {"clean": True}),
        (AZURE, {"format": "azure"}),
        ("ts,requests\n0,1\n10,2\n30,0\n", {}),
        ("when,n,i,o\n0,1,5,6\n10,2,7,8\n", {"columns": {"time": "when", "requests": "n"}}),
    ],
    ids=["plain", "cleaned", "dates", "counts", "columns"],
)
def test_the_second_read_gives_the_same_trace_without_reading_the_file(tmp_path, text, options):
    path = write(tmp_path / "a.csv", text)
    first, said, read_bytes = read(path, tmp_path / "cache", **options)
    assert read_bytes == path.stat().st_size
    assert said[0].startswith(f"Kept for the next start in {tmp_path / 'cache'}")
    second, said, read_bytes = read(path, tmp_path / "cache", **options)
    assert read_bytes == 0
    assert said[0].startswith(f"Read from the cache {tmp_path / 'cache'}")
    assert second.fingerprint() == first.fingerprint()
    for name in ("bin_s", "clock", "sources", "notes"):
        assert getattr(second, name) == getattr(first, name)


def test_other_options_are_another_entry(tmp_path):
    path = write(tmp_path / "a.csv", FAILED)
    assert len(read(path, tmp_path / "cache")[0]) == 4
    assert len(read(path, tmp_path / "cache", clean=True)[0]) == 3
    assert len(read(path, tmp_path / "cache")[0]) == 4


def append(path):
    path.write_text(path.read_text() + "500,GPT-4,1,2,3,Conversation log\n")


def edit_and_set_the_time_back(path):
    facts = path.stat()
    with open(path, "r+b") as file:
        file.seek(file.read().index(b"276"))
        file.write(b"277")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def replace_by_another_with_the_same_time(path):
    facts = path.stat()
    other = write(path.with_name("other"), path.read_text().replace("276", "277"))
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.replace(other, path)


def compress(path):
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    "change", [append, edit_and_set_the_time_back, replace_by_another_with_the_same_time, compress]
)
def test_a_file_that_changed_is_read_again(tmp_path, change):
    path = write(tmp_path / "a.csv", BURSTGPT)
    read(path, tmp_path / "cache")
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    change(path)
    trace, _, read_bytes = read(path, tmp_path / "cache")
    assert read_bytes == path.stat().st_size
    np.testing.assert_array_equal(trace.time_s, read_cached([path], folder=None).time_s)
    assert read(path, tmp_path / "cache")[2] == 0


def test_a_file_that_changed_a_moment_ago_is_not_trusted_yet(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(trace_cache, "SMALLEST_BYTES", 0)
    path = write(tmp_path / "a.csv", BURSTGPT)
    assert read(path, tmp_path / "cache")[1] == []
    assert not (tmp_path / "cache").exists()


def test_a_small_file_is_not_worth_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_cache, "SMALLEST_BYTES", 1 << 20)
    read(write(tmp_path / "a.csv", BURSTGPT), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_entry_of_other_reading_code_is_not_used(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", BURSTGPT)
    read(path, tmp_path / "cache")
    monkeypatch.setattr(trace_cache, "_reader", lambda: "another version")
    assert read(path, tmp_path / "cache")[2] > 0


def flip(data: bytes, needle: bytes) -> bytes:
    at = data.index(needle)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-10],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\x80\x04" + b"not a pickle that anybody runs",
        lambda data: flip(data, np.array([472], np.int32).tobytes()),
        lambda data: flip(data, np.array([118.0]).tobytes()),
        lambda data: flip(data, np.array([276], np.int32).tobytes()),
        lambda data: flip(data, b'relative"'),
    ],
    ids=[
        "cut",
        "half",
        "empty",
        "pickle",
        "a bit of a count",
        "a bit of the last count",
        "a bit of a time",
        "a bit of the facts",
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    path = write(tmp_path / "a.csv", BURSTGPT)
    first = read(path, tmp_path / "cache")[0]
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    trace, _, read_bytes = read(path, tmp_path / "cache")
    assert read_bytes > 0
    assert trace.fingerprint() == first.fingerprint()
    assert read(path, tmp_path / "cache")[2] == 0


def test_a_folder_that_can_not_be_written_is_said_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    trace, said, _ = read(write(tmp_path / "a.csv", BURSTGPT), tmp_path / "file" / "cache")
    assert len(trace) == 3
    assert "expected to keep the parsed trace, got 'Not a directory'; set FCAST_CACHE to a folder" in said[0]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    trace, said, _ = read(write(tmp_path / "a.csv", BURSTGPT), tmp_path / "cache")
    assert len(trace) == 3
    assert "got 'No space left on device'" in said[0]
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_entries_used_longest_ago_make_room_and_other_files_stay(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    paths = [write(tmp_path / f"{name}.csv", BURSTGPT) for name in "abc"]
    read(paths[0], cache)
    (entry,) = cache.iterdir()
    (cache / "mine.npy").write_text("not of the cache")
    monkeypatch.setattr(trace_cache, "LARGEST_BYTES", 2 * entry.stat().st_size + 200)
    for path in paths[1:]:
        time.sleep(0.02)
        read(paths[0], cache)
        time.sleep(0.02)
        read(path, cache)
    assert [read(path, None)[2] > 0 for path in paths] == [True] * 3
    assert [read(path, cache)[2] == 0 for path in (paths[0], paths[2])] == [True, True]
    assert read(paths[1], cache)[2] > 0
    assert (cache / "mine.npy").exists()


def test_errors_are_those_of_reading_and_keep_nothing(tmp_path):
    bad = write(tmp_path / "a.csv", BURSTGPT.replace("1087", "many"))
    for _ in range(2):
        with pytest.raises(TraceError, match=r"a\.csv:3: expected a number in 'Request tokens', got 'many'"):
            read(bad, tmp_path / "cache")
    with pytest.raises(ConfigError, match="did you mean 'burstgpt'"):
        read(bad, tmp_path / "cache", format="burst")
    assert not (tmp_path / "cache").exists()


def test_the_folder_is_the_users_or_the_one_asked_for_or_none(tmp_path, monkeypatch):
    monkeypatch.delenv("FCAST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fcast" / "traces"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fcast" / "traces"
    monkeypatch.setenv("FCAST_CACHE", str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"
    monkeypatch.setenv("FCAST_CACHE", "off")
    assert cache_folder() is None


def test_commands_use_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FCAST_CACHE", str(tmp_path / "cache"))
    path = str(write(tmp_path / "a.csv", BURSTGPT))
    first, second = (CliRunner().invoke(main, ["describe", path, "--json"]) for _ in range(2))
    assert "Kept for the next start" in first.stderr
    assert "Read from the cache" in second.stderr
    assert first.stdout == second.stdout


def test_joining_files_needs_little_memory_beside_the_rows():
    """A copy of the whole would add as much again; one column of one file is an eighth of it."""
    code = """
import numpy as np
from benchmarks.read_trace import _Peak, _resident_bytes
from training.readers import _joined
from training.trace_columns import Grown
from training.trace_file import Table

def column(dtype, rows=2_000_000):
    grown = Grown(dtype, rows + 500_000)
    grown.extend(np.ones(rows, dtype))
    return grown.finish()

tables = [
    Table(time_s=column(np.float64), request_tokens=column(np.int32), response_tokens=column(np.int32),
          requests=None, wall_clock=False)
    for _ in range(4)
]
before = _resident_bytes()
with _Peak() as peak:
    whole = _joined(tables)
assert len(whole.time_s) == 8_000_000
print((peak.bytes - before) / (8_000_000 * 16))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.25
