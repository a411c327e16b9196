"""torch's own view of CUDA, for fcast-doctor, which finds this as an entry point. Not run on a GPU."""

from __future__ import annotations

import torch

from runtime.doctor import FAILED, OK, WARNING, Check
from runtime.doctor_probe import Driver, Gpu


def checks(driver: Driver) -> list[Check]:
    """Whether torch can train on the GPUs that the driver sees."""
    cuda = torch.version.cuda
    available = torch.cuda.is_available()
    return [judge(torch.__version__, cuda, available, torch.cuda.get_arch_list() if available else [], driver)]


def judge(version: str, cuda: str | None, available: bool, architectures: list[str], driver: Driver) -> Check:
    """The verdict on what torch said of itself.

    Args:
        version: of torch.
        cuda: CUDA version it was built with; None for a CPU build.
        available: whether it can use a GPU.
        architectures: what it holds code for: `sm_90` machine code, `compute_90` intermediate code.
        driver: what the driver says.
    """
    name, found = "torch", f"torch {version}, {f'built for CUDA {cuda}' if cuda else 'a CPU build'}"
    if cuda is None:
        if driver.gpus:
            remedy = "training runs on the CPU: install a CUDA build of torch to use the GPU"
            return Check(name=name, status=WARNING, found=found, remedy=remedy)
        return Check(name=name, status=OK, found=found)
    if not available:
        status = FAILED if driver.gpus else WARNING
        remedy = "see the driver's line; fcast-train --device cuda is refused until this works, auto takes the CPU"
        return Check(name=name, status=status, found=f"{found}, finds no usable GPU", remedy=remedy)
    without = [gpu for gpu in driver.gpus if not _has_code(gpu, architectures)]
    if without:
        names = ", ".join(f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]})" for gpu in without)
        remedy = "install a torch that has: its releases drop old GPUs and gain new ones"
        said = f"{found}, has code for {' '.join(architectures)}, none for {names}"
        return Check(name=name, status=FAILED, found=said, remedy=remedy)
    return Check(name=name, status=OK, found=f"{found}, has code for {' '.join(architectures)}")


def _has_code(gpu: Gpu, architectures: list[str]) -> bool:
    major, minor = gpu.capability
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
        if digits.isdecimal():
            a, b = divmod(int(digits), 10)
            if (a == major and b <= minor) if kind == "sm" else (a, b) <= (major, minor):
                return True
    return False
