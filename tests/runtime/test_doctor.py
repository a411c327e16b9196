"""fcast-doctor looks at everything, judges machines that are not here, and outlives whatever is broken."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime import doctor, doctor_cuda, doctor_system, doctor_wheels
from runtime.cli_doctor import main
from runtime.doctor import FAILED, OK, WARNING, Check, examine, guarded, table, worst
from runtime.doctor_cuda import gpu, libraries, memory, nvidia_driver, provider
from runtime.doctor_probe import Driver, Gpu, GpuUse, SessionProbe, probe_driver, probe_gpu_use, probe_session
from runtime.doctor_wheels import CudaCode, Wheels, checks, installed, read_provider, telemetry
from tests.runtime.conftest import cli_runner

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CPU_WHEEL = Wheels(versions={"fcast": "0.1.0", "onnxruntime": "1.32.0"})
CODE = CudaCode(
    cuda="13",
    libraries=("libcublas.so.13", "libcudnn.so.9"),
    codes=((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)),
    ptx=None,
)
GPU_WHEEL = Wheels(versions={"onnxruntime-gpu": "1.31.1"}, cuda={"onnxruntime-gpu": "13.0"}, code=CODE)
H100 = Gpu(index=0, name="NVIDIA H100", capability=(9, 0), memory_bytes=80 << 30)
NEW = Driver(version="580.65", cuda=(13, 0), gpus=(H100,), in_machine=True)
NONE = Driver(problem="libcuda.so.1: cannot open shared object file")
ON_CUDA = SessionProbe(version="1.31.1", built_for=(CUDA, CPU), ran_on=(CUDA, CPU))
FELL_BACK = SessionProbe(version="1.31.1", built_for=(CUDA, CPU), ran_on=(CPU,), why_not_cuda="a missing library")
ON_CPU = SessionProbe(version="1.32.0", built_for=(CPU,), ran_on=(CPU,))


def test_this_machine_is_looked_at_without_a_failure_of_the_doctor() -> None:
    found = examine()
    names = [check.name for check in found.checks]
    expected = {
        *["python", "platform", "glibc", "packages", "onnxruntime", "telemetry", "session", "disk", "locale", "clock"],
        "nvidia driver",
    }
    assert expected <= set(names)
    assert [check for check in found.checks if "could not be looked at" in check.found] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("wheels", "driver", "status", "said", "remedy"),
    [
        (CPU_WHEEL, NONE, OK, "no NVIDIA driver; the installed wheels are for the CPU", ""),
        (GPU_WHEEL, NONE, WARNING, "no NVIDIA driver: all runs on the CPU, while onnxruntime-gpu 1.31.1", "driver 580"),
        (GPU_WHEEL, replace(NONE, in_machine=True), FAILED, "no NVIDIA driver that can be used (libcuda", "--gpus all"),
        (CPU_WHEEL, replace(NONE, in_machine=True), WARNING, "no NVIDIA driver that can be used", "--gpus all"),
        (GPU_WHEEL, NEW, OK, "580.65, for CUDA up to 13.0; onnxruntime-gpu 1.31.1 is built for CUDA 13.0", ""),
        (
            GPU_WHEEL,
            replace(NEW, version="535.104.05", cuda=(12, 2)),
            FAILED,
            "535.104.05, for CUDA up to 12.2, too old: onnxruntime-gpu 1.31.1 is built for CUDA 13.0",
            "install driver 580 or newer, or wheels for CUDA 12 (fcast-bundle --cuda 12)",
        ),
        (CPU_WHEEL, NEW, WARNING, "the installed wheels are for the CPU", "pip install 'fcast[gpu]'"),
        (GPU_WHEEL, replace(NEW, problem="cuInit gave error 803", gpus=()), FAILED, "cuInit gave error 803", "restart"),
        (GPU_WHEEL, replace(NEW, version=""), OK, "of unknown version, for CUDA up to 13.0", ""),
        (
            Wheels(
                versions={"torch": "2.13.0", "onnxruntime-gpu": "1.22.0"},
                cuda={"torch": "13.0", "onnxruntime-gpu": "12.2"},
            ),
            replace(NEW, cuda=(12, 8)),
            FAILED,
            "too old: torch 2.13.0 is built for CUDA 13.0",
            "driver 580",
        ),
    ],
)
def test_the_driver_is_judged_by_what_the_wheels_need(
    wheels: Wheels, driver: Driver, status: str, said: str, remedy: str
) -> None:
    found = nvidia_driver(wheels, driver)
    assert found.status == status
    assert said in found.found
    assert remedy in found.remedy
    assert (found.remedy == "") == (status == OK)


@pytest.mark.parametrize(
    ("capability", "ptx", "status", "remedy"),
    [
        ((9, 0), None, OK, ""),
        ((8, 7), None, OK, ""),
        ((6, 1), None, FAILED, "take an older one"),
        ((10, 0), None, FAILED, "take a newer one"),
        ((10, 0), (9, 0), OK, ""),
        ((5, 2), None, FAILED, "fcast asks for compute capability 6.0"),
    ],
)
def test_a_gpu_is_judged_by_the_code_in_the_wheel(
    capability: tuple[int, int], ptx: tuple[int, int] | None, status: str, remedy: str
) -> None:
    wheels = replace(GPU_WHEEL, code=replace(CODE, ptx=ptx))
    found = gpu(wheels, replace(NEW, gpus=(replace(H100, capability=capability),)), 0)
    assert (found.name, found.status) == ("gpu 0", status)
    assert remedy in found.remedy
    assert f"compute capability {capability[0]}.{capability[1]}" in found.found


def test_missing_cuda_libraries_are_named_with_the_extra_that_brings_them() -> None:
    probe = replace(ON_CUDA, libraries={"libcublas.so.13": "cannot open", "libcudnn.so.9": ""})
    found = libraries(GPU_WHEEL, NEW, probe)
    assert (found.status, found.found) == (FAILED, "missing: libcublas.so.13")
    assert "pip install 'fcast[gpu]'" in found.remedy
    assert libraries(GPU_WHEEL, NONE, probe).status == WARNING
    whole = replace(ON_CUDA, libraries=dict.fromkeys(CODE.libraries, ""))
    assert libraries(GPU_WHEEL, NEW, whole).status == OK
    assert libraries(GPU_WHEEL, NEW, replace(ON_CUDA, problem="crashed", libraries={})).found == "could not be tried"


def test_a_silent_fall_to_the_cpu_is_said_with_its_reason() -> None:
    found = provider(NEW, FELL_BACK)
    assert found.status == FAILED
    assert found.found == f"asked for {CUDA}, ran on {CPU} without a word: a missing library"
    assert provider(NONE, FELL_BACK).status == WARNING
    assert provider(NEW, ON_CUDA) == Check(name="session", status=OK, found=f"ran on {CUDA}")
    assert provider(NONE, ON_CPU).status == OK


@pytest.mark.parametrize(
    ("versions", "probe", "status", "said"),
    [
        ({"onnxruntime": "1.32.0"}, ON_CPU, OK, "onnxruntime 1.32.0"),
        ({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, ON_CPU, FAILED, "which overwrite each other's files"),
        ({}, SessionProbe(problem="ModuleNotFoundError: x"), FAILED, "neither onnxruntime nor onnxruntime-gpu"),
        (
            {"onnxruntime": "1.32.0"},
            SessionProbe(problem="AttributeError: module 'onnxruntime' has no attribute 'InferenceSession'"),
            FAILED,
            "onnxruntime 1.32.0 does not run: AttributeError",
        ),
        ({}, ON_CPU, WARNING, "onnxruntime 1.32.0, of no package"),
    ],
)
def test_one_whole_onnxruntime_is_wanted(versions: dict[str, str], probe: SessionProbe, status: str, said: str) -> None:
    found = checks(Wheels(versions=versions), probe)[1]
    assert (found.name, found.status) == ("onnxruntime", status)
    assert said in found.found
    assert ("pip" in found.remedy) == (status != OK)


@pytest.mark.parametrize(("setting", "status"), [(None, OK), ("1", OK), ("0", WARNING)])
def test_telemetry_that_is_let_on_is_a_warning(setting: str | None, status: str) -> None:
    assert telemetry(setting).status == status


def test_memory_that_others_hold_is_a_warning() -> None:
    total = 80 << 30
    assert memory([GpuUse(index=0, total_bytes=total, used_bytes=1 << 29)], []).status == OK
    full = memory([GpuUse(index=0, total_bytes=total, used_bytes=70 << 30)], [4711, 12])
    assert (full.status, full.found) == (WARNING, "in use: gpu 0 70.0 of 80.0 GiB, by processes 12, 4711")
    assert memory([], []).found == "unknown"


@pytest.mark.parametrize(
    ("check", "status", "remedy"),
    [
        (doctor_system.python((3, 9), "3.9.1", "python"), FAILED, "Python 3.10 or newer"),
        (doctor_system.machine("Darwin", "arm64", "macOS"), WARNING, "Linux x86_64"),
        (doctor_system.glibc(("glibc", "2.17"), {"onnxruntime": (2, 28), "numpy": (2, 17)}), FAILED, "newer system"),
        (doctor_system.glibc(("glibc", "2.28"), {"onnxruntime": (2, 28)}), OK, ""),
        (doctor_system.glibc(("", ""), {"onnxruntime": (2, 28)}), WARNING, "glibc"),
        (doctor_system.disk(Path("x"), 1 << 20), FAILED, "make room"),
        (doctor_system.disk(Path("x"), 1 << 30), WARNING, "make room"),
        (doctor_system.disk(Path("x"), 1 << 40), OK, ""),
        (doctor_system.shared_memory(64 << 20), WARNING, "--shm-size"),
        (doctor_system.encoding("ANSI_X3.4-1968", "C"), WARNING, "LANG=C.UTF-8"),
        (doctor_system.encoding("UTF-8", "C.UTF-8"), OK, ""),
        (doctor_system.clock(0.0, 1.7e9), WARNING, "set the clock"),
        (doctor_system.clock(1.8e9, 1.7e9), OK, ""),
    ],
)
def test_a_system_is_judged_with_a_remedy(check: Check, status: str, remedy: str) -> None:
    assert check.status == status
    assert remedy in check.remedy


def test_a_part_that_breaks_is_one_warning_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[Check]:
        raise RuntimeError("of a kind that nobody foresaw\nmore")

    monkeypatch.setattr(doctor_cuda, "checks", broken)
    found = {check.name: check for check in examine().checks}
    assert found["cuda"].status == WARNING
    assert found["cuda"].found == "could not be looked at (RuntimeError: of a kind that nobody foresaw)"
    assert "disk" in found
    assert guarded("x", lambda: [Check(name="y", status=OK, found="")])[0].name == "y"


@pytest.mark.parametrize("error", [OSError, ImportError])
def test_a_broken_torch_is_named(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def broken(group: str, name: str) -> None:
        raise error("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "extra", broken)
    monkeypatch.setattr(doctor_wheels, "installed", lambda: Wheels(versions={"torch": "2.13.0"}))
    found = {check.name: check for check in examine().checks}["torch"]
    assert found.status == FAILED
    assert found.found.startswith(f"torch 2.13.0 cannot be loaded ({error.__name__}: libcudart.so.13")


def test_a_broken_onnxruntime_ends_a_child_and_not_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe_session().problem.startswith("a process that ended with signal 6")
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so: cannot open shared object file')\n")
    assert probe_session().problem == "ImportError: libfoo.so: cannot open shared object file"
    (tmp_path / "onnxruntime.py").write_text("")
    assert probe_session().problem.startswith("AttributeError: module 'onnxruntime' has no attribute")


_LIBCUDA = """
#include <string.h>
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuInit(unsigned f) { return INIT; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d ? "Tesla P100" : "NVIDIA A100", n); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? (d ? 6 : 8) : 0; return 0; }
int cuDeviceTotalMem_v2(unsigned long *b, int d) { *b = 16UL << 30; return 0; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for a stand-in of libcuda")
@pytest.mark.parametrize(("code", "problem"), [(0, ""), (999, "cuInit gave error 999")])
def test_the_driver_is_asked_through_its_own_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, problem: str
) -> None:
    (tmp_path / "cuda.c").write_text(_LIBCUDA)
    library = tmp_path / "libcuda.so.1"
    built = ["gcc", "-shared", "-fPIC", f"-DINIT={code}", "-o", str(library), str(tmp_path / "cuda.c")]
    subprocess.run(built, check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = probe_driver()
    assert (found.cuda, found.problem) == ((12, 4), problem)
    gpus = [(one.index, one.name, one.capability, one.memory_bytes) for one in found.gpus]
    assert gpus == ([] if code else [(0, "NVIDIA A100", (8, 0), 16 << 30), (1, "Tesla P100", (6, 0), 16 << 30)])


def test_nvidia_smi_tells_of_memory_and_processes_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe_gpu_use() == ([], [])
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\ncase $1 in *apps*) echo 4711; echo '[Insufficient Permissions]';; *) echo '0, 81559, 417';; esac\n"
    )
    script.chmod(0o755)
    assert probe_gpu_use() == ([GpuUse(index=0, total_bytes=81559 << 20, used_bytes=417 << 20)], [4711])
    script.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    assert probe_gpu_use() == ([], [])


