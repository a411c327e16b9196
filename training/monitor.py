"""What the GPU does and how training went, printed and returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from training.usage import utilization_percent

if TYPE_CHECKING:
    from training.request_predictor import EnhancedRequestPredictor


def monitor_gpu_performance(device: int | None = None) -> dict[str, Any]:
    """Print and return name, memory and utilisation of a GPU; without one, say so.

    Args:
        device: index of the GPU; the current one if None.

    Returns:
        `cuda_available`, and with a GPU `device`, `memory_allocated_bytes`, `memory_cached_bytes` (both of this
        process), `memory_total_bytes` and `utilization_percent` (of the whole GPU, from NVML; None where that cannot be
        asked, and `utilization_error` says why).
    """
    if not torch.cuda.is_available():
        print("CUDA not available")
        return {"cuda_available": False}
    index = torch.cuda.current_device() if device is None else device
    facts: dict[str, Any] = {
        "cuda_available": True,
        "device": torch.cuda.get_device_name(index),
        "memory_allocated_bytes": int(torch.cuda.memory_allocated(index)),
        "memory_cached_bytes": int(torch.cuda.memory_reserved(index)),
        "memory_total_bytes": int(torch.cuda.get_device_properties(index).total_memory),
        "utilization_percent": None,
    }
    facts["utilization_percent"], reason = utilization_percent(index)
    if reason:
        facts["utilization_error"] = reason
    shown = facts["utilization_percent"]
    print(f"Device: {facts['device']}")
    print(f"Memory allocated: {facts['memory_allocated_bytes'] / 2**30:.2f} GiB")
    total = facts["memory_total_bytes"] / 2**30
    print(f"Memory cached: {facts['memory_cached_bytes'] / 2**30:.2f} of {total:.1f} GiB")
    print(f"Utilisation: {'unknown, ' + facts['utilization_error'] if shown is None else f'{shown} %'}")
    return facts


def monitor_training_progress(predictor: EnhancedRequestPredictor) -> dict[str, dict[str, Any]]:
    """Print and return how the training of every active model went.

    Returns:
        By name: `final_loss` and `best_loss` (wQL on validation) and `epochs_trained`; None before training.
    """
    facts: dict[str, dict[str, Any]] = {}
    for name, model in predictor.model_manager.active_models.items():
        history = getattr(model, "training_history", None) or {}
        facts[name] = {key: history.get(key) for key in ("final_loss", "best_loss", "epochs_trained")}
        if history:
            row = facts[name]
            print(f"{name}: loss {row['final_loss']}, best {row['best_loss']}, {row['epochs_trained']} epochs")
        else:
            print(f"{name}: not trained")
    return facts
