"""The scale on which a difference is judged: y / unit on a log scale, on which the models work.

There, a difference of e is one of e * (|y| + unit) in raw units: relative for large values, absolute near zero.

Axes: H horizon, C channels, V channels of an output: C, or 2C for sums and peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from training.quantile_model import QuantileModel


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingScale:
    """Of each output (H, V, 1), raw units."""

    unit: dict[str, np.ndarray]
    """What counts as small; of a sum over h steps, h times that of one."""
    least: dict[str, np.ndarray]
    """What the model rounds down to none below, half a request; 0 where it does not."""

    def across_the_step(self, output: str, got: np.ndarray, want: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Where one side rounded down to none and the other, as near to the step as the limit allows, did not."""
        least = self.least[output]
        there = ((want == 0) & (np.abs(got - least) <= limit)) | ((got == 0) & (np.abs(want - least) <= limit))
        return np.asarray((least > 0) & there)


def working_scale(model: nn.Module, *, horizon: int, channel_scale: Sequence[float]) -> WorkingScale:
    """The scale of a trained model.

    Args:
        model: a forecaster; of anything else, such as a simple baseline, the unit is the channel's mean.
        horizon: H.
        channel_scale: mean of each channel.
    """
    unit, least = np.asarray(channel_scale, np.float64), np.zeros(len(channel_scale))
    if isinstance(model, QuantileModel):
        unit, least = (t.detach().cpu().double().numpy() for t in (model.scaling.unit, model.scaling.least))
    steps = np.arange(1.0, horizon + 1)[:, None, None]

    def per_output(values: np.ndarray) -> dict[str, np.ndarray]:
        single = np.broadcast_to(values[:, None], (horizon, len(values), 1))
        return {"forecast": single, "demand": np.concatenate((single * steps, single), axis=1)}

    return WorkingScale(unit=per_output(unit), least=per_output(least))
