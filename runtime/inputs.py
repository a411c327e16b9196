"""Checks of what a caller hands in: one number, one window, one time. All of them look and change nothing."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .fields import show
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VALUE = float(np.finfo(np.float32).max)
"""The largest number a context can hold."""
MAX_TIME_S = float(1 << 53)
"""Beyond it a float64 no longer tells one second from the next."""


def number(name: str, value: Any, *, low: float = 0.0, high: float = MAX_VALUE) -> float:
    """A number within bounds, of any real type but bool, as a float.

    Raises:
        InputError: not a number, not finite, or out of bounds.
    """
    if type(value) is float and low <= value <= high:  # the way of the hot loop
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:  # a whole number beyond float64
            found = math.inf
        if low <= found <= high:
            return found
    raise InputError(f"{name}: expected a finite number from {low:g} to {high:g}, got {show(value)}")


def seconds(name: str, value: Any) -> float:
    """A time in seconds as a float64.

    Raises:
        InputError: not a number, not finite, beyond 2**53, or of a type too coarse for epoch seconds.
    """
    if type(value) is float and -MAX_TIME_S <= value <= MAX_TIME_S:
        return value
    if isinstance(value, (np.float32, np.float16)):
        raise InputError(f"{name}: expected float64 seconds, got {type(value).__name__}, which cannot hold a time")
    return number(name, value, low=-MAX_TIME_S, high=MAX_TIME_S)


def window(context: Any, manifest: Manifest) -> NDArray[np.float32]:
    """The context of `predict` as a contiguous (B, L, C) array.

    Raises:
        InputError: not a float32 array of (L, C) or (B, L, C), or a value is negative or not finite.
    """
    expected = f"float32 ({manifest.context}, {len(manifest.channels)}) or (batch, {manifest.context}, ...)"
    if type(context) is not np.ndarray and (not isinstance(context, np.ndarray) or hasattr(context, "mask")):
        raise InputError(
            f"context: expected a numpy array, {expected}, got {type(context).__name__}; "
            "use np.asarray(context, dtype=np.float32)"
        )
    if context.dtype != np.float32:
        raise InputError(f"context: expected {expected}, got {context.dtype}; use context.astype(np.float32)")
    steps, channels = manifest.context, len(manifest.channels)
    if context.ndim not in (2, 3) or context.shape[-2:] != (steps, channels) or context.size == 0:
        raise InputError(
            f"context: expected shape ({steps}, {channels}) or (batch, {steps}, {channels}), "
            f"got {context.shape}; the last {steps} steps, oldest first"
        )
    # A NaN makes both comparisons false.
    if not (context.min() >= 0 and context.max() <= MAX_VALUE):
        bad = ~((context >= 0) & (context <= MAX_VALUE))
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"context{list(where)}: expected finite numbers from 0 in channel "
            f"'{manifest.channels[where[-1]]}', got {context[where]}"
        )
    return np.ascontiguousarray(context).reshape(-1, steps, channels)


def window_times(time_s: Any, manifest: Manifest, *, batch: int | None) -> NDArray[np.float64] | None:
    """The time of each window's last step, as (B,) float64; None for a graph that takes none.

    Args:
        time_s: as given to `predict`.
        manifest: says whether the graph takes it.
        batch: B, or None for a context without a batch axis.

    Raises:
        InputError: given but not taken, taken but not given, or no finite float64 times of the right number.
    """
    if not manifest.takes_time:
        if time_s is not None:
            raise InputError(f"time_s: expected None, as '{manifest.name}' has no clock, got {show(time_s)}")
        return None
    if time_s is None:
        raise InputError(
            f"time_s: expected the {manifest.clock} time of the last step in seconds, as '{manifest.name}' has a "
            "clock, got None"
        )
    if not isinstance(time_s, (np.ndarray, list, tuple)):
        return np.full(batch or 1, seconds("time_s", time_s))
    times = np.asarray(time_s)
    if times.dtype.kind not in "fiu" or times.dtype in (np.float32, np.float16):
        raise InputError(f"time_s: expected float64 seconds, got {times.dtype}")
    if times.shape not in (((batch,), ()) if batch else ((), (1,))):
        wanted = f"a number or ({batch},)" if batch else "a number"
        raise InputError(f"time_s: expected {wanted} for this context, got shape {times.shape}")
    times = np.array(np.broadcast_to(times.reshape(-1), (batch or 1,)), dtype=np.float64)
    if not (np.abs(times) <= MAX_TIME_S).all():
        raise InputError(f"time_s: expected finite seconds up to {MAX_TIME_S:g}, got {show(time_s)}")
    return times
