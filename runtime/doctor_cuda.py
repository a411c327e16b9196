"""Driver, GPUs, CUDA libraries, and what a session really ran on: what they need of each other."""

from __future__ import annotations

from .doctor import FAILED, OK, WARNING, Check
from .doctor_probe import Driver, GpuUse, SessionProbe, probe_gpu_use
from .doctor_wheels import ORT_GPU, CudaCode, Wheels

_CUDA = "CUDAExecutionProvider"
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580"}
"""CUDA's major version -> Linux driver that runs all of its minor ones; NVIDIA, "CUDA Compatibility", minor version
compatibility."""
_ASKED = (6, 0)
"""Compute capability that the user guide asks for."""
_MUCH = 0.5


def checks(wheels: Wheels, driver: Driver, session: SessionProbe) -> list[Check]:
    """Everything between the driver and a session."""
    found = [nvidia_driver(wheels, driver)]
    if driver.gpus:
        found += [gpu(wheels, driver, index) for index in range(len(driver.gpus))]
    if ORT_GPU in wheels.versions:
        found.append(libraries(wheels, driver, session))
    if not session.problem:
        found.append(provider(driver, session))
    if driver.gpus:
        found.append(memory(*probe_gpu_use()))
    return found


def nvidia_driver(wheels: Wheels, driver: Driver) -> Check:
    """Whether the driver is new enough for the wheels."""
    name = "nvidia driver"
    needed = {package: int(cuda.partition(".")[0]) for package, cuda in wheels.cuda.items()}
    most = max(needed, key=lambda package: needed[package], default="")
    wants = f"{most} {wheels.versions[most]} is built for CUDA {wheels.cuda[most]}" if most else ""
    oldest = OLDEST_DRIVER.get(needed[most], "a newer one") if most else ""
    if driver.cuda is None:
        gone = "no NVIDIA driver" + (f" that can be used ({driver.problem})" if driver.in_machine else "")
        if driver.in_machine:
            remedy = "the kernel knows a GPU: install the driver's user libraries, or in docker pass --gpus all"
            return Check(name=name, status=FAILED if most else WARNING, found=gone, remedy=remedy)
        if most:
            remedy = f"on a GPU box install driver {oldest} or newer; without a GPU take 'fcast[cpu]'"
            return Check(name=name, status=WARNING, found=f"{gone}: all runs on the CPU, while {wants}", remedy=remedy)
        return Check(name=name, status=OK, found=f"{gone}; the installed wheels are for the CPU")
    has = f"{driver.version or 'of unknown version'}, for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.problem:
        remedy = "nvidia-smi says more; after an update of the driver, restart; in docker pass --gpus all"
        return Check(name=name, status=FAILED, found=f"{has}, but {driver.problem}", remedy=remedy)
    if most and driver.cuda[0] < needed[most]:
        older = f"wheels for CUDA {driver.cuda[0]} (fcast-bundle --cuda {driver.cuda[0]})"
        remedy = f"install driver {oldest} or newer, or {older}"
        return Check(name=name, status=FAILED, found=f"{has}, too old: {wants}", remedy=remedy)
    if not most:
        remedy = "to use the GPU: pip uninstall -y onnxruntime && pip install 'fcast[gpu]', and a CUDA build of torch"
        return Check(name=name, status=WARNING, found=f"{has}; the installed wheels are for the CPU", remedy=remedy)
    return Check(name=name, status=OK, found=f"{has}; {wants}")