def test_a_provider_library_is_read_for_its_libraries_and_codes(tmp_path: Path) -> None:
    def code(kind: int, capability: int) -> bytes:
        return struct.pack("<HHIQ", kind, 0x101, 64, 8) + bytes(12) + struct.pack("<I", capability) + bytes(32 + 8)

    def container(*parts: bytes) -> bytes:
        return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, parts))) + b"".join(parts)

    names = b"libcublas.so.12\0libcublasLt.so.12\0libcudart.so.12\0libcudart.so.11\0libcurand.so.10\0libcudnn.so.\0"
    noise = struct.pack("<I", 0xBA55ED50) + b"\xff" * 40
    file = tmp_path / "libonnxruntime_providers_cuda.so"
    file.write_bytes(
        names + noise + container(code(2, 75), code(2, 80), code(1, 90)) + b"..." + container(code(2, 120))
    )
    found = read_provider(file)
    assert found.cuda == "12"
    assert found.libraries == (
        "libcublas.so.12",
        "libcublasLt.so.12",
        "libcudart.so.12",
        "libcudnn.so.9",
        "libcurand.so.10",
    )
    assert found.codes == ((7, 5), (8, 0), (12, 0))
    assert found.ptx == (9, 0)
    file.write_bytes(b"no code, no names")
    assert read_provider(file).codes == ()


def test_installed_wheels_tell_their_versions_and_glibc() -> None:
    found = installed()
    assert {"numpy", "click"} <= set(found.versions)
    assert all(version[0] == 2 for version in found.glibc.values())


def test_exit_code_and_json_follow_the_worst_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status, code in (("a", OK, 0), ("b", WARNING, 0), ("c", FAILED, 1)):
        found = SimpleNamespace(checks=[Check(name=name, status=status, found="f", remedy="r")], gpus=[], no_gpu="n")
        monkeypatch.setattr("runtime.cli_doctor.examine", lambda found=found: found)
        done = cli_runner().invoke(main, ["--json"])
        assert done.exit_code == code
        result = json.loads(done.stdout)
        assert result["status"] == status
        assert result["checks"] == [{"name": name, "status": status, "found": "f", "remedy": "r"}]
        assert f"{status:<8} {name}  f\n" in cli_runner().invoke(main, []).stdout
    assert worst([]) == OK


def test_a_remedy_stands_below_its_line() -> None:
    lines = table([Check(name="glibc", status=WARNING, found="old", remedy="new")])
    assert lines == ["warning  glibc  old", "                -> new"]
