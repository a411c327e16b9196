"""Every device-dependent line of the training side. The CUDA branches have not been run on a real GPU."""

from __future__ import annotations

import torch

from training.errors import ConfigError, DeviceError


def resolve_device(name: str) -> torch.device:
    """Turn a name into a device that is really there.

    Args:
        name: "auto" (CUDA, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: not such a name.
        DeviceError: the device is not there; the message says what is missing.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got '{name}'; correct --device")
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
        raise DeviceError(f"--device {name}: expected a CUDA GPU, got {missing}, or use --device cpu")
    return torch.device(kind)
