"""What one live stream remembers, made new, written into a snapshot and read from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .adaptive import AdaptiveQuantiles
from .breaker import Breaker
from .carried import Carried
from .errors import InputError
from .fields import show
from .forecast import Forecast
from .inputs import seconds
from .judge import Judge
from .manifest import MAX_STATE, Manifest
from .ring import Ring
from .snapshot import Numbers, Snapshot
from .stream import Stream, open_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODELS = ("model", "model:stateful")
_SOURCES = (*_MODELS, *(f"{model}+adaptive" for model in _MODELS), "fallback:empirical", "fallback:prior")


class Memory(NamedTuple):
    """All that the next forecast of a stream depends on, but the model."""

    stream: Stream
    adaptive: AdaptiveQuantiles | None
    standing: tuple[int, Manifest, Forecast] | None
    """The last forecast, and what it was made for: the revision of the stream, and the model by its manifest."""
    breaker: Breaker | None
    """Of the model in service when it was last asked; it does not go on with another one."""
    carried: Carried | None
    """Before a stateful model, what the next forecast goes on from; it does not go on with another one either."""


def open_memory(manifest: Manifest, *, adapt: bool, breaker: bool) -> Memory:
    """That of a stream which has seen nothing."""
    m, keep, adaptive = manifest, manifest.context, None
    if adapt:
        ratio = m.steps_per_forecast_step
        keep = _kept_to_adapt(m)
        adaptive = AdaptiveQuantiles(m.levels, horizon=m.horizon, channels=len(m.channels), ratio=ratio)
    if breaker:
        keep = max(keep, Judge.keep(m))
    return Memory(open_stream(m, keep=keep), adaptive, None, Breaker(m) if breaker else None, None)


def _kept_to_adapt(manifest: Manifest) -> int:
    return max(manifest.context, manifest.horizon * manifest.steps_per_forecast_step)


def write(memory: Memory, manifest: Manifest, numbers: Numbers) -> dict[str, Any]:
    """Its single values, for JSON; its arrays go to `numbers`. What stands is left out if it is another model's."""
    stream, adaptive, standing, breaker, carried = memory
    rows = stream.steps.last()
    numbers.put(rows)
    state = {"seen": stream.steps.seen, "rows": len(rows), "stream": stream.state()}
    state |= {"adaptive": None, "standing": None, "breaker": None}
    if adaptive is not None:
        state["adaptive"] = adaptive.state(numbers)
    if standing is not None and standing[0] == stream.revision and standing[1] is manifest:
        forecast = standing[2]
        numbers.put(forecast.values)
        if forecast.aggregates is not None:
            numbers.put(forecast.aggregates)
        state["standing"] = [forecast.source, forecast.start_s, forecast.aggregates is not None]
    if breaker is not None and breaker.judge.manifest is manifest:
        state["breaker"] = breaker.state(stream.steps, numbers)
    steps = stream.steps
    since = None if carried is None else carried.steps_since(manifest, clears=steps.clears, seen=steps.seen)
    if carried is not None and since is not None:
        numbers.put(carried.state)
        state["carried"] = [since, len(carried.state)]
    return state


def read_all(snapshot: Snapshot, manifest: Manifest, *, adapt: bool, breaker: bool) -> list[Memory]:
    """Those of all streams of a snapshot, one at least.

    Args:
        snapshot: opened with the same manifest and `adapt`.
        manifest: of the model before which the streams go on.
        adapt: whether they adapt.
        breaker: whether they have one; closed and new if those of the snapshot have none.

    Raises:
        InputError: not what `write` writes.
    """
    if not snapshot.streams:
        raise InputError("snapshot: expected a stream, got none; take another snapshot")
    found = [_read(state, snapshot.numbers, manifest, adapt=adapt, breaker=breaker) for state in snapshot.streams]
    snapshot.numbers.finish()
    if not snapshot.same_model:  # what stood, how it turned out and what was carried is the other model's own
        return [m._replace(standing=None, breaker=Breaker(manifest) if breaker else None, carried=None) for m in found]
    return found


def _read(state: Mapping[str, Any], numbers: Numbers, manifest: Manifest, *, adapt: bool, breaker: bool) -> Memory:
    remembered = open_memory(manifest, adapt=adapt, breaker=breaker)
    stream, adaptive = remembered.stream, remembered.adaptive
    judged = Breaker(manifest)
    try:
        seen = state["seen"]
        if type(seen) is not int or seen < 0:
            raise InputError(f"snapshot: expected steps seen, got {show(seen)}")
        # Version 1 does not say how many steps it kept.
        count = state["rows"] if "rows" in state else min(seen, _kept_to_adapt(manifest) if adapt else manifest.context)
        if type(count) is not int or not min(seen, manifest.context) <= count <= seen:
            raise InputError(f"snapshot: expected the last steps of {seen}, got {show(count)} of them")
        kept = numbers.take((count, len(manifest.channels)), np.float32, low=0.0)
        # Where more are kept here, with a breaker, the oldest are not known, and nothing asks for them.
        rows = np.zeros((min(seen, stream.steps.length), kept.shape[1]), dtype=np.float32)
        rows[max(0, len(rows) - count) :] = kept[max(0, count - len(rows)) :]
        stream.steps.fill(rows, seen)
        stream.resume(state["stream"])
        if adaptive is not None:
            adaptive.resume(state["adaptive"], numbers, seen)
        standing = state["standing"]
        arrays = None if standing is None else _standing(standing, numbers, manifest)
        if state.get("breaker") is not None:
            judged.resume(state["breaker"], numbers)
        if breaker:
            remembered = remembered._replace(breaker=judged)
        if state.get("carried") is not None:
            remembered = remembered._replace(carried=_carried(state["carried"], numbers, manifest, stream.steps))
        if standing is None:
            return remembered
        source, start_s, _ = standing
        if source not in _SOURCES and (judged.instead is None or source != judged.instead.source):
            raise InputError(f"snapshot: expected a source, got {show(source)}")
        if start_s is not None:
            start_s = seconds("snapshot: start_s", start_s)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"snapshot: expected a stream's values, got {type(error).__name__} on {show(str(error))}"
        ) from None
    assert arrays is not None
    forecast = Forecast.of(manifest, arrays[0], start_s=start_s, source=source, aggregates=arrays[1])
    return remembered._replace(standing=(stream.revision, manifest, forecast))


def _standing(
    standing: tuple[str, float | None, bool], numbers: Numbers, manifest: Manifest
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    _, _, has_aggregates = standing
    shape = manifest.horizon, len(manifest.channels), len(manifest.levels)
    values = numbers.take(shape, np.float32, low=0.0)
    if not has_aggregates:
        return values, None
    return values, numbers.take((shape[0], 2 * shape[1], shape[2]), np.float32, low=0.0)


def _carried(said: tuple[int, int], numbers: Numbers, manifest: Manifest, steps: Ring) -> Carried:
    since, size = said
    if type(since) is not int or not 0 <= since <= steps.seen or type(size) is not int or not 0 < size <= MAX_STATE:
        raise InputError(f"snapshot: expected a state and the steps since it, got {show(said)}")
    return Carried(manifest, steps.clears, steps.seen - since, numbers.take((size,), np.float32))
