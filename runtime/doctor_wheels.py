"""What is installed, read from the wheels' own metadata and files: nothing is imported.

A wheel's CUDA version, the libraries it opens and the GPUs it has code for are read out of it, so that the verdict is
about the wheel that is there and not about a table.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from .device import NO_TELEMETRY
from .doctor import FAILED, OK, WARNING, Check
from .doctor_probe import SessionProbe

PACKAGES = ("fcast", "numpy", "click", "onnxruntime", "onnxruntime-gpu", "torch")
ORT, ORT_GPU = "onnxruntime", "onnxruntime-gpu"
_PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_BUILD_INFO = "onnxruntime/capi/build_and_package_info.py"
_LIBRARY = re.compile(rb"lib(cublasLt|cublas|cudart|curand|cudnn)\.so\.(\d+)(?=\0)")
_OF_CUDA = ("cublas", "cublasLt", "cudart")
_CUDNN = "libcudnn.so.9"
"""What newer wheels open at the first LSTM or GRU, under a name that is put together there."""
_FATBIN, _PTX = struct.pack("<I", 0xBA55ED50), 1
_OLD_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaCode:
    """What is in onnxruntime-gpu's CUDA library."""

    cuda: str
    """CUDA's major version that it opens the libraries of; "" when it opens none."""
    libraries: tuple[str, ...]
    """Libraries of NVIDIA's that it opens."""
    codes: tuple[tuple[int, int], ...]
    """Compute capabilities that it holds machine code for."""
    ptx: tuple[int, int] | None
    """Capability from which on its intermediate code runs everywhere; None when it holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheels:
    """The packages that matter here."""

    versions: dict[str, str]
    """Name -> version, of those installed."""
    glibc: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> glibc that its wheel asks for."""
    cuda: dict[str, str] = field(default_factory=dict)
    """Name -> CUDA version that it was built with; of those built with CUDA."""
    code: CudaCode | None = None
    """Of onnxruntime-gpu."""


def installed() -> Wheels:
    """Look at the installed packages."""
    found: dict[str, Distribution] = {}
    for name in PACKAGES:
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
    cuda: dict[str, str] = {}
    code: CudaCode | None = None
    if ORT_GPU in found:
        provider = Path(str(found[ORT_GPU].locate_file(_PROVIDER)))
        code = read_provider(provider) if provider.is_file() else None
        stated = _stated(found[ORT_GPU], _BUILD_INFO, r"cuda_version\s*=\s*'([\d.]+)'")
        cuda[ORT_GPU] = stated or (code.cuda if code else "")
    if "torch" in found:
        cuda["torch"] = _stated(found["torch"], "torch/version.py", r"cuda[^=\n]*=\s*'([\d.]+)'")
    return Wheels(
        versions={name: one.version for name, one in found.items()},
        glibc={name: asked for name, one in found.items() if (asked := _glibc(one.read_text("WHEEL") or ""))},
        cuda={name: version for name, version in cuda.items() if version},
        code=code,
    )


def _stated(found: Distribution, file: str, pattern: str) -> str:
    """What a file of a package says, without importing it; "" when it says nothing."""
    try:
        text = Path(str(found.locate_file(file))).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    stated = re.search(pattern, text)
    return stated[1] if stated else ""


def _glibc(wheel: str) -> tuple[int, int] | None:
    """The lowest glibc that one of a wheel's tags is for."""
    asked = [(int(a), int(b)) for a, b in re.findall(r"manylinux_(\d+)_(\d+)", wheel)]
    asked += [version for tag, version in _OLD_TAGS.items() if f"-{tag}_" in wheel or f".{tag}_" in wheel]
    return min(asked, default=None)


def read_provider(path: Path) -> CudaCode:
    """Look into onnxruntime's CUDA library.

    The code lies in containers of nvcc: a header (magic, version, its own size, size of the rest), then for each
    architecture kind, header size, size and at byte 28 the capability times ten.
    """
    named: set[tuple[str, str]] = set()
    codes: set[int] = set()
    ptx: set[int] = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        named.update((match[1].decode(), match[2].decode()) for match in _LIBRARY.finditer(data))
        at = data.find(_FATBIN)
        while at >= 0 and at + 16 <= len(data):
            _, version, header, size = struct.unpack_from("<IHHQ", data, at)
            one, end = at + header, at + header + size
            if (version, header) != (1, 16) or end > len(data):
                one = end = at + len(_FATBIN)
            while one + 32 <= end:
                kind, _, inner, length = struct.unpack_from("<HHIQ", data, one)
                (capability,) = struct.unpack_from("<I", data, one + 28)
                (ptx if kind == _PTX else codes).add(capability)
                one += max(1, inner + length)
            at = data.find(_FATBIN, end)
    # What is linked in names libraries of older CUDA versions too.
    major = max((version for name, version in named if name == "cublas"), key=int, default="")
    libraries = {f"lib{name}.so.{version}" for name, version in named if name not in _OF_CUDA or version == major}
    if not any(library.startswith("libcudnn") for library in libraries):
        libraries.add(_CUDNN)
    return CudaCode(
        cuda=major,
        libraries=tuple(sorted(libraries)),
        codes=tuple(sorted(divmod(code, 10) for code in codes)),
        ptx=divmod(max(ptx), 10) if ptx else None,
    )


def checks(wheels: Wheels, session: SessionProbe) -> list[Check]:
    """Which packages are there, and is there one whole onnxruntime?"""
    known = ", ".join(f"{name} {version}" for name, version in wheels.versions.items())
    if "fcast" not in wheels.versions:
        known = f"fcast as a copied folder, {known}"
    return [
        Check(name="packages", status=OK, found=known),
        _onnxruntime(wheels.versions, session),
        telemetry(os.environ.get(NO_TELEMETRY)),
    ]


def telemetry(setting: str | None) -> Check:
    """Whether onnxruntime keeps to itself what it runs."""
    name = "telemetry"
    if setting not in (None, "1"):
        found = f"{NO_TELEMETRY} is {setting!r}: from 1.29 on onnxruntime may report its sessions to its maker"
        return Check(name=name, status=WARNING, found=found, remedy=f"export {NO_TELEMETRY}=1, or unset it")
    found = f"onnxruntime's is off in fcast; programs that import it before fcast need {NO_TELEMETRY}=1"
    return Check(name=name, status=OK, found=found)


def _onnxruntime(versions: Mapping[str, str], session: SessionProbe) -> Check:
    name = "onnxruntime"
    wheels = [one for one in (ORT, ORT_GPU) if one in versions]
    again = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'fcast[gpu]' for CUDA or 'fcast[cpu]'"
    if len(wheels) == 2:
        found = (
            f"onnxruntime {versions[ORT]} and onnxruntime-gpu {versions[ORT_GPU]}, which overwrite each other's files"
        )
        return Check(name=name, status=FAILED, found=found, remedy=again)
    if not wheels and not session.version:
        found, remedy = (
            "neither onnxruntime nor onnxruntime-gpu is installed",
            "pip install 'fcast[cpu]' or 'fcast[gpu]'",
        )
        return Check(name=name, status=FAILED, found=found, remedy=remedy)
    what = f"{wheels[0]} {versions[wheels[0]]}" if wheels else f"onnxruntime {session.version}, of no package"
    if session.problem:
        return Check(name=name, status=FAILED, found=f"{what} does not run: {session.problem}", remedy=again)
    if not wheels:
        return Check(name=name, status=WARNING, found=what, remedy=again)
    return Check(name=name, status=OK, found=what)
