"""What an exported model is compared with: the trained model in float64, and how far float32 torch itself is from it.

Axes: n windows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from export.tracing import named_outputs

_CHUNK = 256

Outputs = dict[str, np.ndarray]  # forecast (n, H, C, Q) and, of a model that gives it, demand (n, H, 2C, Q)
Forecast = Callable[..., Outputs]  # of (context (n, L, C)[, time_s (n,)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Forecasts of the trained model for all windows."""

    precision: str
    """`float64`, or `float32` for a model that cannot run in float64."""
    exact: Outputs
    """float64 numbers, in that precision."""
    float32: Outputs
    """From the model as it was trained."""


def torch_forecast(model: nn.Module) -> Forecast:
    """A torch module as a function over numpy arrays, without gradients."""

    def forecast(*arrays: np.ndarray) -> Outputs:
        with torch.no_grad():
            found = named_outputs(model(*(torch.from_numpy(array) for array in arrays)))
        return {name: output.numpy() for name, output in found.items()}

    return forecast


def make_reference(model: nn.Module, windows: Sequence[np.ndarray]) -> Reference:
    """Run the trained model over windows.

    Args:
        model: in eval mode, on the CPU.
        windows: context (n, L, C) float32 and, if the model takes it, time_s (n,) float64.
    """
    float32 = _in_chunks(torch_forecast(model), windows)
    double = copy.deepcopy(model).double()
    context, *time_s = windows
    wide = [context.astype(np.float64), *time_s]
    try:
        with _Precisions() as seen:
            torch_forecast(double)(*(array[:2] for array in wide))
        if not seen.narrow:
            return Reference(precision="float64", exact=_in_chunks(torch_forecast(double), wide), float32=float32)
    except (RuntimeError, TypeError, ValueError):  # a constant of another type in forward, say
        pass  # float32 is what there is to compare with, and the report says so
    exact = {name: output.astype(np.float64) for name, output in float32.items()}
    return Reference(precision="float32", exact=exact, float32=float32)


def _in_chunks(forecast: Forecast, windows: Sequence[np.ndarray]) -> Outputs:
    parts = [forecast(*(array[at : at + _CHUNK] for array in windows)) for at in range(0, len(windows[0]), _CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Precisions(TorchDispatchMode):
    """Sees whether any operation of a model in float64 gave narrower numbers: then it is no float64 reference."""

    narrow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
                self.narrow = True
        return found
