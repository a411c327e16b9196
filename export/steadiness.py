"""Does a forecast depend on the windows that share its batch? In int8 it does, a little.

ONNX Runtime quantises the inputs of a matrix product with one step for the whole tensor, so the widest window of a
batch sets the step of all. What a window gives by itself is the reference here.

Models of a load series round what is less than half a request to none: a forecast just there may be either. Such a
jump is no error of a conversion, and is allowed for; golden windows are chosen without any.

Axes: n windows, H steps, C channels, Q levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.errors import ExportError, ParityError
from runtime import Predictor

Windows = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """How far the forecasts of a window may move with its company."""

    rtol: float
    atol: float
    """In units of a channel's scale."""
    scale: tuple[float, ...]
    """(C,) raw units: mean of each channel, which is the scale of its sums and peaks too."""
    least: np.ndarray
    """(C,) what the model rounds to none below, raw units."""

    def used(self, found: Outputs, alone: Outputs, *, jumps: bool) -> np.ndarray:
        """The largest part of the tolerance that each window uses: (n,).

        Args:
            found: outputs of windows in some batch.
            alone: the same windows, each by itself.
            jumps: whether a step between none and half a request is allowed.
        """
        worst = []
        for name, output in found.items():
            scale = np.resize(self.scale, (output.shape[2], 1))
            limit = self.atol * scale + self.rtol * np.abs(alone[name])
            if jumps:
                limit = limit + ((output == 0) != (alone[name] == 0)) * self._jump(name, output.shape[1])
            worst.append((np.abs(output - alone[name]) / limit).reshape(len(output), -1).max(1))
        return np.max(worst, axis=0)

    def _jump(self, output: str, horizon: int) -> np.ndarray:
        """(H, C or 2C, 1): of a sum, as many times as there are steps in it."""
        steps = np.arange(1, horizon + 1)[:, None]
        one = np.broadcast_to(self.least, (horizon, len(self.least)))
        return (one if output == "forecast" else np.concatenate((one * steps, one), axis=1))[..., None]


def run(predictor: Predictor, inputs: Windows, batch: int) -> Outputs:
    """Outputs of all windows, some at a time."""
    starts = range(0, len(inputs["context"]), batch)
    return _together(
        [predictor.predict_outputs(*(array[at : at + batch] for array in inputs.values())) for at in starts]
    )


def run_beside(predictor: Predictor, inputs: Windows, edges: Windows) -> Outputs:
    """Outputs of all windows, two at a time, with one edge window in each batch."""
    parts = []
    for at in range(0, len(inputs["context"]), 2):
        edge = {key: array[[at // 2 % len(array)]] for key, array in edges.items()}
        batch = [np.concatenate((array[at : at + 2], edge[key])) for key, array in inputs.items()]
        parts.append({name: output[:-1] for name, output in predictor.predict_outputs(*batch).items()})
    return _together(parts)


def require_steady(found: dict[int, Outputs], allowed: Steadiness, *, precision: str) -> float:
    """Pass when a window gives the same in every batch size; batch 1 is the reference.

    Returns:
        The largest part of the tolerance that was used.

    Raises:
        ParityError: some forecast moves further.
    """
    used = {batch: float(allowed.used(outputs, found[1], jumps=True).max()) for batch, outputs in found.items()}
    worst = max(used, key=lambda batch: used[batch])
    if not used[worst] <= 1:
        raise ParityError(
            f"precision: expected the forecasts of {precision} in batches of {worst} within the tolerance of those of "
            f"single windows, got {used[worst]:.1f} times the tolerance; nothing was published: export it as fp32"
        )
    return used[worst]


def golden_windows(
    predictor: Predictor, inputs: Windows, found: dict[int, Outputs], allowed: Steadiness, *, most: int
) -> dict[str, np.ndarray]:
    """Windows, evenly spread, that gave the same without a jump in every batch size, with their outputs.

    Raises:
        ExportError: there is none.
    """
    used = np.max([allowed.used(outputs, found[1], jumps=False) for outputs in found.values()], axis=0)
    steady = np.flatnonzero(used <= 1)
    picked = steady[np.linspace(0, len(steady) - 1, min(most, len(steady))).round().astype(np.int64)]
    while len(picked):
        windows = {key: array[picked] for key, array in inputs.items()}
        alone = {name: output[picked] for name, output in found[1].items()}
        good = allowed.used(predictor.predict_outputs(*windows.values()), alone, jumps=False) <= 1
        if good.all():
            return windows | alone
        picked = picked[good]  # a smaller batch is another one: run it again
    raise ExportError(
        "golden.npz: expected a window whose forecasts are the same in every batch, got none; export it as fp32"
    )


def _together(parts: list[Outputs]) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
