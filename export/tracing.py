"""What both exports share: the model is run once on example tensors and the operations are recorded.

Known warnings are silenced by category and text, nothing else: a data-dependent branch in a user's
architecture still warns. Whether the recording generalises is not believed but measured, by `export.parity`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

OUTPUTS = ("forecast", "demand")

_KNOWN: tuple[tuple[type[Warning], str], ...] = (
    # The legacy ONNX exporter and TorchScript work from torch 2.6 to 2.13; both are announced to go.
    (DeprecationWarning, r"You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, r"The feature will be removed\. Please remove usage of this function"),
    (DeprecationWarning, r"`torch\.jit\.(trace|trace_method|save|load)` is (deprecated|not supported)"),
    # True of variable-length sequences; ours are fixed, and the parity gate runs other batch sizes.
    (UserWarning, r"Exporting a model to ONNX with a batch_size other than 1, with a variable length with"),
    # Of the dynamo exporter, about its own code, about recurrent layers of torch, and that two inputs share the batch.
    (FutureWarning, r"_check_is_size will be removed in a future PyTorch release"),
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"The tensor attributes? self\.[\w.]*_flat_weights\[0\]"),
    (UserWarning, r"# The axis name: batch will not be used, since it shares the same shape constraints"),
)


def named_outputs(
    found: torch.Tensor | tuple[torch.Tensor, ...], names: Sequence[str] = OUTPUTS
) -> dict[str, torch.Tensor]:
    """What a model's forward gave, by the names that the outputs have in the graph.

    Args:
        found: forecast (B, H, C, Q), or a tuple of it and demand (B, H, 2C, Q).
        names: of them in order; fewer may be there.
    """
    return dict(zip(names, found if isinstance(found, tuple) else (found,), strict=False))


@contextmanager
def known_warnings_silenced() -> Iterator[None]:
    """Silence the deprecations of the exporters, and shape checks inside torch's own modules."""
    with warnings.catch_warnings():
        for category, message in _KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        # Shape checks of torch.nn's layers, which torch too ignores: `TracerWarning.ignore_lib_warnings`.
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.nn\.")
        yield


@contextmanager
def tracing() -> Iterator[None]:
    """Record without gradients and without the fused encoder kernel, which no exporter knows."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with known_warnings_silenced(), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
