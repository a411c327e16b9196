"""The step graph of a stateful model: some new steps and the state before them -> forecast and the state after them.

It runs on the CPU: one step is some forty small operators, which take microseconds there.

Axes: B streams, T steps, C channels, H horizon, Q levels, S numbers of a state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import MAX_GRAPH_BYTES, Artifact
from .binding import Binding
from .device import open_on_cpu
from .errors import ArtifactError
from .fields import plain
from .forks import refuse_after_fork
from .manifest import STEP, Manifest
from .stats import Stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEXT = "next_"


class StepBinding(Binding):
    """Buffers of one step and one state, for one thread at a time.

    Attributes:
        context: (1, 1, C) float32, the step.
        time_s: (1, 1) float64, its time.
        state: (S,) float32, before it.
        after: (S,) float32, after it.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, runs: list[int]) -> None:
        super().__init__(ort, session, replace(manifest, context=1), runs)
        self.time_s = np.zeros((1, 1), dtype=np.float64)
        size = sum(manifest.state.values())
        self.state, self.after = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
        if manifest.takes_time:
            self._bound.bind_ortvalue_input("time_s", ort.OrtValue.ortvalue_from_numpy(self.time_s))
        for name, part in state_parts(manifest).items():
            before, after = (a[part].reshape(1, 1, -1) for a in (self.state, self.after))
            self._bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(before))
            self._bound.bind_ortvalue_output(_NEXT + name, ort.OrtValue.ortvalue_from_numpy(after))


