"""What training takes of the machine: memory, and of a GPU how busy it is. The GPU's lines were not run on one."""

from __future__ import annotations

import psutil
import torch


def memory_bytes(device: torch.device) -> int:
    """Bytes that this process holds: of the GPU that it trains on, else of main memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(psutil.Process().memory_info().rss)


def utilization_percent(index: int) -> tuple[int | None, str]:
    """How busy a GPU is, all processes together, from NVML; where that can't be asked None, and the reason."""
    try:
        return int(torch.cuda.utilization(index)), ""
    except (ImportError, RuntimeError, OSError) as error:
        return None, str(error)
    except Exception as error:  # pynvml's own errors stand under Exception alone
        return None, f"NVML: {error}"


def usage_text(device: torch.device) -> str:
    """For a line of progress: `1.2 GB`; on a GPU, of the whole of it, `12/80 GB 97%`."""
    if device.type != "cuda":
        return f"{memory_bytes(device) / 1e9:.1f} GB"
    free, total = torch.cuda.mem_get_info(device)
    busy, _ = utilization_percent(device.index or 0)
    return f"{(total - free) / 1e9:.0f}/{total / 1e9:.0f} GB" + ("" if busy is None else f" {busy}%")
