"""The Predictor: an artifact on a device, asked with windows or fed with a stream."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .cuda_options import CudaOptions
from .drift import told
from .forecast import Forecast
from .live import LiveStream
from .memory import read_all
from .model import Model
from .reload import Reload
from .serving import Serving
from .snapshot import Numbers, pack, unpack
from .streams import Streams
from .together import forecast_together
from .watch import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Predictor:
    """Forecasts from one artifact.

    `predict` keeps nothing and may be called from any number of threads. `observe`, `observe_bin` and `forecast` work
    on one stream, behind one lock that is never held while the model runs; `stream(key)` gives any number of others,
    each with its own. Only `reload` and `watch` read files, none the network. A model that takes epoch times warns once
    (RuntimeWarning) when the first one it gets is none.

    Args:
        path: `artifacts/<name>`, where the newest version is taken, or `artifacts/<name>/<version>`.
        version: take this version of `artifacts/<name>`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes CUDA where it works and is measured to be faster than
            the CPU for one window; it says with a RuntimeWarning when CUDA is built in and does not work.
        threads: threads inside one operator; 1 is best for models of this size.
        adapt: correct the forecasts of the stream by how those before turned out, see `runtime.adaptive`. `predict`
            stays as it is.
        breaker: judge a sample of each stream's forecasts when they are over, and have a simple forecast speak while
            the model is measurably worse, see `runtime.breaker`. `predict` stays as it is.
        max_streams: streams kept by key, beside this one.
        cuda: how a GPU is used, see `CudaOptions`.

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
        breaker: bool = True,
        max_streams: int = 10_000,
        cuda: CudaOptions | None = None,
    ) -> None:
        self._serving = Serving(Model(path, version=version, device=device, threads=threads, cuda=cuda))
        self._live = LiveStream(self._serving, adapt=adapt, breaker=breaker)
        self._streams = Streams(self._serving, adapt=adapt, breaker=breaker, max_streams=max_streams)
        self._adapt, self._breaker = adapt, breaker
        self._reload = Reload(path, self._serving, threads=threads, adapt=adapt, cuda=cuda)
        self._watch: Watch | None = None

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        m = self._model.manifest
        return f"Predictor({m.name!r}, version={m.version}, kind={m.kind!r}, device={self.device!r})"

    @property
    def _model(self) -> Model:
        return self._serving.model

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of the version in service, read-only all the way down."""
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
        return self._serving.model.forecast(context, time_s)

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
        return self._serving.model.outputs(context, time_s)

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
        """What the model in service did since it was loaded, for all streams together; docs/runtime.md has the keys."""
        model = self._model
        facts = {"name": model.manifest.name, "version": model.manifest.version, "device": model.session.facts()}
        return facts | model.stats.read() | {"judged": self._judged(model) if self._breaker else None}

    def _judged(self, model: Model) -> dict[str, Any]:
        streams = [self._live, *(stream for _, stream in self._streams.items())]
        return told((stream.judged(model.manifest) for stream in streams), model.manifest)

    def snapshot(self) -> bytes:
        """What all streams remember, also the predictor's own: bytes to go on from after a restart, see `restore`.

        Each stream is as it was at one moment, one after the other.

        Raises:
            InputError: a key is neither a text nor a whole number of 64 bits.
        """
        numbers, manifest = Numbers(), self._model.manifest
        streams = [{"key": None, **self._live.write(manifest, numbers)}, *self._streams.write(manifest, numbers)]
        return pack("predictor", streams, numbers, manifest, adapt=self._adapt)

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
        manifest = self._model.manifest
        found = unpack(data, of="predictor", manifest=manifest, adapt=self._adapt)
        own, *others = read_all(found, manifest, adapt=self._adapt, breaker=self._breaker)
        self._streams.resume([state.get("key") for state in found.streams[1:]], others)
        self._live.resume(own)

    def reload(self, version: int | None = None) -> bool:
        """Put another version of the artifact into service, between two forecasts; whether there was another.

        It is hashed, run on its goldens on the device in service, and only then swapped in, with all streams as they
        are. A forecast under way ends with the model it began with; what stood is forecast anew. The calling thread
        does all the work and holds up no other one. The model that leaves stays in memory for `rollback`.

        Args:
            version: of the folder given at first; the newest if None.

        Raises:
            ArtifactError: there is no such version, it is damaged, forecasts other numbers here than its goldens, or
                its contract (see `restore`) is another. The one in service stays.
            DeviceError: it cannot run on that device. Likewise.
            InputError: `version` is no version, or the predictor was opened with one version's folder.
        """
        return self._reload.to(version)

    def rollback(self) -> None:
        """Go back to the version that was in service before, at once; a second time undoes the first.

        A watch leaves it at that until there is a version above all that were in service.

        Raises:
            ArtifactError: there was none.
        """
        self._serving.rollback()

    def watch(self, every_s: float = 60.0) -> None:
        """Look for newer versions from now on, in a thread, and put each into service as `reload` does.

        A version that `reload` would refuse is told by one RuntimeWarning, and by `reload_error`, and tried again
        when its files change. `close`, a `with` block and the end of the process end it; another call replaces it.
        After a fork the child forecasts on with what is in service, and has no watch until it calls this.

        Args:
            every_s: seconds between two looks.

        Raises:
            InputError: not above 0, or the predictor was opened with one version's folder.
        """
        self._reload.check()
        self.close()
        self._watch = Watch(self._reload, every_s)

    @property
    def reload_error(self) -> str | None:
        """Why the newest version that the watch found is not in service; None when all is well."""
        return self._reload.error

    def close(self) -> None:
        """End the watch, after a look under way. All else goes on working."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
