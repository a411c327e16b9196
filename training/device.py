"""Every device-dependent line of the training side. The CUDA branches have not been run on a real GPU."""

from __future__ import annotations

import logging

import torch

from training.errors import ConfigError, DeviceError

_log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Turn a name into a device that is really there.

    Args:
        name: "auto" (CUDA, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ConfigError: not such a name.
        DeviceError: the device is not there; the message says what is missing.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got '{name}'; correct --device")
    if kind == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if kind == "cuda":
        if torch.version.cuda is None:
            missing = f"torch {torch.__version__}, built without CUDA; install a CUDA build of torch"
        elif not torch.cuda.is_available():
            missing = f"torch for CUDA {torch.version.cuda} that finds no usable GPU; check the driver with nvidia-smi"
        elif int(index or 0) >= torch.cuda.device_count():
            missing = f"{torch.cuda.device_count()} GPU(s); use a smaller index"
        else:
            return torch.device("cuda", int(index or 0))
        raise DeviceError(f"device {name}: expected a CUDA GPU, got {missing}, or use device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"device mps: expected an Apple GPU, got torch {torch.__version__} that finds none; use device cpu"
        )
    return torch.device(kind)


def amp_dtype(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that `precision=amp` trains with on a device; None where that would gain nothing.

    bfloat16 on CUDA from compute capability 8.0, float16 on older GPUs, bfloat16 on CPUs with instructions for it.
    Elsewhere the log says why training stays in 32 bits.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if device.type == "cpu" and supported is not None and supported():
        return torch.bfloat16
    _log.warning(
        "precision amp: expected a device with 16-bit matrix products, got %s without; training stays in fp32", device
    )
    return None
