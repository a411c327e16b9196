"""The Predictor: an artifact on a device, asked with windows or fed with a stream."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .adaptive import AdaptiveQuantiles
from .artifact import MAX_GRAPH_BYTES, open_artifact
from .device import Session, open_session
from .errors import ArtifactError
from .fallback import fallback
from .forecast import Forecast
from .inputs import window, window_times
from .manifest import Manifest
from .stream import open_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRAPH = "model.onnx"
_EPOCH_FROM_S = 1e8
"""Seconds below this (March 1973) count from something else than 1970."""


class Predictor:
    """Forecasts from one artifact.

    `predict` keeps nothing and may be called from any number of threads. `observe`, `observe_bin` and `forecast` work
    on one stream, behind one lock that is never held while the model runs. No method reads a file or the network. A
    model that takes epoch times warns once (RuntimeWarning) when the first one it gets is none.

    Args:
        path: `artifacts/<name>`, where the newest version is taken, or `artifacts/<name>/<version>`.
        version: take this version of `artifacts/<name>`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes CUDA where it works and says with a RuntimeWarning
            when it is built in and does not.
        threads: threads inside one operator; 1 is best for models of this size.
        adapt: correct the forecasts of the stream by how those before turned out, see `runtime.adaptive`. `predict`
            stays as it is.

    Raises:
        ArtifactError: the artifact is missing, damaged, altered or of a newer schema.
        DeviceError: CUDA was asked for and cannot run here.
        MissingDependencyError: onnxruntime is not installed.
        InputError: an argument is none of the above.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: int | None = None,
        device: str = "auto",
        threads: int = 1,
        adapt: bool = False,
    ) -> None:
        artifact = open_artifact(path, version=version)
        self._manifest: Manifest = artifact.manifest
        self._where = str(artifact.folder / _GRAPH)
        model = artifact.read(_GRAPH, max_bytes=MAX_GRAPH_BYTES)
        self._session: Session = open_session(model, self._manifest, device=device, threads=threads, where=self._where)
        self._lock = threading.Lock()
        m = self._manifest
        steps_ahead = m.horizon * m.steps_per_forecast_step
        self._adaptive = (
            AdaptiveQuantiles(m.levels, horizon=m.horizon, channels=len(m.channels), ratio=m.steps_per_forecast_step)
            if adapt
            else None
        )
        self._stream = open_stream(m, keep=max(m.context, steps_ahead) if adapt else m.context)
        self._standing: tuple[int, Forecast] | None = None
        self._warned = False
        self._clock_due = self._manifest.takes_time and self._manifest.clock == "epoch"  # first times to be looked at

    def __repr__(self) -> str:
        m = self._manifest
        return f"Predictor({m.name!r}, version={m.version}, kind={m.kind!r}, device={self.device!r})"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The artifact's manifest, read-only all the way down."""
        return self._manifest.raw

    @property
    def device(self) -> str:
        """`cpu` or `cuda:N`: what really runs, read back from the session."""
        return self._session.device

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers of the session, first choice first."""
        return self._session.providers

    def predict(self, context: NDArray[np.float32], time_s: Any = None) -> NDArray[np.float32]:
        """Forecast from a context; the stream plays no part.

        Args:
            context: (B, L, C) or (L, C) float32, raw units, oldest first, finite and non-negative.
            time_s: time of the last step (for `load`: where its bin begins), a number or (B,) float64. For models
                with a clock alone.

        Returns:
            (B, H, C, Q) or (H, C, Q) float32, raw units, non-decreasing over Q: what the model says, unchecked.

        Raises:
            InputError: shape, dtype or values differ from the above.
        """
        return self._outputs(context, time_s)["forecast"]

    def predict_outputs(self, context: NDArray[np.float32], time_s: Any = None) -> dict[str, NDArray[np.float32]]:
        """Everything that the graph gives for a context, by the names in the manifest's `outputs`.

        Args:
            context: as `predict`.
            time_s: as `predict`.

        Returns:
            `forecast`, as `predict` gives it, and for a model that forecasts aggregates `demand`, (B, H, 2C, Q) or (H,
            2C, Q) float32, raw units: entry h - 1 has quantiles of the sum of each channel over the first h steps, then
            of the largest of them.

        Raises:
            InputError: as `predict`.
        """
        return self._outputs(context, time_s)

    def observe(
        self, timestamp_s: float, request_tokens: float | None = None, response_tokens: float | None = None
    ) -> None:
        """Take in one request, in O(1) and constant memory.

        Args:
            timestamp_s: arrival in seconds, not before the last one's; for a `load` series, not before the open bin.
            request_tokens: tokens of the prompt; may be left out for a `load` series of counts alone.
            response_tokens: tokens of the answer; likewise.

        Raises:
            InputError: not such numbers, or the stream was fed with `observe_bin`. The stream is as before.
        """
        with self._lock:
            self._stream.observe(timestamp_s, request_tokens, response_tokens)
            self._judge()
        if self._clock_due:
            self._look_at_clock(float(timestamp_s))

    def observe_bin(
        self,
        start_s: float,
        requests: float,
        request_tokens: float | None = None,
        response_tokens: float | None = None,
    ) -> None:
        """Take in the counts of one whole bin of a `load` series.

        Args:
            start_s: where the bin begins, a multiple of the manifest's bin_s, after the last bin given. Bins left out
                count 0, unless they make a gap longer than gap_s.
            requests: requests in the bin.
            request_tokens: tokens of their prompts together; may be left out for a series of counts alone.
            response_tokens: tokens of their answers together; likewise.

        Raises:
            InputError: not such numbers, the series is `requests`, or the stream was fed with `observe`. The stream is
                as before.
        """
        with self._lock:
            self._stream.observe_bin(start_s, requests, request_tokens, response_tokens)
            self._judge()
        if self._clock_due:
            self._look_at_clock(float(start_s))

    def forecast(self, now_s: float | None = None) -> Forecast:
        """Forecast for the observed stream; without enough history, from a fallback that `source` names.

        The forecast before is returned again when nothing it depends on has changed.

        Args:
            now_s: the time, on the clock of the observations. It finishes the bins of a `load` series that have ended
                since the last request, and ends the history when the silence is longer than gap_s. A time before
                one seen counts as that one, so that threads need no common order.

        Raises:
            InputError: `now_s` is no time.
        """
        with self._lock:
            if now_s is not None:
                self._stream.advance(now_s)
                self._judge()
            stream, revision = self._stream, self._stream.revision
            if self._standing is not None and self._standing[0] == revision:
                return self._standing[1]
            steps, seen = stream.steps.last(self._manifest.context).copy(), stream.steps.seen
            clears = stream.steps.clears
            start_s, time_s = stream.start_s, stream.time_s

        found = self._ask_model(steps, time_s) if seen >= self._manifest.context else None
        if found is None:
            values, source = fallback(steps, self._manifest, seen=seen)
            aggregates = None
        else:
            values, source, aggregates = found["forecast"], "model", found.get("demand")
        with self._lock:
            if self._standing is not None and self._standing[0] == revision:
                return self._standing[1]  # another thread was faster
            if self._adaptive is not None and found is not None:
                # What was finished while the model ran is not judged, nor anything from before a gap.
                late = stream.steps.seen - seen if stream.steps.clears == clears else stream.steps.length
                values, source = self._adaptive.adjust(values, late=late), "model+adaptive"
            forecast = self._as_forecast(values, aggregates, start_s=start_s, source=source)
            if self._standing is None or self._standing[0] < revision:
                self._standing = (revision, forecast)
        return forecast

    def _as_forecast(
        self,
        values: NDArray[np.float32],
        aggregates: NDArray[np.float32] | None,
        *,
        start_s: float | None,
        source: str,
    ) -> Forecast:
        for array in (values, aggregates):
            if array is not None:
                array.setflags(write=False)
        return Forecast(
            values=values,
            levels=self._manifest.levels,
            channels=self._manifest.channels,
            step_s=self._manifest.step_s,
            start_s=start_s,
            source=source,
            aggregates=aggregates,
        )

    def _judge(self) -> None:
        """With the lock held, after anything that may have finished steps."""
        if self._adaptive is not None:
            self._adaptive.follow(self._stream.steps)

    def _outputs(self, context: NDArray[np.float32], time_s: Any) -> dict[str, NDArray[np.float32]]:
        windows = window(context, self._manifest)
        batch = len(windows) if context.ndim == 3 else None
        times = window_times(time_s, self._manifest, batch=batch)
        if self._clock_due and times is not None:
            self._look_at_clock(float(times.min()), stacklevel=4)
        found = self._run(windows, times)
        return found if batch is not None else {name: output[0] for name, output in found.items()}

    def _run(self, windows: NDArray[np.float32], times: NDArray[np.float64] | None) -> dict[str, NDArray[np.float32]]:
        found = self._session.run(windows, times)
        for name, shape in self._manifest.output_shapes.items():
            wanted = (len(windows), *shape)
            if found[name].shape != wanted:
                raise ArtifactError(
                    f"{self._where}: expected a {name} of {wanted}, got {found[name].shape}; export again"
                )
        return found

    def _ask_model(self, steps: NDArray[np.float32], time_s: float | None) -> dict[str, NDArray[np.float32]] | None:
        """What the model gives, or None when it fails or is no forecast: the hot loop goes on without it."""
        times = np.array([time_s], dtype=np.float64) if self._manifest.takes_time else None
        try:
            found = self._run(steps[np.newaxis], times)
        except Exception as error:  # onnxruntime's classes stand under Exception alone
            self._warn(f"failed with {error}")
            return None
        if not all(np.isfinite(output).all() for output in found.values()):
            self._warn("gave numbers that are not finite")
            return None
        return {name: output[0] for name, output in found.items()}

    def _look_at_clock(self, time_s: float, stacklevel: int = 3) -> None:
        """Say once that times are no epoch seconds, with which the model tells the hour and the day."""
        self._clock_due = False
        if time_s < _EPOCH_FROM_S:
            warnings.warn(
                f"{self._where}: expected epoch seconds, as this model knows the time of day, got {time_s!r}, "
                f"a time in {1970 + int(time_s // 31_556_952)}; its forecasts follow that calendar (said once)",
                RuntimeWarning,
                stacklevel=stacklevel,
            )

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._where}: the model {what}; forecasts come from the fallback while it does (said once)",
                RuntimeWarning,
                stacklevel=4,
            )
