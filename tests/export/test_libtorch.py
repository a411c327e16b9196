"""model.pt in plain libtorch: examples/libtorch, compiled against the torch that is installed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.artifact import export_checkpoint
from tests.export.conftest import train

SOURCE = Path(__file__).parents[2] / "examples/libtorch"
COMPILER = os.environ.get("CXX", "g++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a C++ compiler, {COMPILER} is not there"),
]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program; once, since torch's headers take a minute."""
    built = tmp_path_factory.mktemp("libtorch") / "verify"
    done = subprocess.run(
        [SOURCE / "build.sh", built],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no warning of our own code
    return built


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, requests_run: Path, load_run: Path) -> dict[str, Path]:
    """A version folder of each signature that a model.pt can have."""
    out = tmp_path_factory.mktemp("artifacts")
    plain = train(tmp_path_factory.mktemp("runs") / "plain", series="load", model="gru", calendar="none")
    runs = {"forecast": requests_run, "demand": plain, "demand at a time": load_run}
    return {
        what: export_checkpoint(run, formats=("torchscript",), out=out, name=what.replace(" ", "-")).path
        for what, run in runs.items()
    }


@pytest.fixture
def copied(exported: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda what: Path(shutil.copytree(exported[what], tmp_path / "version"))


def run(program: Path, folder: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, folder], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("what", "channels"), [("forecast", 3), ("demand", 9), ("demand at a time", 9)], ids=lambda value: str(value)
)
def test_golden_windows_agree_in_libtorch(program: Path, exported: dict[str, Path], what: str, channels: int) -> None:
    done = run(program, exported[what])
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if line.endswith("  ok")]
    assert len(rows) == 2 * channels  # at once, and one by one
    assert "DIFFERS" not in done.stdout
    assert ("peak of response_tokens" in done.stdout) == (what != "forecast")


@pytest.mark.parametrize("output", ["forecast", "demand"])
@pytest.mark.parametrize("change", [1e-3, np.nan, np.inf], ids=str)
def test_a_changed_golden_number_is_found(
    program: Path, copied: Callable[[str], Path], output: str, change: float
) -> None:
    folder = copied("demand at a time")
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays[output][3, 1, 2, 4] *= 1 + change
    np.savez(folder / "golden.npz", **arrays)
    done = run(program, folder)
    assert done.returncode == 1
    assert f"Error: {folder}: expected the trained model's forecasts, got others" in done.stderr
    changed = {line.partition("  ")[0] for line in done.stdout.splitlines() if line.endswith("DIFFERS")}
    assert changed == {"response_tokens" if output == "forecast" else "sum of response_tokens"}


def test_a_golden_file_that_is_cut_or_damaged_is_refused_or_differs_without_a_crash(
    program: Path, copied: Callable[[str], Path]
) -> None:
    folder = copied("demand at a time")
    whole = (folder / "golden.npz").read_bytes()
    rng = random.Random(0)
    damaged = [whole[: len(whole) * part // 8] for part in range(8)]
    directory = whole.index(b"PK\x01\x02")
    for at in [rng.randrange(256) for _ in range(4)] + [rng.randrange(directory, len(whole)) for _ in range(12)]:
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
    for i, content in enumerate(damaged):
        (folder / "golden.npz").write_bytes(content)
        done = run(program, folder)
        assert done.returncode in ((1,) if i < 8 else (0, 1)), (i, done)  # some bits of a zip mean nothing
        assert done.returncode == 0 or done.stderr.startswith("Error: ")


@pytest.mark.parametrize("file", ["manifest.json", "parity.json", "golden.npz", "model.pt"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"a": [' * 1000, b'{"channels": [], "inputs": []}', b"PK\x05\x06"],
    ids=["none", "empty", "json", "channels", "zip"],
)
def test_a_missing_or_foreign_file_is_one_line(
    program: Path, copied: Callable[[str], Path], file: str, content: bytes | None
) -> None:
    folder = copied("forecast")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    done = run(program, folder)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_usage_is_exit_code_two(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")
