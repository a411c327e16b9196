"""A loss that is no longer finite: found, and explained by what most likely brought it about."""

from __future__ import annotations

import math

import torch

from training.config import FitConfig
from training.windows import WindowSource

SLOWER = 0.1
"""Factor of the learning rate after a loss that was not finite."""


class NotFinite(Exception):  # noqa: N818 - it is news, not an error: training goes back first
    """The loss or its gradient is not finite.

    Attributes:
        picks: origins of the step's windows; none where it was validation that found it.
    """

    def __init__(self, loss: float, picks: torch.Tensor, *, epoch: int, step: int, rate: float) -> None:
        """Say where: a step of an epoch, both from 1, at a learning rate."""
        what = "a loss" if not math.isfinite(loss) else "a gradient"
        super().__init__(f"{what} that is not finite in epoch {epoch}, step {step} (learning rate {rate:.2g})")
        self.picks = picks


class Watch:
    """Losses and norms of gradients that nobody has looked at yet, still on the device."""

    def __init__(self) -> None:
        self._found: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def add(self, step: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Add those of a step."""
        self._found.append((step, loss, norm))

    def look(self) -> tuple[int, float] | None:
        """The first step not looked at yet whose loss or gradient is not finite, and its loss; waits for the device."""
        found, self._found = self._found, []
        if not found:
            return None
        losses = torch.stack([loss for _, loss, _ in found]).tolist()
        norms = torch.stack([norm for _, _, norm in found]).tolist()
        for (step, _, _), loss, norm in zip(found, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                return step, loss
        return None


def bad_window_s(found: NotFinite, source: WindowSource) -> float | None:
    """Time of the last context step of a window that holds a value that is not finite; None for no such window."""
    if not len(found.picks):
        return None
    context, time_s, target = source.gather(found.picks)
    bad = ~(context.isfinite().all(2).all(1) & target.isfinite().all(2).all(1))
    return float(time_s[bad.nonzero()[0, 0]]) if bad.any() else None


def likely_cause(fit: FitConfig, *, half: torch.dtype | None) -> str:
    """What most likely brought it about where the windows are finite."""
    if half is torch.float16:
        return "a product beyond the range of float16; --set precision=bf16 or fp32"
    if half is not None:
        return "16-bit products or a learning rate too high; --set precision=fp32, or lower --set learning_rate"
    return f"a learning rate too high for this trace; lower --set learning_rate (now {fit.learning_rate:g})"
