"""Every device-dependent line of the runtime: which device was asked for, which one really runs.

ONNX Runtime falls back to the CPU by itself when CUDA cannot load, and says so only on the console. Here the
providers are read back from the session: `cuda` means CUDA or a DeviceError, `auto` may end on the CPU and says so.

What is done on a GPU is in cuda.py. Neither has been run on one; the decisions are tested with a stand-in for
onnxruntime.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from .binding import Binding
from .cuda_options import CudaOptions, provider_options
from .errors import ArtifactError, DeviceError, InputError, MissingDependencyError
from .fields import plain, show
from .forks import refuse_after_fork
from .graph import check_graph_bytes
from .manifest import Manifest
from .stats import Stats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SEE_DOCTOR = "run fcast-doctor, which says what is missing, or take device='cpu'"
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_QUIET = 4  # what fails raises; the same on the console would be a line per forecast


class Session:
    """A loaded graph on one device.

    Attributes:
        device: `cpu` or `cuda:N`, read back from ONNX Runtime.
        providers: its execution providers, first choice first, read back too.
        choice: why this device runs.
        cuda_graph: `on`, `off`, or `off: ` and why it was asked for in vain.
        stats: counters of its runs.
    """

    choice, cuda_graph = "asked for", "off"

    def __init__(self, ort: Any, session: Any, manifest: Manifest) -> None:
        self._ort, self._session, self._manifest = ort, session, manifest
        self.stats = Stats()
        self._free: list[Binding] = []
        self._takes_time = manifest.takes_time
        self._outputs = list(manifest.outputs)
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self.device = "cpu"
        if self.providers[0] == _CUDA:
            self.device = f"cuda:{session.get_provider_options()[_CUDA].get('device_id', '0')}"

    def take_binding(self) -> Binding:
        """Buffers for one window that no other thread has; give them back, so that there are as many as threads."""
        try:
            return self._free.pop()
        except IndexError:
            return self._bind()

    def _bind(self) -> Binding:
        return Binding(self._ort, self._session, self._manifest, self.stats.row())

    def return_binding(self, binding: Binding) -> None:
        """Hand buffers on to the next taker."""
        self._free.append(binding)

    def metadata(self) -> dict[str, str]:
        """What the graph's file says about itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def facts(self) -> dict[str, Any]:
        """What runs and why, as `Predictor.stats` tells it."""
        graph = {} if self.device == "cpu" else {"cuda_graph": self.cuda_graph}
        return {"name": self.device, "providers": list(self.providers), "choice": self.choice} | graph

    def run(self, context: NDArray[np.float32], time_s: NDArray[np.float64] | None) -> dict[str, NDArray[np.float32]]:
        """Run the graph: (B, L, C) float32 and, where it takes time, (B,) float64 to its outputs by name."""
        feed: dict[str, Any] = {"context": context}
        if self._takes_time:
            feed["time_s"] = time_s
        begun = perf_counter_ns()
        found = self._call(feed)
        self.stats.count_batch(perf_counter_ns() - begun, len(context))
        return dict(zip(self._outputs, found, strict=True))

    def _call(self, feed: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._outputs, feed)
        return found


def devices() -> tuple[str, ...]:
    """Kinds of devices that the installed onnxruntime was built for; whether they work, a session tells.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or broken.
    """
    return ("cpu", "cuda") if _CUDA in import_onnxruntime().get_available_providers() else ("cpu",)


