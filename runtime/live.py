"""One live stream of traffic before a model: what was observed, the standing forecast, the correction under drift."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from . import memory
from .breaker import Breaker, Instead
from .carried import STATE, Carried, answer
from .deadline import deadline, forecast_in_time
from .fallback import fallback
from .forecast import Forecast
from .judge import WINDOW
from .manifest import Manifest
from .memory import Memory
from .model import Model
from .rivals import rivals_of
from .serving import Serving
from .snapshot import Numbers, pack, unpack
from .stream import Stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# The last n <= L steps (n, C), time_s, whether to ask the model; then what only `settle` reads: the stream, its
# revision, steps.seen, steps.clears, start_s, the model's manifest, who speaks in the model's place; and what is
# carried, which the model is asked with. A plain tuple, as one with names takes 0.3 µs more for each forecast.
Asked: TypeAlias = (
    "tuple[NDArray[np.float32], float | None, bool, Stream, int, int, int, float | None, Manifest, Instead | None, "
    "Carried | None]"
)


class LiveStream:
    """What `Predictor` says of observe, observe_bin and forecast, for one stream.

    One lock guards it, which is never held while the model runs.

    Args:
        serving: who is asked.
        adapt: correct the forecasts by how those before turned out.
        breaker: judge them, and leave the model while it is measurably worse than a simple forecast.
    """

    __slots__ = "__weakref__", "_adaptive", "_breaker", "_carried", "_lock", "_serving", "_standing", "_stream"

    def __init__(self, serving: Serving, *, adapt: bool, breaker: bool) -> None:
        self._serving = serving
        self._lock = threading.Lock()
        self._stream, self._adaptive, self._standing, self._breaker, self._carried = memory.open_memory(
            serving.model.manifest, adapt=adapt, breaker=breaker
        )

    def observe(
        self, timestamp_s: float, request_tokens: float | None = None, response_tokens: float | None = None
    ) -> None:
        """See `Predictor.observe`."""
        with self._lock:
            self._stream.observe(timestamp_s, request_tokens, response_tokens)
            if self._adaptive is not None:
                self._adaptive.follow(self._stream.steps)
        if self._serving.model.clock_due:
            self._serving.model.look_at_clock(float(timestamp_s))

    def observe_bin(
        self,
        start_s: float,
        requests: float,
        request_tokens: float | None = None,
        response_tokens: float | None = None,
    ) -> None:
        """See `Predictor.observe_bin`."""
        with self._lock:
            self._stream.observe_bin(start_s, requests, request_tokens, response_tokens)
            if self._adaptive is not None:
                self._adaptive.follow(self._stream.steps)
        if self._serving.model.clock_due:
            self._serving.model.look_at_clock(float(start_s))

    def forecast(self, now_s: float | None = None, deadline_s: float | None = None) -> Forecast:
        """See `Predictor.forecast`."""
        until = None if deadline_s is None else deadline(deadline_s)
        model = self._serving.model  # once: a swap meanwhile is the next forecast's
        asked = self.ask(model.manifest, now_s)
        if isinstance(asked, Forecast):
            return asked
        if until is not None and asked[2]:
            return forecast_in_time(model, self, asked, until)
        return self.finish(model, asked)

    def finish(self, model: Model, asked: Asked) -> Forecast:
        """Ask the model, where that is what `ask` found to be done, and settle."""
        return self.settle(asked, answer(model, asked) if asked[2] else None)

    def instead(self, asked: Asked) -> Forecast:
        """What stands in for an answer that is late: the model's last one while it reaches ahead, or the fallback."""
        history, _, _, stream, revision, seen, _, start_s, manifest, instead, _ = asked
        if instead is not None:
            values = rivals_of(manifest).forecast(instead.rival, history)
            return Forecast.of(manifest, values, start_s=start_s, source=instead.source, aggregates=None)
        with self._lock:
            before, _, standing = self._standing or (0, None, None)
            if self._stream is not stream:
                standing = None
        # No more revisions than steps seen: it is from after the last gap.
        if standing is not None and standing.source.startswith("model") and revision - before <= seen:
            if standing.step_s is None or standing.start_s is None or start_s is None:
                reaches = revision - before < len(standing.values)
            else:
                reaches = start_s < standing.start_s + len(standing.values) * standing.step_s
            if reaches:
                return replace(standing, source=f"standing:{standing.source}")
        values, source = fallback(history, manifest, seen=seen)
        return Forecast.of(manifest, values, start_s=start_s, source=source, aggregates=None)

    def ask(self, manifest: Manifest, now_s: float | None) -> Forecast | Asked:
        """The first half of `forecast`: the one of this model that stands, or what it must be asked for another."""
        with self._lock:
            stream = self._stream
            if now_s is not None:
                stream.advance(now_s)
                if self._adaptive is not None:
                    self._adaptive.follow(stream.steps)
            revision, standing = stream.revision, self._standing
            if standing is not None and standing[0] == revision and standing[1] is manifest:
                return standing[2]
            steps, context = stream.steps, manifest.context
            seen, clears, history = steps.seen, steps.clears, steps.last(context).copy()
            ask, instead, breaker = seen >= context, None, self._breaker
            if ask and breaker is not None:
                if breaker.judge.manifest is not manifest and self._serving.model.manifest is manifest:
                    breaker = self._breaker = Breaker(manifest)  # another model came into service
                if breaker.judge.manifest is manifest:
                    instead = breaker.look(steps)
                    ask = instead is None or breaker.judge.due(seen, clears)
            question = history, stream.time_s, ask, stream, revision, seen, clears, stream.start_s, manifest
            return *question, instead, self._carried

    def settle(self, asked: Asked, found: dict[str, NDArray[np.float32]] | None) -> Forecast:
        """The second half: the forecast made of what the model said, or without it, which stands from now on."""
        history, _, _, stream, revision, seen, clears, start_s, manifest, instead, _ = asked
        aggregates: NDArray[np.float32] | None = None
        if instead is not None:
            values, source = rivals_of(manifest).forecast(instead.rival, history), instead.source
        elif found is None:
            values, source = fallback(history, manifest, seen=seen)
        else:
            values, aggregates = found["forecast"], found.get("demand")
            source = "model:stateful" if STATE in found else "model"
        with self._lock:
            if self._stream is not stream:  # restored meanwhile: this one is of a past that is no more
                return Forecast.of(manifest, values, start_s=start_s, source=source, aggregates=aggregates)
            if found is not None and STATE in found and self._serving.model.manifest is manifest:
                self._carried = Carried.newer(self._carried, Carried(manifest, clears, seen, found[STATE]))
            standing = self._standing
            if standing is not None and standing[0] == revision and standing[1] is manifest:
                return standing[2]  # another thread was faster
            if found is not None:
                said = found["forecast"]
                if self._adaptive is not None:
                    # What was finished while the model ran is not judged, nor anything from before a gap.
                    steps = stream.steps
                    late = steps.seen - seen if steps.clears == clears else steps.length
                    said = self._adaptive.adjust(said, late=late)
                    if instead is None:
                        values, source = said, f"{source}+adaptive"
                if (breaker := self._breaker) is not None and breaker.judge.manifest is manifest:
                    breaker.judge.take(said, history, seen=seen, clears=clears)
            forecast = Forecast.of(manifest, values, start_s=start_s, source=source, aggregates=aggregates)
            # One of a model that has left meanwhile is given and does not stand.
            if (standing is None or standing[0] <= revision) and self._serving.model.manifest is manifest:
                self._standing = (revision, manifest, forecast)
        self._serving.model.stats.count_source(source)
        return forecast

    def judged(self, manifest: Manifest) -> tuple[NDArray[np.float64], bool]:
        """Scores of this model's last forecasts, as `Judge.rows`, and whether a rival speaks in its place."""
        with self._lock:
            breaker = self._breaker
            if breaker is None or breaker.judge.manifest is not manifest:
                breaker = Breaker(manifest)
            return breaker.judge.rows(WINDOW), breaker.instead is not None

    def snapshot(self) -> bytes:
        """What this stream remembers, as `Predictor.snapshot` gives it for all streams."""
        numbers, manifest = Numbers(), self._serving.model.manifest
        return pack("stream", [self.write(manifest, numbers)], numbers, manifest, adapt=self._adaptive is not None)

    def restore(self, data: bytes) -> None:
        """Go on from the snapshot of one stream, of any predictor with the same contract.

        Raises:
            InputError: as `Predictor.restore`.
        """
        adapt, manifest = self._adaptive is not None, self._serving.model.manifest
        found = unpack(data, of="stream", manifest=manifest, adapt=adapt)
        self.resume(memory.read_all(found, manifest, adapt=adapt, breaker=self._breaker is not None)[0])

    def write(self, manifest: Manifest, numbers: Numbers) -> dict[str, Any]:
        """See `memory.write`."""
        with self._lock:
            remembered = Memory(self._stream, self._adaptive, self._standing, self._breaker, self._carried)
            return memory.write(remembered, manifest, numbers)

    def resume(self, remembered: Memory) -> None:
        """Go on from what another stream remembered; a forecast under way is given and not kept."""
        with self._lock:
            self._stream, self._adaptive, self._standing, self._breaker, self._carried = remembered
