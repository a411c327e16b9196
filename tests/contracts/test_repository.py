"""What the repository must look like: no trace of the machine it was made on, nothing large, nothing endless."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_BYTES = 1 << 20
MAX_README_LINES, MAX_MODULE_LINES = 199, 400

# Written so that this file does not hold what it looks for.
MACHINE = re.compile(rb"/wor[k]/|/tmp/bash_job[s]|/roo[t]/|/hom[e]/|/User[s]/|[.]librar[y]/|/op[t]/(wheel|pyp)")
HOST = re.compile(
    rb"\bpyp[i][.]org\b|\bdownload[.]pytorc[h]|\b(10|192[.]168)([.]\d{1,3}){2,3}:\d|[.](internal|corp|lan)\b"
)


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


TRACKED = tracked_files()
needs_git = pytest.mark.skipif(not TRACKED, reason="not a git checkout")


@needs_git
@pytest.mark.parametrize("pattern", [MACHINE, HOST], ids=["machine path", "host"])
def test_no_file_names_the(pattern: re.Pattern[bytes]) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): match for path in TRACKED if (match := pattern.search(path.read_bytes()))
    }
    assert found == {}


@pytest.mark.parametrize("text", ["/ro" + "ot/.cache", "cp a /wo" + "rk/b", "/tmp/bash_" + "jobs/1"])
def test_machine_paths_are_recognized(text: str) -> None:
    assert MACHINE.search(text.encode())


@pytest.mark.parametrize("text", ["https://py" + "pi.org/simple", "10.0" + ".0.7:8080", "ci.here." + "corp/"])
def test_hosts_are_recognized(text: str) -> None:
    assert HOST.search(text.encode())


@needs_git
def test_files_are_small() -> None:
    assert {
        path.relative_to(ROOT).as_posix(): size for path in TRACKED if (size := path.stat().st_size) > MAX_BYTES
    } == {}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@needs_git
def test_modules_are_short() -> None:
    lines = {p.relative_to(ROOT).as_posix(): len(p.read_bytes().splitlines()) for p in TRACKED if p.suffix == ".py"}
    assert {name: count for name, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_package_is_marked_as_typed() -> None:
    packages = [name for name in ("runtime", "training", "export", "predictor") if (ROOT / name).is_dir()]
    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []
