"""How a Predictor uses a GPU, and what onnxruntime calls these options."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaOptions:
    """How a Predictor uses a GPU; without effect on the CPU. Which GPU is in `device`, `cuda:1`."""

    graph: bool = False
    """Record the run for one window as a CUDA graph and replay it: less to launch. Runs then go one at a time."""
    memory_limit_bytes: int | None = None
    """What onnxruntime may take of the GPU's memory for this model's arena; None for all. Libraries come on top."""
    stream: int | None = None
    """Address of a cudaStream_t of the host to run on; it must outlive the Predictor. None for one of its own."""

    def __post_init__(self) -> None:
        """Check every field."""
        if type(self.graph) is not bool:
            raise InputError(f"cuda graph: expected True or False, got {self.graph!r}")
        for name in ("memory_limit_bytes", "stream"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value < 2**63):
                raise InputError(f"cuda {name}: expected a whole number from 1, or None, got {value!r}")


def provider_options(index: int, options: CudaOptions) -> dict[str, str]:
    """Options of onnxruntime's CUDAExecutionProvider; `benchmarks/cuda_options.py` looks for each in a wheel."""
    found = {
        "device_id": str(index),
        "use_tf32": "0",  # or parity drifts
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if options.memory_limit_bytes is not None:
        found["gpu_mem_limit"] = str(options.memory_limit_bytes)
    if options.stream is not None:
        found["user_compute_stream"] = str(options.stream)
    if options.graph:
        found["enable_cuda_graph"] = "1"
    return found
