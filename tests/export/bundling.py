"""Wheels of a few bytes, and bundles of them, that pip really installs."""

from __future__ import annotations

import hashlib
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from export.bundle import Built, Plan, build_bundle
from export.bundle_lock import Wheel
from export.bundle_sets import CPU


def make_wheel(
    folder: Path, name: str, version: str = "1.0", *, tag: str = "py3-none-any", metadata: str = "", module: str = ""
) -> Path:
    """A wheel with one module, of that name unless said otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        module or f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD")))
    return path


def as_locked(path: Path) -> Wheel:
    """A wheel on the disk as a lock names it."""
    name, version = path.name.split("-")[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(name.replace("_", "-"), version, path.name, path.absolute().as_uri(), digest, path.stat().st_size)


def make_plan(wheels: Sequence[Path]) -> Plan:
    """A plan for this machine."""
    return Plan(
        chosen=CPU,
        role="runtime",
        python=sysconfig.get_python_version(),
        platform=sysconfig.get_platform().replace("-", "_"),
        wheels=tuple(map(as_locked, wheels)),
        extras="cpu",
    )


def make_bundle(folder: Path, wheels: Sequence[Path], *, artifacts: Sequence[str] = ()) -> Built:
    """Build a bundle of such wheels."""
    project = folder.with_name("project") / "fcast-0.1-py3-none-any.whl"
    if not project.exists():
        make_wheel(project.parent, "fcast", "0.1", metadata="Provides-Extra: cpu\n")
    return build_bundle(make_plan(wheels), folder, project=project, artifacts=artifacts, on_wheel=lambda line: None)


def wheel_of_pip() -> Path:
    """pip's own wheel, as it comes with Python."""
    import ensurepip

    places = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    found = [path for place in places for path in sorted(place.glob("pip-*.whl"))]
    if not found:
        pytest.skip("this Python comes without pip's wheel")
    return found[-1]
