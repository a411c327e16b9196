"""An artifact's TorchScript file as a subject of `fcast-bench`, found by the runtime as an entry point."""

from __future__ import annotations

import io
import itertools
import warnings
from typing import TYPE_CHECKING, Any

from runtime.artifact import MAX_GRAPH_BYTES, Artifact
from runtime.bench import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "model.pt"


def why_no_torchscript(artifact: Artifact) -> str | None:
    """What is missing to time TorchScript, or None."""
    if FILE not in artifact.manifest.files:
        return f"the artifact has no {FILE}; fcast-export --format onnx --format torchscript"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed"
    return None


def torchscript_subject(
    artifact: Artifact, contexts: NDArray[np.float32], times: NDArray[np.float64] | None, *, threads: int
) -> Subject:
    """model.pt, frozen, in inference mode, on the CPU.

    Args:
        artifact: with a model.pt; torch is installed.
        contexts: (B, L, C).
        times: (B,), where the model takes them.
        threads: of torch, in this process.
    """
    import torch

    load: Any = torch.jit.load
    torch.set_num_threads(threads)
    content = artifact.read(FILE, max_bytes=MAX_GRAPH_BYTES)
    arrays = [contexts.copy()] + ([] if times is None else [times.copy()])
    given = tuple(torch.from_numpy(array) for array in arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so at every step
        module: Any = torch.jit.freeze(load(io.BytesIO(content), map_location="cpu").eval())

    @torch.inference_mode()
    def call(*inputs: Any) -> Any:
        return module(*inputs)

    # The first calls compile; they are many more than a round warms up with.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20):
            call(*given)
    return Subject(
        name="torchscript",
        call=call,
        arguments=lambda calls: itertools.repeat(given, calls),
        windows=len(contexts),
        share=0.1,
    )
