"""The CUDA half of `device.py`, imported only where onnxruntime has CUDA: device buffers, CUDA graphs, a choice.

Buffers lie on a device that is a parameter, so the tests run the same lines with those of the CPU. What only a GPU can
show has not been run on one: `fcast-doctor --selftest` does it.

Sources: onnxruntime's page "CUDA Execution Provider", and its cuda_graph.cc: a graph is kept per calling thread, and no
other thread may copy or allocate on the GPU while one is recorded. So with graphs one run at a time goes through.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from .binding import Binding
from .device import Session, first_line
from .manifest import Manifest
from .stats import TOTAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH_ID = "gpu_graph_id"
"""Run option: which of a session's graphs; -1 for a run without one."""
_NO_GRAPH = -1
_TRIES, _TRY_S = 50, 0.2
_GRAPH_WITHIN = 1e-3


def is_recurrent(model: bytes) -> bool:
    """Whether a graph has a GRU, LSTM or RNN, told from how the name of an operator is written in the file.

    Their CUDA kernels (cudnn_rnn_base.cc) copy the lengths of the sequences from memory of the host that is used for
    something else afterwards. A recorded copy would read it again.
    """
    return any(bytes((0x22, len(name))) + name in model for name in (b"GRU", b"LSTM", b"RNN"))


class DeviceSession(Session):
    """A session whose windows go through buffers on its device.

    Args:
        ort: the module onnxruntime.
        session: its session.
        manifest: what the graph looks like.
        place: type and index of the device the buffers lie on, as onnxruntime names them.
        graph: whether the session was made with `enable_cuda_graph`.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, *, place: tuple[str, int], graph: bool) -> None:
        super().__init__(ort, session, manifest)
        self._place = place
        self._graphs = 0
        self._one_at_a_time = threading.Lock() if graph else None
        if graph:
            self.cuda_graph = "on"

    def _bind(self) -> Binding:
        lock, options = self._one_at_a_time, None
        if lock is not None:
            with lock:
                self._graphs += 1
                options = self._run_options(self._graphs)
        return DeviceBinding(
            self._ort,
            self._session,
            self._manifest,
            self.stats.row(),
            place=self._place,
            run_options=options,
            lock=lock,
        )

    def run(self, context: NDArray[np.float32], time_s: NDArray[np.float64] | None) -> dict[str, NDArray[np.float32]]:
        """As `Session.run`; of any number of windows, so never as a graph."""
        if self._one_at_a_time is None:
            return super().run(context, time_s)
        with self._one_at_a_time:
            return super().run(context, time_s)

    def _call(self, feed: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        options = None if self._one_at_a_time is None else self._run_options(_NO_GRAPH)
        found: list[NDArray[np.float32]] = self._session.run(self._outputs, feed, options)
        return found

    def _run_options(self, graph_id: int) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(GRAPH_ID, str(graph_id))
        return options

    def warm_up(self) -> None:
        """Run one window, so that libraries are loaded, kernels are known to work, and a graph is recorded and right.

        A graph is replayed on another window than it was recorded with, and must give what a run without it gives.

        Raises:
            Exception: whatever onnxruntime raises; ArithmeticError when the graph gives other numbers.
        """
        bound = self.take_binding()
        windows = _windows(bound)
        for fill in windows:
            fill()
            bound.run()
        if self._one_at_a_time is not None:
            replayed = bound.outputs()
            time_s = bound.time_s if self._takes_time else None
            for name, wanted in self.run(bound.context, time_s).items():
                within = _GRAPH_WITHIN * float(np.abs(wanted).max())
                if not np.allclose(replayed[name], wanted[0], rtol=_GRAPH_WITHIN, atol=within, equal_nan=True):
                    raise ArithmeticError(f"a replayed CUDA graph whose {name} differs from that of a run without it")
        self.return_binding(bound)
        self.stats.clear()


class DeviceBinding(Binding):
    """Buffers of one window on a device, beside those of `Binding` that its user fills and reads.

    Args:
        ort: as `Binding`.
        session: as `Binding`.
        manifest: as `Binding`.
        runs: as `Binding`.
        place: as `DeviceSession`.
        run_options: of each run; None for none.
        lock: held from the first copy to the last; None for none.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        manifest: Manifest,
        runs: list[int],
        *,
        place: tuple[str, int],
        run_options: Any,
        lock: threading.Lock | None,
    ) -> None:
        self._place, self._options, self._lock = place, run_options, lock
        self._through = session.run_with_iobinding
        super().__init__(ort, session, manifest, runs)

    def _bind(self, ort: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        def on_device(array: NDArray[Any]) -> Any:
            return ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, *self._place)

        self._in = [(on_device(array), array) for array in inputs.values()]
        self._out = [(array, on_device(array)) for array in outputs.values()]
        for name, (there, _) in zip(inputs, self._in, strict=True):
            self._bound.bind_ortvalue_input(name, there)
        for name, (_, there) in zip(outputs, self._out, strict=True):
            self._bound.bind_ortvalue_output(name, there)

    def run(self) -> None:
        """As `Binding.run`; the copies to the device and back are part of it."""
        begun = perf_counter_ns()
        if self._lock is None:
            self._there_and_back()
        else:
            with self._lock:
                self._there_and_back()
        took_ns = perf_counter_ns() - begun
        self._runs[took_ns.bit_length()] += 1
        self._runs[TOTAL] += took_ns

    def _there_and_back(self) -> None:
        for there, here in self._in:
            there.update_inplace(here)
        self._through(self._bound, self._options)
        for here, there in self._out:
            np.copyto(here, there.numpy())  # of the CPU's a view, of a GPU's a copy


