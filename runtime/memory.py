"""What one live stream remembers, made new, written into a snapshot and read from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .adaptive import AdaptiveQuantiles
from .errors import InputError
from .fields import show
from .forecast import Forecast
from .inputs import seconds
from .manifest import Manifest
from .snapshot import Numbers, Snapshot
from .stream import Stream, open_stream

_SOURCES = ("model", "model+adaptive", "fallback:empirical", "fallback:prior")


class Memory(NamedTuple):
    """All that the next forecast of a stream depends on, but the model."""

    stream: Stream
    adaptive: AdaptiveQuantiles | None
    standing: tuple[int, Manifest, Forecast] | None
    """The last forecast, and what it was made for: the revision of the stream, and the model by its manifest."""


def open_memory(manifest: Manifest, *, adapt: bool) -> Memory:
    """That of a stream which has seen nothing."""
    m, keep, adaptive = manifest, manifest.context, None
    if adapt:
        ratio = m.steps_per_forecast_step
        keep = max(keep, m.horizon * ratio)
        adaptive = AdaptiveQuantiles(m.levels, horizon=m.horizon, channels=len(m.channels), ratio=ratio)
    return Memory(open_stream(m, keep=keep), adaptive, None)


def write(memory: Memory, manifest: Manifest, numbers: Numbers) -> dict[str, Any]:
    """Its single values, for JSON; its arrays go to `numbers`. What stands is left out if it is another model's."""
    stream, adaptive, standing = memory
    numbers.put(stream.steps.last())
    state = {"seen": stream.steps.seen, "stream": stream.state(), "adaptive": None, "standing": None}
    if adaptive is not None:
        state["adaptive"] = adaptive.state(numbers)
    if standing is not None and standing[0] == stream.revision and standing[1] is manifest:
        forecast = standing[2]
        numbers.put(forecast.values)
        if forecast.aggregates is not None:
            numbers.put(forecast.aggregates)
        state["standing"] = [forecast.source, forecast.start_s, forecast.aggregates is not None]
    return state


def read_all(snapshot: Snapshot, manifest: Manifest, *, adapt: bool) -> list[Memory]:
    """Those of all streams of a snapshot, one at least.

    Args:
        snapshot: opened with the same manifest and `adapt`.
        manifest: of the model before which the streams go on.
        adapt: whether they adapt.

    Raises:
        InputError: not what `write` writes.
    """
    if not snapshot.streams:
        raise InputError("snapshot: expected a stream, got none; take another snapshot")
    found = [_read(state, snapshot.numbers, manifest, adapt=adapt) for state in snapshot.streams]
    snapshot.numbers.finish()
    if not snapshot.same_model:  # what stood is the other model's own
        return [Memory(stream, adaptive, None) for stream, adaptive, _ in found]
    return found


def _read(state: Mapping[str, Any], numbers: Numbers, manifest: Manifest, *, adapt: bool) -> Memory:
    stream, adaptive, _ = open_memory(manifest, adapt=adapt)
    try:
        seen = state["seen"]
        if type(seen) is not int or seen < 0:
            raise InputError(f"snapshot: expected steps seen, got {show(seen)}")
        rows = min(seen, stream.steps.length)
        stream.steps.fill(numbers.take((rows, len(manifest.channels)), np.float32, low=0.0), seen)
        stream.resume(state["stream"])
        if adaptive is not None:
            adaptive.resume(state["adaptive"], numbers, seen)
        standing = state["standing"]
        if standing is None:
            return Memory(stream, adaptive, None)
        source, start_s, has_aggregates = standing
        shape = manifest.horizon, len(manifest.channels), len(manifest.levels)
        values = numbers.take(shape, np.float32, low=0.0)
        aggregates = None
        if has_aggregates:
            aggregates = numbers.take((shape[0], 2 * shape[1], shape[2]), np.float32, low=0.0)
        if source not in _SOURCES:
            raise InputError(f"snapshot: expected a source, got {show(source)}")
        if start_s is not None:
            start_s = seconds("snapshot: start_s", start_s)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"snapshot: expected a stream's values, got {type(error).__name__} on {show(str(error))}"
        ) from None
    forecast = Forecast.of(manifest, values, start_s=start_s, source=source, aggregates=aggregates)
    return Memory(stream, adaptive, (stream.revision, manifest, forecast))
