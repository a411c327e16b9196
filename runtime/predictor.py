"""The Predictor: an artifact on a device, asked with windows or fed with a stream."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .forecast import Forecast
from .live import LiveStream
from .memory import read_all
from .model import Model
from .snapshot import Numbers, pack, unpack
from .streams import Streams
from .together import forecast_together

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Predictor:
    """Forecasts from one artifact.

    `predict` keeps nothing and may be called from any number of threads. `observe`, `observe_bin` and `forecast` work
    on one stream, behind one lock that is never held while the model runs; `stream(key)` gives any number of others,
    each with its own. No method reads a file or the network. A model that takes epoch times warns once
    (RuntimeWarning) when the first one it gets is none.

    Args:
        path: `artifacts/<name>`, where the newest version is taken, or `artifacts/<name>/<version>`.
        version: take this version of `artifacts/<name>`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes CUDA where it works and says with a RuntimeWarning
            when it is built in and does not.
        threads: threads inside one operator; 1 is best for models of this size.
        adapt: correct the forecasts of the stream by how those before turned out, see `runtime.adaptive`. `predict`
            stays as it is.
        max_streams: streams kept by key, beside this one.

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
        max_streams: int = 10_000,
    ) -> None:
        self._model = Model(path, version=version, device=device, threads=threads)
        self._live = LiveStream(self._model, adapt=adapt)
        self._streams = Streams(self._model, adapt=adapt, max_streams=max_streams)
        self._adapt = adapt

    def __repr__(self) -> str:
        m = self._model.manifest
        return f"Predictor({m.name!r}, version={m.version}, kind={m.kind!r}, device={self.device!r})"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The artifact's manifest, read-only all the way down."""
        return self._model.manifest.raw

    @property
    def device(self) -> str:
        """`cpu` or `cuda:N`: what really runs, read back from the session."""
        return self._model.session.device

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers of the session, first choice first."""
        return self._model.session.providers

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
        return self._model.outputs(context, time_s)["forecast"]

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
        return self._model.outputs(context, time_s)

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
        self._live.observe(timestamp_s, request_tokens, response_tokens)

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
        self._live.observe_bin(start_s, requests, request_tokens, response_tokens)

    def forecast(self, now_s: float | None = None, deadline_s: float | None = None) -> Forecast:
        """Forecast for the observed stream; without enough history, from a fallback that `source` names.

        The forecast before is returned again when nothing it depends on has changed.

        Args:
            now_s: the time, on the clock of the observations. It finishes the bins of a `load` series that have ended
                since the last request, and ends the history when the silence is longer than gap_s. A time before
                one seen counts as that one, so that threads need no common order.
            deadline_s: how long the call may take. A model that needs longer runs on in a thread beside, and its answer
                stands once it is there. Returned in time is its last one while that reaches ahead, with the `source`
                `standing:model`, or else a fallback.

        Raises:
            InputError: `now_s` is no time, or `deadline_s` no number of seconds from 0.
        """
        return self._live.forecast(now_s, deadline_s)

    def stream(self, key: Hashable) -> LiveStream:
        """The stream of a key, made at the first use: observe, observe_bin and forecast as here, on its own.

        Beyond max_streams the one asked for the longest ago (here or in `forecast_many`) is let go: it is gone unless
        a caller holds it. One that is held goes on and is found under its key all the while.

        Args:
            key: anything hashable; a text or a whole number where snapshots are to be taken.

        Raises:
            InputError: `key` is not hashable.
        """
        return self._streams.get(key)

    def forecast_many(self, keys: Iterable[Hashable], now_s: float | None = None) -> dict[Hashable, Forecast]:
        """The forecast of each key's stream; those that need the model go through it in batches.

        Values differ from those of `stream(key).forecast(now_s)` by the rounding of float32 alone.

        Args:
            keys: as `stream`.
            now_s: as `forecast`, for all of them.

        Raises:
            InputError: a key is not hashable, or `now_s` is no time.
        """
        streams = {key: self._streams.get(key) for key in keys}
        return dict(zip(streams, forecast_together(self._model, list(streams.values()), now_s), strict=True))

    def forget(self, key: Hashable) -> bool:
        """Let a key's stream go, and find a new one under it from now on; whether there was one.

        A stream that a caller still holds works on, under no key.
        """
        return self._streams.forget(key)

    def keys(self) -> list[Hashable]:
        """The keys of all streams, those asked for the longest ago first."""
        return [key for key, _ in self._streams.items()]

    def stats(self) -> dict[str, Any]:
        """What the model did since it was loaded, for all streams together; docs/runtime.md has the keys."""
        return {"name": self._model.manifest.name, "version": self._model.manifest.version} | self._model.stats.read()

    def snapshot(self) -> bytes:
        """What all streams remember, also the predictor's own: bytes to go on from after a restart, see `restore`.

        Each stream is as it was at one moment, one after the other.

        Raises:
            InputError: a key is neither a text nor a whole number of 64 bits.
        """
        numbers = Numbers()
        streams = [{"key": None, **self._live.write(numbers)}, *self._streams.write(numbers)]
        return pack("predictor", streams, numbers, self._model.manifest, adapt=self._adapt)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot: the next forecasts are those that would have come without a restart.

        All streams are then those of the snapshot, the most recently used max_streams of them; streams that a caller
        holds go on from it too, and those that it does not know are let go. Restore before feeding.

        Args:
            data: from `snapshot` of a predictor with the same contract: kind, channels, clock, bin_s, step_s, gap_s,
                context, horizon, levels and adapt. With another version of the model the forecasts are that one's.

        Raises:
            InputError: anything else, or truncated, altered, or of a newer version. All streams are as before.
        """
        found = unpack(data, of="predictor", manifest=self._model.manifest, adapt=self._adapt)
        own, *others = read_all(found, self._model.manifest, adapt=self._adapt)
        self._streams.resume([state.get("key") for state in found.streams[1:]], others)
        self._live.resume(own)