def open_session(
    model: bytes, manifest: Manifest, *, device: str, threads: int, where: str, cuda: CudaOptions | None = None
) -> Session:
    """Load a graph on a device.

    Args:
        model: content of model.onnx.
        manifest: what the graph must look like.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes the faster of the CPU and a CUDA that works.
        threads: threads inside one operator.
        where: path of the file, for the error texts.
        cuda: how a GPU is used.

    Raises:
        InputError: `device`, `threads` or `cuda` is none.
        MissingDependencyError: onnxruntime is not installed, or broken.
        DeviceError: CUDA was asked for and cannot run here; the text says what is missing.
        ArtifactError: the graph cannot be loaded, or differs from the manifest.
    """
    index = _parse_device(device)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InputError(f"threads: expected a whole number from 1 to 1024, got {threads!r}")
    if cuda is not None and not isinstance(cuda, CudaOptions):
        raise InputError(f"cuda: expected CudaOptions or None, got {show(cuda)}")
    check_graph_bytes(model, where=where)
    ort = import_onnxruntime()
    compiled_in = _CUDA in ort.get_available_providers()
    on_cuda: Session | None = None
    choice = "asked for"
    if device == "auto" and not compiled_in:
        choice = "this onnxruntime has no CUDA"
    elif device != "cpu":
        if not compiled_in:
            raise DeviceError(
                f"device: expected an onnxruntime with CUDA for '{device}', got onnxruntime {ort.__version__} without "
                "it; pip uninstall -y onnxruntime && pip install 'fcast[gpu]', or take device='cpu'"
            )
        on_cuda, reason = _open_cuda(ort, model, manifest, index, threads, where, cuda)
        if on_cuda is None:
            if device != "auto":
                raise DeviceError(f"device: expected '{device}' to run the model, got {reason}; {_SEE_DOCTOR}")
            choice = _without_cuda(reason)
    if on_cuda is not None and device != "auto":
        opened = on_cuda
    else:
        session = _create_on_cpu(ort, model, threads, where)
        _check_graph(session, manifest, where)
        opened = Session(ort, session, manifest)
        opened.choice = choice
        if on_cuda is not None:
            from .cuda import faster

            try:
                opened = faster(on_cuda, opened)
            except Exception as error:  # of a GPU that ran once and no more
                opened.choice = _without_cuda(first_line(error))
    if threads > 1 or opened.device != "cpu":
        refuse_after_fork(opened)
    return opened


def open_on_cpu(model: bytes, *, threads: int, where: str) -> tuple[Any, Any]:
    """The module onnxruntime, and a session of a graph whose inputs and outputs the caller checks.

    Raises:
        ArtifactError: the graph cannot be loaded.
    """
    check_graph_bytes(model, where=where)
    ort = import_onnxruntime()
    return ort, _create_on_cpu(ort, model, threads, where)


def _without_cuda(reason: str) -> str:
    """Say that `auto` goes on without CUDA; the choice to be told."""
    warnings.warn(
        f"device: CUDA is built in but does not work, running on the CPU: {reason}; {_SEE_DOCTOR}",
        RuntimeWarning,
        stacklevel=5,
    )
    return f"CUDA does not work: {reason}"


def _create_on_cpu(ort: Any, model: bytes, threads: int, where: str) -> Any:
    try:
        return _create(ort, model, [_CPU], threads)
    except Exception as error:  # onnxruntime has a dozen exception classes under Exception alone
        raise ArtifactError(
            f"{where}: expected a graph that onnxruntime {ort.__version__} loads, got {first_line(error)}; "
            "upgrade onnxruntime or export with an older --opset"
        ) from None


def _parse_device(device: str) -> int:
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", device) if isinstance(device, str) else None
    if match is None:
        raise InputError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return int(match.group(1) or 0)


def import_onnxruntime() -> Any:
    """The module onnxruntime, which from 1.29 on tells its maker of each session unless it is told not to before.

    So it is, unless the environment says otherwise. Where the host imported it first, that is the host's choice.

    Raises:
        MissingDependencyError: it is not installed, or broken.
    """
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime: expected it installed, got {error}; pip install 'fcast[cpu]' (or 'fcast[gpu]')"
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "onnxruntime: expected a whole package, got an empty one, as it stays behind when onnxruntime and "
            "onnxruntime-gpu were both installed; pip uninstall both, then pip install 'fcast[cpu]' (or 'fcast[gpu]')"
        )
    return onnxruntime


def _create(ort: Any, model: bytes, providers: Sequence[Any], threads: int, *, record: bool = False) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    # Its arena keeps the most that any batch needed, in pieces that a swap cannot give back to the system: with it a
    # life of swaps grew by half (benchmarks/soak.py). Without it one window takes no longer.
    options.enable_cpu_mem_arena = False
    # Bytes could also be in ONNX Runtime's own format, which the checks of graph.py do not read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for scope in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{scope}.allow_spinning", "0")
    if record:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    session.disable_fallback()  # nor may a failing call move to another device later
    return session