class StepSession:
    """A loaded step graph.

    Attributes:
        size: S.
        takes_time: whether the graph has the input `time_s`.

    Args:
        ort: the module onnxruntime.
        session: its session, checked.
        manifest: of the artifact.
        stats: where runs are counted.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, stats: Stats) -> None:
        self._ort, self._session, self._manifest, self._stats = ort, session, manifest, stats
        self._free: list[StepBinding] = []
        self._parts = state_parts(manifest)
        self._outputs = [*manifest.outputs, *(_NEXT + name for name in self._parts)]
        self.size, self.takes_time = sum(manifest.state.values()), manifest.takes_time

    def take_binding(self) -> StepBinding:
        """As `Session.take_binding`, for one step."""
        try:
            return self._free.pop()
        except IndexError:
            return StepBinding(self._ort, self._session, self._manifest, self._stats.row())

    def return_binding(self, binding: StepBinding) -> None:
        """Hand buffers on to the next taker."""
        self._free.append(binding)

    def metadata(self) -> dict[str, str]:
        """What the graph's file says about itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def times(self, time_s: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """The time of each of the last steps (B, T), from that of the last one (B,)."""
        ages = np.arange(steps - 1, -1, -1, dtype=np.float64)
        found: NDArray[np.float64] = time_s[:, None] - (self._manifest.bin_s or 0.0) * ages
        return found

    def run(
        self, rows: NDArray[np.float32], time_s: NDArray[np.float64] | None, state: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Run the graph.

        Args:
            rows: (B, T, C) float32, raw units.
            time_s: (B,) float64, time of the last step, where the graph takes times.
            state: (B, S) float32; zeros for a cold one.

        Returns:
            the outputs by name, and the state after the last step (B, S).

        Raises:
            ArtifactError: it gives other shapes than the manifest says.
        """
        feed: dict[str, Any] = {"context": rows}
        if time_s is not None:
            feed["time_s"] = self.times(time_s, rows.shape[1])
        for name, part in self._parts.items():
            feed[name] = np.ascontiguousarray(state[None, :, part])
        begun = perf_counter_ns()
        found = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        self._stats.count_batch(perf_counter_ns() - begun, len(rows))
        wanted: dict[str, tuple[int, ...]] = {
            name: (len(rows), *shape) for name, shape in self._manifest.output_shapes.items()
        }
        wanted |= {_NEXT + name: (1, len(rows), size) for name, size in self._manifest.state.items()}
        for name, shape in wanted.items():
            if found[name].shape != shape:
                raise ArtifactError(f"{STEP}: expected a {name} of {shape}, got {found[name].shape}; export again")
        after = np.concatenate([found.pop(_NEXT + name)[0] for name in self._parts], axis=1)
        return found, after

    def run_one(
        self, row: NDArray[np.float32], time_s: float | None, state: NDArray[np.float32] | None
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32], bool]:
        """The same for one step of one stream, through buffers that are bound once: the way of the hot loop.

        Args:
            row: (1, C) float32, raw units.
            time_s: its time, where the graph takes times.
            state: (S,) float32; None for a cold one.

        Returns:
            the outputs by name, the state after it (S,), and whether the outputs are a forecast by a quick look.
        """
        bound = self.take_binding()
        try:
            bound.context[0] = row
            if time_s is not None:
                bound.time_s[0, 0] = time_s
            bound.state[:] = 0.0 if state is None else state
            bound.run()
            return bound.outputs(), bound.after.copy(), bound.outputs_are_valid()
        finally:
            self.return_binding(bound)


def state_parts(manifest: Manifest) -> dict[str, slice]:
    """Where each state stands among the S numbers of all."""
    ends = list(accumulate(manifest.state.values()))
    return {name: slice(end - size, end) for (name, size), end in zip(manifest.state.items(), ends, strict=True)}


def is_finite(state: NDArray[np.float32]) -> bool:
    """Whether every number of a state (S,) is finite, and none beyond what its square can hold."""
    return math.isfinite(state.dot(state))


def open_step(artifact: Artifact, *, threads: int, stats: Stats) -> StepSession:
    """Load an artifact's step graph.

    Args:
        artifact: one whose manifest has a state.
        threads: threads inside one operator.
        stats: where its runs are counted.

    Raises:
        ArtifactError: it is missing, damaged, cannot be loaded, or differs from the manifest.
    """
    where, manifest = str(artifact.folder / STEP), artifact.manifest
    graph = artifact.read(STEP, max_bytes=MAX_GRAPH_BYTES)
    ort, session = open_on_cpu(graph, threads=threads, where=where)
    channels = len(manifest.channels)
    states = {name: ("tensor(float)", (1, None, size)) for name, size in manifest.state.items()}
    inputs: dict[str, Any] = {"context": ("tensor(float)", (None, None, channels))}
    if manifest.takes_time:
        inputs["time_s"] = ("tensor(double)", (None, None))
    outputs = {name: ("tensor(float)", (None, *shape)) for name, shape in manifest.output_shapes.items()}
    _check(session.get_inputs(), inputs | states, "inputs", where)
    _check(session.get_outputs(), outputs | {_NEXT + name: end for name, end in states.items()}, "outputs", where)
    opened = StepSession(ort, session, manifest, stats)
    if threads > 1:
        refuse_after_fork(opened)
    return opened


def _check(
    ends: Sequence[Any], wanted: Mapping[str, tuple[str, tuple[int | None, ...]]], what: str, where: str
) -> None:
    """Compare names, types and dimensions with the manifest's; None is one that must be free."""
    try:
        found = {end.name: (end.type, tuple(d if isinstance(d, int) else None for d in end.shape)) for end in ends}
    except UnicodeDecodeError:
        raise ArtifactError(
            f"{where}: expected the names of the {what} in UTF-8, got other bytes; export again"
        ) from None
    if sorted(found) != sorted(wanted):
        got = plain(", ".join(found))[:200]
        raise ArtifactError(f"{where}: expected the {what} {', '.join(wanted)}, got {got}; export again")
    for name, end in wanted.items():
        if found[name] != end:
            raise ArtifactError(
                f"{where}: expected '{name}' to be {end[0]} {_axes(end[1])}, got {found[name][0]} "
                f"{_axes(found[name][1])}; the graph is not the one of the manifest, export again"
            )


def _axes(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