def gpu(wheels: Wheels, driver: Driver, index: int) -> Check:
    """Whether the installed onnxruntime-gpu holds code for a GPU."""
    one = driver.gpus[index]
    has = ".".join(map(str, one.capability))
    found = f"{one.name}, {one.memory_bytes / (1 << 30):.1f} GiB, compute capability {has}"
    name = f"gpu {one.index}"
    if one.capability < _ASKED:
        return Check(name=name, status=FAILED, found=found, remedy="fcast asks for compute capability 6.0 or newer")
    if wheels.code is None:
        return Check(name=name, status=OK, found=found)
    codes = ", ".join(f"{a}.{b}" for a, b in wheels.code.codes)
    if runs_on(wheels.code, one.capability):
        return Check(name=name, status=OK, found=f"{found}; onnxruntime-gpu has code for {codes}")
    which = "an older" if one.capability < min(wheels.code.codes, default=(99, 0)) else "a newer"
    remedy = (
        f"onnxruntime-gpu {wheels.versions[ORT_GPU]} has code for {codes}: take {which} one that has yours, or serve "
        "on the CPU ('fcast[cpu]'); torch may still train there"
    )
    return Check(name=name, status=FAILED, found=f"{found}, which onnxruntime-gpu has no code for", remedy=remedy)


def runs_on(code: CudaCode, capability: tuple[int, int]) -> bool:
    """Machine code runs on the same major version from its minor one on; intermediate code on all that are newer."""
    same = any(one[0] == capability[0] and one[1] <= capability[1] for one in code.codes)
    return same or (code.ptx is not None and code.ptx <= capability)


def libraries(wheels: Wheels, driver: Driver, session: SessionProbe) -> Check:
    """Whether cuBLAS, cuDNN and the others that onnxruntime-gpu opens are there."""
    name = "cuda libraries"
    wanted = wheels.code.libraries if wheels.code else ()
    missing = [library for library in wanted if session.libraries.get(library)]
    if not wanted or not session.libraries:
        return Check(name=name, status=WARNING, found="could not be tried", remedy="see onnxruntime above")
    if not missing:
        return Check(name=name, status=OK, found=f"{', '.join(wanted)} load")
    remedy = "pip install 'fcast[gpu]', whose extras bring cuBLAS and cuDNN; onnxruntime-gpu[cuda] alone lacks them"
    status = FAILED if driver.gpus else WARNING
    return Check(name=name, status=status, found=f"missing: {', '.join(missing)}", remedy=remedy)


def provider(driver: Driver, session: SessionProbe) -> Check:
    """What a session really ran on: onnxruntime falls back to the CPU without a word."""
    name = "session"
    ran = session.ran_on[0] if session.ran_on else "nothing"
    if _CUDA not in session.built_for or ran == _CUDA:
        return Check(name=name, status=OK, found=f"ran on {ran}")
    found = f"asked for {_CUDA}, ran on {ran} without a word"
    if session.why_not_cuda:
        found += f": {session.why_not_cuda}"
    remedy = "the lines above say what is missing; device='cuda' makes it an error, device='cpu' says it is meant"
    return Check(name=name, status=FAILED if driver.in_machine else WARNING, found=found, remedy=remedy)


def memory(use: list[GpuUse], processes: list[int]) -> Check:
    """How much of the GPUs' memory others hold."""
    name = "gpu memory"
    if not use:
        return Check(name=name, status=WARNING, found="unknown", remedy="nvidia-smi is missing or does not answer")
    parts = [
        f"gpu {one.index} {one.used_bytes / (1 << 30):.1f} of {one.total_bytes / (1 << 30):.1f} GiB" for one in use
    ]
    found = f"in use: {', '.join(parts)}"
    if processes:
        found += f", by processes {', '.join(map(str, sorted(set(processes))))}"
    full = [one for one in use if one.used_bytes > _MUCH * one.total_bytes]
    if full or processes:
        remedy = (
            "others compute here: timings will vary and memory may run out; nvidia-smi shows who, cuda:N takes another"
        )
        return Check(name=name, status=WARNING, found=found, remedy=remedy)
    return Check(name=name, status=OK, found=found)


def gpus_in_use(driver: Driver, session: SessionProbe) -> tuple[list[int], str]:
    """Indices of the GPUs that a session can run on; without any, why."""
    if session.ran_on and session.ran_on[0] == _CUDA:
        return [one.index for one in driver.gpus], ""
    if driver.gpus:
        return [], "CUDA does not work here, see the lines above"
    return [], "no CUDA device"
