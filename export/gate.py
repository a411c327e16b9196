"""What is staged is run as it will be served and compared with the trained model, before anything is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export import parity
from export.errors import ExportError
from export.to_torchscript import load_torchscript
from runtime import FcastError, Predictor
from training.checkpoint import Checkpoint

TORCHSCRIPT = "model.pt"


def prove(
    checkpoint: Checkpoint, staged: Path, inputs: dict[str, np.ndarray], *, within: parity.Tolerance
) -> list[parity.Check]:
    """Compare every exported form in a folder with the trained model, each through what will serve it.

    Args:
        checkpoint: the trained model.
        staged: a folder with a manifest and model.onnx, and perhaps model.pt.
        inputs: real windows by input name.
        within: the tolerance.

    Raises:
        ParityError: some forecast is out of tolerance.
        ExportError: the runtime refuses the folder.
    """
    try:
        predictor = Predictor(staged, device="cpu")
        candidates = [
            parity.Candidate(format="onnx", provider=predictor.providers[0], forecast=predictor.predict_outputs)
        ]
        if (staged / TORCHSCRIPT).exists():
            script = parity.torch_forecast(load_torchscript(staged / TORCHSCRIPT))
            candidates.append(parity.Candidate(format="torchscript", provider="torch.jit cpu", forecast=script))
        checks = parity.compare(
            candidates,
            parity.torch_forecast(checkpoint.model),
            list(inputs.values()),
            within=within,
            channels=checkpoint.meta["channels"],
            levels=checkpoint.meta["levels"],
        )
    except FcastError as error:
        raise ExportError(f"runtime: {error}") from error
    parity.require_parity(checks)
    return checks
