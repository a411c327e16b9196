"""An artifact on a device, ready to be asked: by windows from callers, or by one window of a stream at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .artifact import MAX_GRAPH_BYTES, Artifact, open_artifact
from .binding import LARGEST_BITS, Binding
from .cuda_options import CudaOptions
from .deadline import Worker
from .device import Session, first_line, open_session
from .errors import ArtifactError, FcastError
from .inputs import MAX_TIME_S, window, window_times
from .manifest import Manifest
from .step import StepSession, open_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH = "model.onnx"
_EPOCH_FROM_S = 1e8
"""Seconds below this (March 1973) count from something else than 1970."""
_FLOAT32 = np.dtype(np.float32)
_Read = TypeVar("_Read")
INVALID = "gave numbers that are negative, not finite, or not in the order of the levels"


class Model:
    """One version of an artifact in a session; may be asked from any number of threads.

    Args:
        path: as `Predictor`; or an artifact that is already open, whose manifest is not read a second time.
        version: as `Predictor`.
        device: as `Predictor`.
        threads: as `Predictor`.
        cuda: as `Predictor`.

    Raises:
        ArtifactError, DeviceError, MissingDependencyError, InputError: as `Predictor`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Artifact,
        *,
        version: int | None,
        device: str,
        threads: int,
        cuda: CudaOptions | None = None,
    ) -> None:
        artifact = path if isinstance(path, Artifact) else open_artifact(path, version=version)
        self.manifest: Manifest = artifact.manifest
        self.folder = artifact.folder
        self.where = str(artifact.folder / GRAPH)
        graph = artifact.read(GRAPH, max_bytes=MAX_GRAPH_BYTES)
        self.session: Session = open_session(
            graph, self.manifest, device=device, threads=threads, where=self.where, cuda=cuda
        )
        self._shape = self.manifest.context, len(self.manifest.channels)
        self._shapes = self.manifest.output_shapes
        self._takes_time = self.manifest.takes_time
        self.stats, self.worker = self.session.stats, Worker()
        self.step: StepSession | None = None
        if self.manifest.state and self.session.device == "cpu":
            self.step = open_step(artifact, threads=threads, stats=self.stats)
        self.window_numbers = self._shape[0] * self._shape[1]
        self._warned = False
        # Whether the first time given is still to be looked at.
        self.clock_due = self.manifest.takes_time and self.manifest.clock == "epoch"

    def outputs(self, context: NDArray[np.float32], time_s: Any) -> dict[str, NDArray[np.float32]]:
        """See `Predictor.predict_outputs`."""
        found = self._one(context, time_s, Binding.outputs)
        return self._any(context, time_s) if found is None else found

    def forecast(self, context: NDArray[np.float32], time_s: Any) -> NDArray[np.float32]:
        """See `Predictor.predict`."""
        found = self._one(context, time_s, Binding.forecast)
        return self._any(context, time_s)["forecast"] if found is None else found

    def _any(self, context: NDArray[np.float32], time_s: Any) -> dict[str, NDArray[np.float32]]:
        """The long way, of any number of windows, which looks closely at what it is given."""
        windows = window(context, self.manifest)
        batch = len(windows) if context.ndim == 3 else None
        times = window_times(time_s, self.manifest, batch=batch)
        if self.clock_due and times is not None:
            self.look_at_clock(float(times.min()), stacklevel=5)
        outputs = self.run(windows, times)
        return outputs if batch is not None else {name: output[0] for name, output in outputs.items()}

    def _one(self, context: NDArray[np.float32], time_s: Any, read: Callable[[Binding], _Read]) -> _Read | None:
        """The short way of one good window; None for anything else."""
        if type(context) is not np.ndarray or context.shape != self._shape or context.dtype != _FLOAT32:
            return None
        if self._takes_time:
            if self.clock_due or type(time_s) is not float or not -MAX_TIME_S <= time_s <= MAX_TIME_S:
                return None
        elif time_s is not None:
            return None
        bound = self.session.take_binding()
        try:
            bound.window[...] = context
            if not bound.context_is_valid():
                return None
            if time_s is not None:
                bound.time_s[0] = time_s
            bound.run()
            return read(bound)
        except Exception as error:
            raise self._failed(error) from None
        finally:
            self.session.return_binding(bound)

    def run(self, windows: NDArray[np.float32], times: NDArray[np.float64] | None) -> dict[str, NDArray[np.float32]]:
        """Run a batch of valid windows (B, L, C)."""
        try:
            found = self.session.run(windows, times)
        except Exception as error:
            raise self._failed(error) from None
        for name, shape in self._shapes.items():
            wanted = (len(windows), *shape)
            if found[name].shape != wanted:
                raise ArtifactError(
                    f"{self.where}: expected a {name} of {wanted}, got {found[name].shape}; export again"
                )
        return found

    def answer(self, window: NDArray[np.float32], time_s: float | None) -> dict[str, NDArray[np.float32]] | None:
        """What the model gives for a stream's window (L, C), or None when it fails or is no forecast.

        It never raises: the hot loop goes on without the model.
        """
        try:
            bound = self.session.take_binding()
            try:
                bound.window[...] = window
                if self._takes_time:
                    bound.time_s[0] = time_s
                bound.run()
                found = bound.outputs()
                valid = bound.outputs_are_valid()
            finally:
                self.session.return_binding(bound)
        except Exception as error:  # onnxruntime's classes stand under Exception alone
            self.fail("error", f"failed with {first_line(error)}")
            return None
        if not valid and not all(rows_are_valid(o[None])[0] for o in found.values()):  # -0.0 is 0 too
            self.fail("invalid", INVALID)
            return None
        return found

    def answers(
        self, windows: NDArray[np.float32], times: Sequence[float | None]
    ) -> list[dict[str, NDArray[np.float32]] | None]:
        """As `answer`, for windows (B, L, C) of B streams in one run; one that is no forecast takes no other along."""
        try:
            found = self.run(windows, np.array(times, dtype=np.float64) if self._takes_time else None)
        except Exception as error:  # as above
            self.fail("error", f"failed with {first_line(error)}")
            return [None] * len(windows)
        if not (good := np.logical_and.reduce([rows_are_valid(o) for o in found.values()])).all():
            self.fail("invalid", INVALID)
        # Copies: a view would keep all B of them alive.
        return [{name: o[i].copy() for name, o in found.items()} if ok else None for i, ok in enumerate(good)]

    def _failed(self, error: Exception) -> FcastError:
        """What onnxruntime raises while it runs, whose classes stand under Exception alone."""
        if isinstance(error, FcastError):
            return error
        return ArtifactError(
            f"{self.where}: expected a graph that runs, got {first_line(error)}; see whether fcast-verify passes here"
        )

    def fail(self, reason: str, what: str) -> None:
        """Count a run that gave no forecast, and say the first of them."""
        self.stats.count_failure(reason)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.where}: the model {what}; forecasts come from the fallback while it does (said once)",
                RuntimeWarning,
                stacklevel=5,
            )

    def look_at_clock(self, time_s: float, stacklevel: int = 4) -> None:
        """Say once that times are no epoch seconds, with which the model tells the hour and the day."""
        self.clock_due = False
        if time_s < _EPOCH_FROM_S:
            warnings.warn(
                f"{self.where}: expected epoch seconds, as this model knows the time of day, got {time_s!r}, "
                f"a time in {1970 + int(time_s // 31_556_952)}; its forecasts follow that calendar (said once)",
                RuntimeWarning,
                stacklevel=stacklevel,
            )


def rows_are_valid(output: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(B,): whether all of a row of (B, H, C, Q) is finite, not negative and non-decreasing over Q."""
    # Nearly always all are, which their bits tell in a sixth of the time: see `Binding.outputs_are_valid`.
    bits = np.ascontiguousarray(output).view(np.uint32).reshape(-1)
    limits = np.empty_like(bits)
    limits[:-1] = bits[1:]
    limits[output.shape[-1] - 1 :: output.shape[-1]] = LARGEST_BITS
    if not np.count_nonzero(bits > limits):
        return np.ones(len(output), dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(output) & (output >= 0)
        good[..., 1:] &= output[..., 1:] >= output[..., :-1]
    found: NDArray[np.bool_] = np.logical_and.reduce(good.reshape(len(output), -1), axis=1)
    return found
