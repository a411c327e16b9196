"""install.sh, run by a real shell on bundles of tiny wheels."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.offline_path import NO_NETWORK, can_leave_the_network, walk
from export.cli_bundle import main
from tests.export.bundling import make_bundle, make_wheel, wheel_of_pip
from tests.export.test_bundle import needs_uv

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose parts are all there."""
    folder = tmp_path_factory.mktemp("whole") / "b"
    return make_bundle(folder, [make_wheel(folder.with_name("index"), "one"), wheel_of_pip()]).path


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "a bundle"))


def install(bundle: Path, *arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(bundle / "install.sh"), *map(str, arguments)]
    if can_leave_the_network():
        command = [*NO_NETWORK, *command]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHON": python,
        "HOME": str(bundle),
        "PIP_INDEX_URL": "https://no.example",
    }
    return subprocess.run(command, cwd=bundle.parent, env=environment, capture_output=True, text=True, check=False)


def reseal(bundle: Path) -> None:
    """As if the bundle had been built this way."""
    names = [line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    lines = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def change_fact(bundle: Path, key: str, value: object) -> None:
    facts = (bundle / "bundle.env").read_text().splitlines()
    lines = [f"{key}={value}" if line.startswith(f"{key}=") else line for line in facts]
    assert lines != facts
    (bundle / "bundle.env").write_text("\n".join(lines) + "\n")
    reseal(bundle)


def test_a_bundle_installs_and_installs_again(bundle: Path, tmp_path: Path) -> None:
    first = install(bundle)
    assert (first.returncode, first.stderr) == (0, "")
    assert "Installed fcast 0.1 for runtime" in first.stdout
    assert f"Needs 0.0 GB in {tmp_path}/fcast-env" in first.stdout
    python = tmp_path / "fcast-env/bin/python"
    subprocess.run([python, "-I", "-c", "import one, fcast"], check=True)
    again = install(bundle)
    assert (again.returncode, "Already installed" in again.stdout) == (0, True)
    # Killed on the way: what is there is made anew.
    (tmp_path / "fcast-env/.fcast-bundle").write_text("unfinished\n")
    next((tmp_path / "fcast-env").rglob("one.py")).unlink()
    assert install(bundle, tmp_path / "fcast-env").returncode == 0
    subprocess.run([python, "-I", "-c", "import one"], check=True)


def test_what_was_spoilt_on_the_way_is_named_and_nothing_is_installed(bundle: Path, tmp_path: Path) -> None:
    flipped, gone = sorted((bundle / "wheelhouse").glob("*-1.0-*"))[0], next((bundle / "wheelhouse").glob("pip*"))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    gone.unlink()
    done = install(bundle)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"install.sh: wheelhouse/{flipped.name}: expected the sha256 in SHA256SUMS, found another: damaged or altered",
        f"install.sh: wheelhouse/{gone.name}: expected this file in the bundle, found none",
        "install.sh: nothing was installed; copy these files again from the machine that built the bundle",
    ]
    assert not (tmp_path / "fcast-env").exists()


def test_requirements_that_differ_from_the_wheels_are_refused_by_pip_too(bundle: Path) -> None:
    path = bundle / "requirements.txt"
    path.write_text(path.read_text().replace("sha256:", "sha256:0")[:-2].replace("sha256:0", "sha256:", 1) + "0\n")
    reseal(bundle)
    done = install(bundle)
    assert done.returncode == 1
    assert "nothing is ready: run sh install.sh again once it is mended" in done.stderr


def test_a_bundle_without_checksums_is_not_finished(bundle: Path) -> None:
    (bundle / "SHA256SUMS").unlink()
    done = install(bundle)
    assert done.returncode == 1
    assert "SHA256SUMS: expected it in " in done.stderr
    assert "the bundle is not finished: run fcast-bundle again" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "PYTHON_VERSION",
            "3.99",
            "Python: expected 3.99, got .* is 3.*; install Python 3.99, name it with PYTHON=/path",
        ),
        ("MACHINE", "s390x", "machine: expected s390x, got .*; build the bundle with --platform linux_"),
        ("GLIBC_MINOR", "99", "C library: expected glibc 2.99 or newer, got 2.*; these wheels need a newer Linux"),
        (
            "NEEDS_KB",
            str(1 << 50),
            "expected 1125899906842 MB of free space, got .* MB; free some, or install elsewhere",
        ),
    ],
)
def test_a_machine_that_does_not_fit_is_told_why(bundle: Path, tmp_path: Path, key: str, value: str, text: str) -> None:
    change_fact(bundle, key, value)
    done = install(bundle)
    assert done.returncode == 1
    assert re.search(text, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "fcast-env").exists()


def test_a_python_without_venv_is_told_the_package(bundle: Path, tmp_path: Path) -> None:
    crippled = tmp_path / "python3"
    crippled.write_text(f'#!/bin/sh\ncase "$*" in *"import venv"*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    crippled.chmod(0o755)
    done = install(bundle, python="./python3")
    assert done.returncode == 1
    assert "venv: expected " in done.stderr
    assert f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in done.stderr


def test_a_driver_that_is_too_old_or_missing_is_said_before_installing(bundle: Path) -> None:
    change_fact(bundle, "CUDA", "13")
    change_fact(bundle, "DRIVER", "580.65.06")
    done = install(bundle)
    assert done.returncode == 0
    assert "Warning: NVIDIA driver: expected 580.65.06 or newer for CUDA 13, got none" in done.stderr


def test_a_folder_of_something_else_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    done = install(bundle, "mine")
    assert done.returncode == 1
    assert "mine: expected a new or empty folder, or one that install.sh made, got another" in done.stderr
    assert (tmp_path / "mine/thesis.tex").exists()
    assert "expected sh install.sh [FOLDER], got --here" in install(bundle, "--here").stderr
    assert "FOLDER, fcast-env without it" in install(bundle, "--help").stdout


@needs_uv
@pytest.mark.slow
@pytest.mark.skipif(not can_leave_the_network(), reason="no network namespace may be made here")
def test_the_runtime_goes_from_index_to_forecast_without_a_network(tmp_path: Path) -> None:
    tried = CliRunner().invoke(main, ["--cuda", "none", "--role", "runtime", "--dry-run"], prog_name="fcast-bundle")
    if "check the network" in tried.output:
        pytest.skip("no index of packages can be reached")
    row = walk(tmp_path, role="runtime", artifact=ARTIFACTS / "load")
    assert 0.9 < row["needs_bytes"] / row["used_bytes"] < 1.3
