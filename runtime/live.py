"""One live stream of traffic before a model: what was observed, the standing forecast, the correction under drift."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .adaptive import AdaptiveQuantiles
from .fallback import fallback
from .forecast import Forecast
from .model import Model
from .stream import open_stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LiveStream:
    """What `Predictor` says of observe, observe_bin and forecast, for one stream.

    One lock guards it, which is never held while the model runs.

    Args:
        model: who is asked.
        adapt: correct the forecasts by how those before turned out.
    """

    def __init__(self, model: Model, *, adapt: bool) -> None:
        m = model.manifest
        self._model, self._manifest = model, m
        self._lock = threading.Lock()
        self._adaptive = (
            AdaptiveQuantiles(m.levels, horizon=m.horizon, channels=len(m.channels), ratio=m.steps_per_forecast_step)
            if adapt
            else None
        )
        self._stream = open_stream(
            m, keep=max(m.context, m.horizon * m.steps_per_forecast_step) if adapt else m.context
        )
        self._standing: tuple[int, Forecast] | None = None

    def observe(
        self, timestamp_s: float, request_tokens: float | None = None, response_tokens: float | None = None
    ) -> None:
        """See `Predictor.observe`."""
        with self._lock:
            self._stream.observe(timestamp_s, request_tokens, response_tokens)
            if self._adaptive is not None:
                self._adaptive.follow(self._stream.steps)
        if self._model.clock_due:
            self._model.look_at_clock(float(timestamp_s))

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
        if self._model.clock_due:
            self._model.look_at_clock(float(start_s))

    def forecast(self, now_s: float | None = None) -> Forecast:
        """See `Predictor.forecast`."""
        with self._lock:
            if now_s is not None:
                self._stream.advance(now_s)
                if self._adaptive is not None:
                    self._adaptive.follow(self._stream.steps)
            stream, revision = self._stream, self._stream.revision
            if self._standing is not None and self._standing[0] == revision:
                return self._standing[1]
            seen, clears, start_s = stream.steps.seen, stream.steps.clears, stream.start_s
            time_s, history = stream.time_s, stream.steps.last(self._manifest.context).copy()

        manifest = self._manifest
        found = self._model.answer(history, time_s) if seen >= manifest.context else None
        aggregates: NDArray[np.float32] | None = None
        if found is None:
            values, source = fallback(history, manifest, seen=seen)
        else:
            values, source, aggregates = found["forecast"], "model", found.get("demand")
        with self._lock:
            if self._standing is not None and self._standing[0] == revision:
                return self._standing[1]  # another thread was faster
            if self._adaptive is not None and found is not None:
                # What was finished while the model ran is not judged, nor anything from before a gap.
                late = stream.steps.seen - seen if stream.steps.clears == clears else stream.steps.length
                values, source = self._adaptive.adjust(values, late=late), "model+adaptive"
            forecast = Forecast.of(manifest, values, start_s=start_s, source=source, aggregates=aggregates)
            if self._standing is None or self._standing[0] < revision:
                self._standing = (revision, forecast)
        return forecast
