"""Every device-dependent decision of the training side. The CUDA branches have not been run on a real GPU."""

from __future__ import annotations

import ctypes
import logging
import resource
import sys
from pathlib import Path

import psutil
import torch

from training.errors import ConfigError, DeviceError
from training.world import this_world

_log = logging.getLogger(__name__)
_SERIES_SHARE = 0.5
"""Of the free memory of a GPU that a series may take; the rest is for weights, activations and other processes."""
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Limit and use of a container's memory, versions 2 and 1."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def resolve_device(name: str) -> torch.device:
    """Turn a name into a device that is really there; under `torchrun`, this process's own.

    Args:
        name: "auto" (CUDA, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ConfigError: not such a name, or one that several processes can't share.
        DeviceError: the device is not there; the message says what is missing.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got '{name}'; correct --device")
    world = this_world()
    if world.size > 1 and (index or kind == "mps"):
        raise ConfigError(
            f"device: expected auto, cpu or cuda for the {world.size} processes of torchrun, got '{name}'; "
            "each process takes the GPU of its number"
        )
    index = index or str(world.local_rank)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        if torch.version.cuda is None:
            missing = f"torch {torch.__version__}, built without CUDA; install a CUDA build of torch"
        elif not torch.cuda.is_available():
            missing = f"torch for CUDA {torch.version.cuda} that finds no usable GPU; check the driver with nvidia-smi"
        elif int(index) >= torch.cuda.device_count():
            remedy = "use a smaller index" if world.size == 1 else "give torchrun a smaller --nproc_per_node"
            missing = f"{torch.cuda.device_count()} GPU(s); {remedy}"
        else:
            return torch.device("cuda", int(index))
        raise DeviceError(f"device {name}: expected a CUDA GPU, got {missing}, or use device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"device mps: expected an Apple GPU, got torch {torch.__version__} that finds none; use device cpu"
        )
    return torch.device(kind)


def half_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type of the architecture's products; None for 32 bits.

    Args:
        precision: "fp32"; "bf16" or "fp16", on a device that has them; or "amp", which takes what the device is good
            at: bfloat16 on CUDA from compute capability 8.0 and on CPUs with instructions for it, float16 on older
            GPUs, and elsewhere nothing, which the log says.
        device: to train on.

    Raises:
        DeviceError: bf16 or fp16 is asked of a device that lacks it.
    """
    if precision == "fp32":
        return None
    best = _best_half(device)
    if precision == "amp":
        if best is None:
            _log.warning(
                "precision amp: expected a device with 16-bit matrix products, got %s without; training stays in fp32",
                device,
            )
        return best
    if precision == "bf16":
        if device.type == "cpu" or best is torch.bfloat16:  # a CPU without instructions for it is slow, but right
            return torch.bfloat16
        raise DeviceError(
            f"precision bf16: expected a CPU or a GPU of compute capability 8.0 or newer, got {device}; "
            "use --set precision=amp, which takes what the device has"
        )
    if device.type == "cuda":
        return torch.float16
    raise DeviceError(f"precision fp16: expected a CUDA GPU, got {device}; use --set precision=bf16 or fp32")


def _best_half(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.bfloat16 if device.type == "cpu" and supported is not None and supported() else None


def series_home(size_bytes: int, device: torch.device) -> torch.device:
    """Where a series lives: on the device, or in the host's memory when it would take too much of a GPU's."""
    if device.type != "cuda":
        return device
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if size_bytes <= _SERIES_SHARE * free_bytes:
        return device
    _log.warning(
        "series: expected at most half of the %s that are free on %s, got %s; it stays in the host's memory and every "
        "batch is copied through pinned memory",
        in_units(free_bytes),
        device,
        in_units(size_bytes),
    )
    return torch.device("cpu")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; from the host to a GPU through pinned memory, without waiting for the copy."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a training step draws from; `torch.manual_seed` takes 60 µs, this one."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, a GPU's or the host's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def free_cached_memory(device: torch.device) -> None:
    """Give back what nobody uses: torch's cache on a GPU, free pages of the C library on the CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if device.type == "cpu" and trim is not None:
        trim(0)


def used_bytes(device: torch.device) -> int:
    """What this process uses: resident memory on the CPU, what torch has reserved on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """The most that this process has used so far, as in `used_bytes`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def usable_bytes(device: torch.device) -> int:
    """What this process may use in all: what it has and what is free, within the limit of its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + used_bytes(device)
    free_bytes = int(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            left = int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
        except (OSError, ValueError):  # no such limit, or "max"
            continue
        free_bytes = min(free_bytes, max(left, 0))
    return free_bytes + used_bytes(device)


def in_units(size_bytes: float) -> str:
    """A size for people: 812 MB, 3.4 GB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
