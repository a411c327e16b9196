"""One window's way through a session: buffers that are bound once and used again for every forecast.

`InferenceSession.run` makes its outputs anew and looks its inputs up by name on each call; bound buffers save that, a
tenth to a third of a small model's time. These live in numpy, on the CPU; those of another device are in cuda.py.

Axes: L context, C channels, H horizon, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from .manifest import Manifest
from .stats import TOTAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_BITS = np.finfo(np.float32).max.view(np.uint32)
"""Of the largest float32. The bits of floats from 0 up, as whole numbers, are in their order; those with a sign,
infinities and NaN lie above."""
_greater, _count, _copy = np.greater, np.count_nonzero, np.copyto


class Binding:
    """Buffers of one window, for one thread at a time.

    Attributes:
        context: (1, L, C) float32, to be filled before `run`.
        window: (L, C), the same.
        time_s: (1,) float64, likewise; of a graph without a clock it plays no part.

    Args:
        ort: the module onnxruntime.
        session: its session.
        manifest: what the graph looks like.
        runs: counters of how long runs took, see `Stats.row`.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, runs: list[int]) -> None:
        self.context = np.zeros((1, manifest.context, len(manifest.channels)), dtype=np.float32)
        self.window = self.context[0]
        self.time_s = np.zeros(1, dtype=np.float64)
        shapes = manifest.output_shapes
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        ends = np.cumsum(sizes).tolist()
        parts = [
            (name, slice(end - size, end), shape)
            for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
        ]
        # All outputs in one piece: one look tells whether they are numbers.
        self._outputs = np.zeros(ends[-1], dtype=np.float32)
        self._views = [(name, self._outputs[part].reshape(shape)) for name, part, shape in parts]
        self._copies = [(name, view.copy) for name, view in self._views]
        self._copy_forecast = dict(self._copies)["forecast"]
        # For the checks. Arrays all of them: a comparison with one number takes longer.
        self._context_bits = self.context.reshape(-1).view(np.uint32)
        self._context_limits = np.full_like(self._context_bits, LARGEST_BITS)
        self._context_beyond = np.zeros(len(self._context_bits), dtype=np.bool_)
        # Each number's bits beside the next one's, the highest level's beside the largest number's.
        self._bits, levels = self._outputs.view(np.uint32), len(manifest.levels)
        self._limits = np.full_like(self._bits, LARGEST_BITS)
        self._next, self._limits_but_last = self._bits[1:], self._limits[:-1]
        self._highest_limits = self._limits[levels - 1 :: levels]
        self._beyond = np.zeros(len(self._bits), dtype=np.bool_)
        self._runs = runs
        self._bound = session.io_binding()
        inputs = {"context": self.context} | ({"time_s": self.time_s} if manifest.takes_time else {})
        self._bind(ort, inputs, {name: view[None] for name, view in self._views})
        # What is called, with what: the C++ session itself where it is found, past a look for graphs on WebGPU.
        self._promised = session.run_with_iobinding, self._bound
        try:
            self._run, self._given = session._sess.run_with_iobinding, self._bound._iobinding
        except AttributeError:  # neither is promised
            self._run, self._given = self._promised

    def _bind(self, ort: Any, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        for name, array in inputs.items():
            self._bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            self._bound.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def context_is_valid(self) -> bool:
        """Whether every number of the context is finite and not negative; False for -0.0 too."""
        _greater(self._context_bits, self._context_limits, self._context_beyond)
        return not _count(self._context_beyond)

    def outputs_are_valid(self) -> bool:
        """Whether all outputs are finite, not negative and non-decreasing over Q; False for some with -0.0 too."""
        # In one contiguous piece, a fourth of the time of `o[..., 1:] >= o[..., :-1]`.
        _copy(self._limits_but_last, self._next)
        self._highest_limits.fill(LARGEST_BITS)
        _greater(self._bits, self._limits, self._beyond)
        return not _count(self._beyond)

    def run(self) -> None:
        """Run the graph on what the buffers hold, and count how long it took."""
        begun = perf_counter_ns()
        try:
            self._run(self._given, None)
        except TypeError:  # nor what it takes
            self._run, self._given = self._promised
            self._run(self._given, None)
        took_ns = perf_counter_ns() - begun
        runs = self._runs
        runs[took_ns.bit_length()] += 1
        runs[TOTAL] += took_ns

    def forecast(self) -> NDArray[np.float32]:
        """A copy of the output `forecast`, (H, C, Q)."""
        return self._copy_forecast()

    def outputs(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the outputs by name: (H, C, Q), of `demand` (H, 2C, Q)."""
        found = {}
        for name, copy in self._copies:  # a comprehension, which is a call, takes half as long again
            found[name] = copy()
        return found
