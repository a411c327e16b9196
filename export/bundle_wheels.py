"""The wheels of a bundle: the project's own, and those that pip fetches, each whole and hashed before it counts."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from export.bundle_lock import Wheel, file_sha256
from export.errors import ExportError, StorageError

PACKAGES = ("training", "export", "runtime", "predictor")
_OF_THE_INSTALLER = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
_EPOCH = "315532800"
"""1980, the earliest that a zip can say: the same sources give the same wheel."""


def own_wheel(into: Path) -> Path:
    """fcast's wheel, built from the checkout that runs or packed again from what is installed.

    Raises:
        ExportError: neither is possible.
    """
    root = Path(__file__).parents[1]
    if (root / "pyproject.toml").is_file():
        return _built(root, into)
    return _packed(distribution("fcast"), into)


def _built(root: Path, into: Path) -> Path:
    source = into / "source"  # building leaves folders behind, and a checkout may be read-only
    for package in PACKAGES:
        shutil.copytree(root / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source)
    arguments = ["wheel", "--no-deps", "--quiet", "--wheel-dir", str(into), str(source)]
    _pip(arguments, "fcast", environment={"SOURCE_DATE_EPOCH": _EPOCH})
    shutil.rmtree(source)
    return next(into.glob("fcast-*.whl"))


def _packed(installed: Distribution, into: Path) -> Path:
    """A wheel from an installed distribution, without what installing added."""
    target = into / f"fcast-{installed.version}-py3-none-any.whl"
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(installed.files or (), key=str):
            name = file.as_posix()
            if name.startswith("..") or "__pycache__" in file.parts or file.name in _OF_THE_INSTALLER:
                continue
            data = Path(str(file.locate())).read_bytes()
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", str(len(data))))
        if not any(name.startswith("export/") for name, *_ in rows):
            raise ExportError("fcast: expected it installed from a wheel, got no record of files; install it again")
        record = next(name for name, *_ in rows if name.endswith(".dist-info/METADATA")).replace("METADATA", "RECORD")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        archive.writestr(zipfile.ZipInfo(record), text.getvalue())
    return target


def missing(wheels: Sequence[Wheel], wheelhouse: Path) -> list[Wheel]:
    """Those that are not in the folder with the hash of the lock; a file with another hash is removed."""
    lacking = []
    for wheel in wheels:
        path = wheelhouse / wheel.file
        if path.is_file() and file_sha256(path) == wheel.sha256:
            continue
        path.unlink(missing_ok=True)
        lacking.append(wheel)
    return lacking


def fetch(wheels: Sequence[Wheel], wheelhouse: Path, *, python: str, on_wheel: Callable[[str], None]) -> None:
    """Download wheels one by one, so that a broken build keeps those that it has.

    Args:
        wheels: what to fetch.
        wheelhouse: where it goes; a file appears there only whole and with the right hash.
        python: `3.11`.
        on_wheel: told a line before each.

    Raises:
        ExportError: a download failed, or its hash is not the lock's.
        StorageError: there is no room.
    """
    needed = sum(wheel.size_bytes for wheel in wheels)
    free = shutil.disk_usage(wheelhouse).free
    if free < needed:
        raise StorageError(
            f"{wheelhouse}: expected {as_size(needed)} of free space for the downloads, got {as_size(free)}; free some "
            "space or choose another --out"
        )
    partial = wheelhouse.with_name(".partial")
    try:
        for number, wheel in enumerate(wheels, start=1):
            on_wheel(f"{number}/{len(wheels)} {wheel.file} ({as_size(wheel.size_bytes)})")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            wanted = partial / "wanted.txt"
            wanted.write_text(f"{wheel.name} @ {wheel.url} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
            _pip(_download(wheel, wanted, partial, python), wheel.file)
            found = file_sha256(partial / wheel.file)
            if found != wheel.sha256:
                raise ExportError(
                    f"{wheel.file}: expected sha256 {wheel.sha256}, got {found}; run the same command again"
                )
            os.replace(partial / wheel.file, wheelhouse / wheel.file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(wheel: Wheel, wanted: Path, into: Path, python: str) -> list[str]:
    """pip's arguments: with the wheel's own tags, every version of pip takes it for any machine."""
    pythons, abis, platforms = wheel.tags
    chosen = [part for abi in {*abis.split("."), "none"} for part in ("--abi", abi)]
    if platforms != "any":
        chosen += [part for platform in platforms.split(".") for part in ("--platform", platform)]
    implementation = ["--implementation", "cp"] if pythons.startswith("cp") else []
    return [
        *("download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(into)),
        *("--python-version", python, *implementation, *chosen, "--requirement", str(wanted)),
    ]


def _pip(arguments: Sequence[str], what: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (environment or {}))
    if done.returncode:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in words if "No space left" in line), None)
        if said is not None:
            raise StorageError(f"{what}: expected room on the disk, got: No space left on device; free some space")
        said = next((line for line in reversed(words) if line.startswith("ERROR")), (words or ["nothing"])[-1])
        raise ExportError(f"{what}: expected pip to fetch it, got: {said}; check the network and run it again")


def as_size(size_bytes: float) -> str:
    """`3.1 GB`, `42 MB`."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.0f} kB"


def installed_bytes(wheel: Path) -> int:
    """What a wheel takes on the disk once pip has unpacked and compiled it.

    Blocks of 4 KiB; a compiled module takes 1.4 times its source: environments of 1,621 and 181 MB came out to 1 %.
    """
    with zipfile.ZipFile(wheel) as archive:
        blocks = [(entry.filename, (entry.file_size + 4095) // 4096 * 4096) for entry in archive.infolist()]
    return sum(size if not name.endswith(".py") else round(2.4 * size) for name, size in blocks)
