"""torch as a subject of `fcast-bench`: an artifact's TorchScript file, and the trained model it was exported from.

Found by the runtime as an entry point, since it may not import torch itself.
"""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.artifact import MAX_GRAPH_BYTES, Artifact
from runtime.bench import Subject
from runtime.errors import InputError, MissingDependencyError

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
    given = _tensors(contexts, times)
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
    return _subject("torchscript", call, given)


def eager_subject(
    run: str | os.PathLike[str],
    artifact: Artifact,
    contexts: NDArray[np.float32],
    times: NDArray[np.float64] | None,
    *,
    threads: int,
) -> Subject:
    """The trained model as torch has it, in inference mode, on the CPU.

    Args:
        run: the checkpoint that the artifact was exported from.
        artifact: as `torchscript_subject`.
        contexts: likewise.
        times: likewise.
        threads: likewise.

    Raises:
        InputError: the artifact was exported from another checkpoint.
        ValueError: the checkpoint is missing or damaged.
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"--checkpoint: expected torch installed, got {error}; pip install 'fcast[train]'"
        ) from None
    from training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(os.fspath(run))
    if checkpoint.sha256 != artifact.manifest.raw["checkpoint_sha256"]:
        raise InputError(
            f"--checkpoint: expected the one that {artifact.folder} was exported from, got another in {run}; "
            "give its run folder, or export again"
        )
    torch.set_num_threads(threads)
    model, given = checkpoint.model.eval(), _tensors(contexts, times)

    @torch.inference_mode()
    def call(*inputs: Any) -> Any:
        return model(*inputs)

    return _subject("torch, eager", call, given)


def _tensors(contexts: NDArray[np.float32], times: NDArray[np.float64] | None) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(array.copy()) for array in (contexts, times) if array is not None)


def _subject(name: str, call: Callable[..., object], given: tuple[Any, ...]) -> Subject:
    return Subject(
        name=name,
        call=call,
        arguments=lambda calls: itertools.repeat(given, calls),
        windows=len(given[0]),
        share=0.1,
    )
