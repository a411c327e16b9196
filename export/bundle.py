"""A bundle: a folder from which a machine without a network installs fcast.

    FOLDER/install.sh README.md README.zh.md bundle.env requirements.txt
    FOLDER/wheelhouse/*.whl
    FOLDER/artifacts/NAME/VERSION/...
    FOLDER/docs/offline.md ...      from a checkout
    FOLDER/SHA256SUMS               of every file above

SHA256SUMS is written last and install.sh refuses without it, so that what was interrupted never looks finished. Wheels
are added while an older bundle in the folder stays whole; only then is it replaced.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from export.bundle_artifacts import copy_artifacts, open_artifacts
from export.bundle_lock import Wheel, file_sha256, lock
from export.bundle_pages import write_pages
from export.bundle_sets import WheelSet, requirements
from export.bundle_wheels import as_size, fetch, installed_bytes, missing, own_wheel
from export.errors import ExportError, StorageError

SUMS = "SHA256SUMS"
_MARK = ".fcast-bundle"
_ENVIRONMENT_BYTES = 20_000_000
"""Folders, scripts and a margin, beside what comes out of the wheels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a bundle will hold."""

    chosen: WheelSet
    role: str
    python: str
    platform: str
    wheels: tuple[Wheel, ...]
    """Without fcast's own."""
    extras: str

    @property
    def download_bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.size_bytes for wheel in self.wheels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A bundle that was written."""

    path: Path
    fingerprint: str
    """sha256 of SHA256SUMS."""
    size_bytes: int
    needs_bytes: int
    fetched: int
    reused: int


def plan_bundle(chosen: WheelSet, *, role: str, python: str, platform: str, project: Path) -> Plan:
    """Resolve what a machine needs, and refuse what would not work on it.

    Args:
        chosen: a row of the table.
        role: `train` or `runtime`.
        python: `3.11`.
        platform: `linux_x86_64`.
        project: fcast's wheel.

    Raises:
        ExportError: nothing fits, or what fits is built for another CUDA.
    """
    extras, more, constraints = requirements(chosen, role)
    try:
        wheels = lock(project, extras, more, constraints, python=python, platform=platform)
        while chosen.cuda != "none" and (cpu_build := _cpu_torch(wheels)):
            # An index of CPU builds beside the public one wins: 2.13.0+cpu counts as newer than 2.13.0.
            constraints.append(f"torch!={cpu_build}")
            wheels = lock(project, extras, more, constraints, python=python, platform=platform)
    except ExportError as error:
        if role == "train" and chosen.torch_index:
            raise ExportError(f"{_torch_elsewhere(chosen)} ({error})") from error
        raise
    check_cuda(wheels, chosen, role)
    return Plan(chosen=chosen, role=role, python=python, platform=platform, wheels=tuple(wheels), extras=extras)


def check_cuda(wheels: Sequence[Wheel], chosen: WheelSet, role: str) -> None:
    """Refuse wheels that are built for another CUDA than the machine's, or for any where it has none.

    Raises:
        ExportError: says which, and which index would do.
    """
    of_cuda = [wheel for wheel in wheels if wheel.name.startswith("nvidia-c") or wheel.name == "cuda-toolkit"]
    majors = {_cuda_major(wheel) for wheel in of_cuda} - {""}
    torch = next((f"torch {wheel.version}" for wheel in wheels if wheel.name == "torch"), "onnxruntime-gpu")
    size = as_size(sum(wheel.size_bytes for wheel in wheels if wheel.name.startswith(("nvidia-", "cuda-", "triton"))))
    if chosen.cuda == "none":
        if of_cuda:
            raise ExportError(
                f"torch: expected a CPU build, got {torch} with {size} of CUDA {'/'.join(sorted(majors))}; "
                "the public index has no other: name PyTorch's index of CPU builds in PIP_EXTRA_INDEX_URL"
            )
        return
    if role == "train" and chosen.torch_index and not any(f"+cu{chosen.cuda}" in wheel.version for wheel in wheels):
        raise ExportError(f"{_torch_elsewhere(chosen)} (found: {torch} for CUDA {'/'.join(sorted(majors)) or 'none'})")
    if majors - {chosen.cuda}:
        raise ExportError(
            f"{torch}: expected wheels for CUDA {chosen.cuda} alone, got some for CUDA {', '.join(sorted(majors))}; "
            f"name PyTorch's index for CUDA {chosen.cuda} in PIP_EXTRA_INDEX_URL, or choose another --cuda"
        )


def _torch_elsewhere(chosen: WheelSet) -> str:
    return (
        f"torch: expected a build for CUDA {chosen.cuda}, got none from the indexes in use; they lie on "
        f"{chosen.torch_index} alone: name it in PIP_EXTRA_INDEX_URL, or build with --role runtime or --cuda none"
    )


def _cpu_torch(wheels: Sequence[Wheel]) -> str:
    return next((wheel.version for wheel in wheels if wheel.name == "torch" and wheel.version.endswith("+cpu")), "")


def _cuda_major(wheel: Wheel) -> str:
    if "-cu1" in wheel.name:
        return wheel.name.rpartition("-cu")[2]
    return wheel.version.partition(".")[0] if wheel.name in ("nvidia-cuda-runtime", "cuda-toolkit") else ""


def build_bundle(
    plan: Plan, out: Path, *, project: Path, artifacts: Sequence[str] = (), on_wheel: Callable[[str], None]
) -> Built:
    """Write a bundle; what is there already, with the right hash, is kept.

    Args:
        plan: what it holds.
        out: its folder: new, empty, or a bundle.
        project: fcast's wheel.
        artifacts: of each, `artifacts/NAME` or `artifacts/NAME/VERSION`.
        on_wheel: told a line before each download.

    Raises:
        ExportError: an artifact does not fit, or a download failed.
        StorageError: the folder cannot be written, or has no room.
    """
    opened = open_artifacts(artifacts, plan.chosen)
    with _folder(out):
        for left in (".partial", ".artifacts"):  # of a killed build
            shutil.rmtree(out / left, ignore_errors=True)
        wheelhouse = out / "wheelhouse"
        wheelhouse.mkdir(exist_ok=True)
        lacking = missing(plan.wheels, wheelhouse)
        fetch(lacking, wheelhouse, python=plan.python, on_wheel=on_wheel)
        (out / SUMS).unlink(missing_ok=True)
        own = Wheel("fcast", project.name.split("-")[1], project.name, "", file_sha256(project), project.stat().st_size)
        shutil.copyfile(project, wheelhouse / own.file)
        every = sorted((*plan.wheels, own), key=lambda wheel: wheel.name)
        for stale in {path.name for path in wheelhouse.iterdir()} - {wheel.file for wheel in every}:
            (wheelhouse / stale).unlink()
        copy_artifacts(opened, out / ".artifacts")  # aside: they may lie in this very bundle
        shutil.rmtree(out / "artifacts", ignore_errors=True)
        os.replace(out / ".artifacts", out / "artifacts")
        (out / "requirements.txt").write_text(_locked(every, plan.extras), encoding="utf-8")
        needs_bytes = _ENVIRONMENT_BYTES + sum(installed_bytes(wheelhouse / wheel.file) for wheel in every)
        write_pages(
            out,
            plan.chosen,
            role=plan.role,
            python=plan.python,
            machine=plan.platform.removeprefix("linux_"),
            version=own.version,
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            needs_bytes=needs_bytes,
            glibc_minor=max(wheel.glibc_minor for wheel in every),
            artifacts=sorted({artifact.manifest.name for artifact in opened}),
        )
        _seal(out)
    files = [path for path in out.rglob("*") if path.is_file()]
    return Built(
        path=out,
        fingerprint=file_sha256(out / SUMS),
        size_bytes=sum(path.stat().st_size for path in files),
        needs_bytes=needs_bytes,
        fetched=len(lacking),
        reused=len(plan.wheels) - len(lacking),
    )


def _locked(wheels: Sequence[Wheel], extras: str) -> str:
    lines = []
    for wheel in wheels:
        name = f"fcast[{extras}]" if wheel.name == "fcast" else wheel.name
        lines.append(f"{name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    return "".join(lines)


def _seal(out: Path) -> None:
    """Everything to the disk, then SHA256SUMS in one rename."""
    hidden = {path for path in out.iterdir() if path.name.startswith(".")}  # of this build, or of a killed one
    files = sorted(p for top in {*out.iterdir()} - hidden for p in (top, *top.rglob("*")) if p.is_file())
    text = "".join(f"{file_sha256(path)}  {path.relative_to(out).as_posix()}\n" for path in files)
    os.sync()
    aside = out / f".{SUMS}"
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, out / SUMS)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The bundle's folder, for this build alone."""
    try:
        if out.is_dir() and not (out / _MARK).exists() and any(out.iterdir()):
            raise ExportError(f"{out}: expected a new or empty folder, or a bundle, got another; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        with (out / _MARK).open("w", encoding="utf-8") as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ExportError(
                    f"{out}: expected one fcast-bundle at a time, got another at work; wait for it"
                ) from None
            yield
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        raise StorageError(
            f"{error.filename or out}: expected a writable folder with free space, got {error.strerror or error}; free "
            "some space, correct its permissions or choose another --out"
        ) from error


@contextmanager
def project_wheel() -> Iterator[Path]:
    """fcast's own wheel in a folder that goes away.

    Raises:
        ExportError: it cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="fcast-wheel-") as folder:
        yield own_wheel(Path(folder))