def _open_cuda(
    ort: Any, model: bytes, manifest: Manifest, index: int, threads: int, where: str, options: CudaOptions | None
) -> tuple[Session | None, str]:
    """A session whose first provider is CUDA and that has run once; or None and the reason."""
    from .cuda import DeviceSession, is_recurrent, why_not

    options = options or CudaOptions()
    if options.graph and is_recurrent(model):
        found, reason = _open_cuda(ort, model, manifest, index, threads, where, replace(options, graph=False))
        if found is not None:
            found.cuda_graph = "off: a recurrent model's cannot be recorded"
        return found, reason
    try:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        session = _create(ort, model, [(_CUDA, provider_options(index, options)), _CPU], threads)
        providers = session.get_providers()
        if not providers or providers[0] != _CUDA:
            return None, why_not(ort) or f"a session on {', '.join(providers) or 'no provider'}"
        _check_graph(session, manifest, where)
        opened = DeviceSession(ort, session, manifest, place=("cuda", index), graph=options.graph)
        opened.warm_up()
        return opened, ""
    except ArtifactError:
        raise
    except Exception as error:  # as above; also what preload_dlls lets through
        reason = first_line(error)
    if not options.graph:
        return None, reason
    found, without = _open_cuda(ort, model, manifest, index, threads, where, replace(options, graph=False))
    if found is not None:
        found.cuda_graph = f"off: {reason}"
    return found, without


def first_line(error: Exception) -> str:
    """An error of onnxruntime for an error text: its first line, which may hold bytes of a hostile graph."""
    text = str(error).strip() or type(error).__name__
    return plain(text.splitlines()[0][:300])


def _check_graph(session: Any, manifest: Manifest, where: str) -> None:
    """Compare names, types and dimensions with the manifest; a dimension without a number is not compared."""
    window = (manifest.context, len(manifest.channels))
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {"context": ("tensor(float)", window)}
    if manifest.takes_time:
        wanted["time_s"] = ("tensor(double)", ())
    _check_ends(session.get_inputs(), wanted, "inputs", where)
    given = {name: ("tensor(float)", shape) for name, shape in manifest.output_shapes.items()}
    _check_ends(session.get_outputs(), given, "outputs", where)


def _check_ends(ends: Sequence[Any], wanted: Mapping[str, tuple[str, tuple[int, ...]]], what: str, where: str) -> None:
    try:
        names = [end.name for end in ends]
        found = {end.name: (end.type, list(end.shape)) for end in ends}
    except UnicodeDecodeError:
        raise ArtifactError(
            f"{where}: expected the names of the {what} in UTF-8, got other bytes; export again"
        ) from None
    if sorted(names) != sorted(wanted):
        got = plain(", ".join(names))[:200]
        raise ArtifactError(f"{where}: expected the {what} {', '.join(wanted)}, got {got}; export again")
    for name, (kind, dims) in wanted.items():
        given, shape = found[name]
        fits = len(shape) == 1 + len(dims) and not isinstance(shape[0], int)
        fits = fits and all(a == b for a, b in zip(shape[1:], dims, strict=True) if isinstance(a, int))
        if given != kind or not fits:
            axes = plain(", ".join(map(str, shape)))
            raise ArtifactError(
                f"{where}: expected '{name}' to be {kind} (batch{''.join(f', {d}' for d in dims)}), "
                f"got {given} ({axes}); the graph is not the one of the manifest, export again"
            )


def node_placement(model: bytes, *, device: str) -> dict[str, dict[str, int]] | None:
    """How many nodes of each operator run on which execution provider, after onnxruntime's own changes to the graph.

    Args:
        model: content of model.onnx.
        device: `cpu` or `cuda:N`.

    Returns:
        Provider -> operator -> count; None where this onnxruntime does not tell.
    """
    ort = import_onnxruntime()
    cuda = (_CUDA, provider_options(_parse_device(device), CudaOptions()))
    session = _create(ort, model, [_CPU] if device == "cpu" else [cuda, _CPU], 1, record=True)
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    found: dict[str, dict[str, int]] = {}
    for part in session.get_provider_graph_assignment_info():
        on = found.setdefault(part.ep_name, {})
        for node in part.get_nodes():
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            on[name] = on.get(name, 0) + 1
    return found