def _windows(bound: Binding) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two fillings of a window that differ everywhere."""

    def ones() -> None:
        bound.context.fill(1)
        bound.time_s.fill(1.7e9)

    def steps() -> None:
        bound.context[...] = 1 + np.arange(bound.context.size, dtype=np.float32).reshape(bound.context.shape) % 7
        bound.time_s.fill(1.7e9 + 3600)

    return ones, steps


def faster(on_cuda: Session, on_cpu: Session) -> Session:
    """The one that forecasts one window in less time, by turns, for a fifth of a second at most.

    Its `choice` says what was measured. A batch of hundreds may be faster on the GPU all the same.
    """
    sessions = (on_cuda, on_cpu)
    bound = [session.take_binding() for session in sessions]
    times: list[list[float]] = [[], []]
    for one in bound:
        _windows(one)[0]()
        for _ in range(3):
            one.run()
    end = perf_counter() + _TRY_S
    for _ in range(_TRIES):
        for one, took in zip(bound, times, strict=True):
            begun = perf_counter_ns()
            one.run()
            took.append((perf_counter_ns() - begun) / 1e3)
        if perf_counter() > end:
            break
    cuda_us, cpu_us = (statistics.median(took) for took in times)
    for session, one in zip(sessions, bound, strict=True):
        session.return_binding(one)
        session.stats.clear()
    chosen = on_cuda if cuda_us < cpu_us else on_cpu
    chosen.choice = f"measured faster for one window: {cuda_us:.0f} us on {on_cuda.device}, {cpu_us:.0f} us on the cpu"
    return chosen


def why_not(ort: Any) -> str:
    """What keeps CUDA from working where onnxruntime said nothing and took the CPU: driver, GPU or library.

    Asked of the driver's own library and of the dynamic loader; "" where they have no complaint.
    """
    import ctypes
    from pathlib import Path

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({first_line(error)})"
    if code := driver.cuInit(0):
        return f"a driver that finds no usable GPU (cuInit gave {code})"
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
        needed = str(getattr(ort, "cuda_version", "") or "").partition(".")[0]
        if needed.isdecimal() and version.value // 1000 < int(needed):
            has = f"{version.value // 1000}.{version.value % 1000 // 10}"
            return f"a driver for CUDA up to {has}, while this onnxruntime needs {needed}"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        if "cannot open shared object file" in str(error):
            return f"a missing library ({first_line(error)})"
    return ""
