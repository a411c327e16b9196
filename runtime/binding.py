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

_LARGEST_BITS = int(np.finfo(np.float32).max.view(np.uint32))
_largest = np.maximum.reduce
_greater = np.greater


class Binding:
    """Buffers of one window, for one thread at a time.

    Attributes:
        context: (1, L, C) float32, to be filled before `run`.
        time_s: (1,) float64, likewise; of a graph without a clock it plays no part.

    Args:
        ort: the module onnxruntime.
        session: its session.
        manifest: what the graph looks like.
        runs: counters of how long runs took, see `Stats.row`.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, runs: list[int]) -> None:
        self.context = np.zeros((1, manifest.context, len(manifest.channels)), dtype=np.float32)
        self.time_s = np.zeros(1, dtype=np.float64)
        shapes = manifest.output_shapes
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        ends = np.cumsum(sizes).tolist()
        self._parts = [
            (name, slice(end - size, end), shape)
            for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
        ]
        # All outputs in one piece: one copy takes them out, one look tells whether they are numbers.
        self._outputs = np.zeros(ends[-1], dtype=np.float32)
        self._context_bits = self.context.reshape(-1).view(np.uint32)
        # For `outputs_are_valid`: each number's bits beside the next one's, where both are of one step and channel.
        bits, levels = self._outputs.view(np.uint32), len(manifest.levels)
        self._here, self._next, self._highest = bits[:-1], bits[1:], bits[levels - 1 :: levels]
        self._falls = np.zeros(len(bits) - 1, dtype=np.bool_)
        self._any_within = ((np.arange(len(bits) - 1) + 1) % levels > 0).dot
        self._run, self._runs = session.run_with_iobinding, runs
        self._bound = session.io_binding()
        inputs = {"context": self.context} | ({"time_s": self.time_s} if manifest.takes_time else {})
        self._bind(ort, inputs, {name: self._outputs[part].reshape(1, *shape) for name, part, shape in self._parts})

    def _bind(self, ort: Any, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        for name, array in inputs.items():
            self._bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            self._bound.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def context_is_valid(self) -> bool:
        """Whether every number of the context is finite and not negative; False for -0.0 too."""
        # As whole numbers, the bits of floats from 0 up are in their order; the sign, infinities and NaN lie above.
        return bool(_largest(self._context_bits) <= _LARGEST_BITS)

    def outputs_are_valid(self) -> bool:
        """Whether all outputs are finite, not negative and non-decreasing over Q; False for some with -0.0 too."""
        # Compared with their neighbours in one contiguous piece, a fourth of the time of `o[..., 1:] >= o[..., :-1]`.
        # Where bits never fall, the highest level tells of all.
        _greater(self._here, self._next, self._falls)
        return not self._any_within(self._falls) and bool(_largest(self._highest) <= _LARGEST_BITS)

    def run(self) -> None:
        """Run the graph on what the buffers hold, and count how long it took."""
        begun = perf_counter_ns()
        self._run(self._bound)
        took_ns = perf_counter_ns() - begun
        self._runs[took_ns.bit_length()] += 1
        self._runs[TOTAL] += took_ns

    def outputs(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the outputs by name: (H, C, Q), of `demand` (H, 2C, Q)."""
        flat = self._outputs.copy()
        return {name: flat[part].reshape(shape) for name, part, shape in self._parts}
