"""What the driver and a session say, asked in child processes: a broken library may end one, never the doctor.

Of the driver only libcuda's oldest functions are called. What needs nvidia-smi (its own version, other processes) is
missing where a container has no nvidia-smi. Not run on a GPU; tests stand in for both with a library and a script.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .device import NO_TELEMETRY

_TIMEOUT_S = 120
# ModelProto with one Abs on a float tensor of 4.
_GRAPH = (
    "08083a320a0b0a017812017922034162731201675a0f0a0178120a0a0808"
    "0112040a020804620f0a0179120a0a08080112040a0208044202100d"
)

_DRIVER = """
import ctypes, json
found = {"gpus": []}
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    found["missing"] = str(error)
else:
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    found["cuda"] = [number.value // 1000, number.value % 1000 // 10]
    found["init"] = cuda.cuInit(0)
    if found["init"] == 0:
        cuda.cuDeviceGetCount(ctypes.byref(number))
        for index in range(number.value):
            name, device, numbers = ctypes.create_string_buffer(200), ctypes.c_int(0), []
            cuda.cuDeviceGet(ctypes.byref(device), index)
            cuda.cuDeviceGetName(name, 200, device)
            for attribute in (75, 76):  # compute capability, major and minor
                value = ctypes.c_int(0)
                cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
                numbers.append(value.value)
            size = ctypes.c_size_t(0)
            cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
            found["gpus"].append([index, name.value.decode(errors="replace"), numbers, size.value])
print()
print(json.dumps(found))
"""

_SESSION = """
import importlib, json, sys
root, package, graph, *libraries = sys.argv[1:]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
found = {}
try:
    import onnxruntime as ort
    found["version"] = ort.__version__
    found["built_for"] = list(ort.get_available_providers())
    import numpy as np
    wanted = [CPU]
    if CUDA in found["built_for"]:
        wanted = [(CUDA, {"use_tf32": "0"}), CPU]
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    session = ort.InferenceSession(bytes.fromhex(graph), providers=wanted)
    found["ran_on"] = session.get_providers()
    answer = session.run(None, {"x": np.array([-1, 2, -3, 4], np.float32)})[0].tolist()
    if answer != [1.0, 2.0, 3.0, 4.0]:
        found["error"] = f"abs of -1, 2, -3, 4 is {answer}"
    if CUDA in found["built_for"] and found["ran_on"][0] != CUDA:
        sys.path.insert(0, root)
        found["why_not"] = importlib.import_module(package + ".cuda").why_not(ort)
except Exception as error:
    found["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
import ctypes
found["libraries"] = {}
for name in libraries:
    try:
        ctypes.CDLL(name)
        found["libraries"][name] = ""
    except OSError as error:
        found["libraries"][name] = str(error)
print()
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as the driver sees it."""

    index: int
    name: str
    capability: tuple[int, int]
    """Compute capability, (8, 0)."""
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What is known of the NVIDIA driver."""

    problem: str = ""
    """Why it can't be used; "" when it can."""
    version: str = ""
    """Of the driver, `535.104.05`; "" where nobody told."""
    cuda: tuple[int, int] | None = None
    """The newest CUDA it runs; None without a driver."""
    gpus: tuple[Gpu, ...] = ()
    in_machine: bool = False
    """Whether the kernel knows an NVIDIA GPU, usable or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProbe:
    """What a session of onnxruntime did."""

    problem: str = ""
    """Why there was none; "" when it ran."""
    version: str = ""
    built_for: tuple[str, ...] = ()
    ran_on: tuple[str, ...] = ()
    why_not_cuda: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    """Library -> what the dynamic loader said; "" when it was loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """Memory of a GPU and who uses it."""

    index: int
    total_bytes: int
    used_bytes: int


def _child(code: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a child process printed last as JSON, or {} and how it ended."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={NO_TELEMETRY: "1"} | os.environ,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, f"{type(error).__name__} after at most {_TIMEOUT_S} s"
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        if done.returncode == 0 and isinstance(found, dict):
            return found, ""
    except (ValueError, IndexError):
        pass
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    lines = done.stderr.strip().splitlines()
    return {}, f"a process that ended with {how}" + (f": {lines[-1][:200]}" if lines else "")


def probe_driver() -> Driver:
    """Ask libcuda, and the kernel's own note of its version."""
    in_machine = any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/nvidia0").exists()
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    stated = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    version = stated[1] if stated else ""
    found, problem = _child(_DRIVER)
    if problem or "missing" in found:
        return Driver(problem=problem or found["missing"], version=version, in_machine=in_machine)
    gpus = tuple(
        Gpu(index=index, name=name, capability=(major, minor), memory_bytes=size)
        for index, name, (major, minor), size in found["gpus"]
    )
    if found["init"]:
        problem = f"cuInit gave error {found['init']}"
    elif not gpus:
        problem = "cuInit found no GPU"
    major, minor = found["cuda"]
    return Driver(problem=problem, version=version, cuda=(major, minor), gpus=gpus, in_machine=in_machine or bool(gpus))


def probe_session(libraries: tuple[str, ...] = ()) -> SessionProbe:
    """Make a session on CUDA where onnxruntime was built for it, else on the CPU, and run it.

    Args:
        libraries: shared libraries to load in the same process, after onnxruntime has loaded its own.
    """
    package = __name__.rpartition(".")[0]
    root = str(Path(__file__).resolve().parents[len(package.split("."))])
    found, problem = _child(_SESSION, root, package, _GRAPH, *libraries)
    return SessionProbe(
        problem=problem or found.get("error", ""),
        version=found.get("version", ""),
        built_for=tuple(found.get("built_for", ())),
        ran_on=tuple(found.get("ran_on", ())),
        why_not_cuda=found.get("why_not", ""),
        libraries=found.get("libraries", {}),
    )


def probe_gpu_use() -> tuple[list[GpuUse], list[int]]:
    """Memory of each GPU and the processes that compute on any, from nvidia-smi; nothing where there is none."""
    rows = _smi("--query-gpu=index,memory.total,memory.used")
    use = [GpuUse(index=row[0], total_bytes=row[1] << 20, used_bytes=row[2] << 20) for row in rows if len(row) == 3]
    return use, [row[0] for row in _smi("--query-compute-apps=pid") if row]


def _smi(query: str) -> list[list[int]]:
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    cells = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [[int(cell) for cell in row] for row in cells if all(cell.isdecimal() for cell in row)]
