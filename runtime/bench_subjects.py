"""What `fcast-bench` times of an artifact: the ways to ask the Predictor, beside ONNX Runtime on the same file.

The raw sessions are what one would write without this package: the same graph, the same device and number of
threads, buffers bound once or `run` with a dictionary. They neither check the window nor take the answer out.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import MAX_GRAPH_BYTES, Artifact, open_artifact
from .bench import EMPTY, Subject
from .device import import_onnxruntime
from .golden import Golden, read_golden
from .live import LiveStream
from .manifest import STEP
from .predictor import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH_S = 1.7e9

RAW, RAW_STEP = "raw onnxruntime, bound", "raw onnxruntime, one step"


class Windows:
    """Real windows of an artifact, its goldens, in any number.

    Attributes:
        golden: as they stand in the artifact.
    """

    def __init__(self, golden: Golden) -> None:
        self.golden = golden

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """(B, L, C) contexts and, of a model with a clock, (B,) times."""
        rows = np.arange(size) % len(self.golden.context)
        times = self.golden.time_s
        return self.golden.context[rows], None if times is None else times[rows]

    def steps(self) -> Iterator[list[float]]:
        """Their steps, one after the other without an end: the raw numbers of each channel."""
        channels = self.golden.context.shape[2]
        return itertools.cycle(self.golden.context.reshape(-1, channels).astype(np.float64).tolist())


def artifact_subjects(path: str | os.PathLike[str], *, device: str, threads: int, batch: int) -> list[Subject]:
    """The subjects for one setting; the first is raw ONNX Runtime with bound buffers.

    Args:
        path: as of `Predictor`.
        device: as of `Predictor`.
        threads: as of `Predictor`.
        batch: windows in one call. Streams are asked one window at a time, so they are there for 1 alone.

    Raises:
        ArtifactError, DeviceError, MissingDependencyError, InputError: as `Predictor`; also for missing goldens.
    """
    # What is fed is no traffic: a breaker would leave the model, which is what is to be timed.
    predictor = Predictor(path, device=device, threads=threads, breaker=False)
    artifact = open_artifact(path)
    windows = Windows(read_golden(artifact))
    graph = artifact.read("model.onnx", max_bytes=MAX_GRAPH_BYTES)
    contexts, times = windows.batch(batch)
    subjects = raw_subjects(graph, contexts, times, device=predictor.device, threads=threads)
    if batch > 1:
        subjects.append(_call("predict", predictor.predict, (contexts, times), windows=batch))
        return subjects
    one = contexts[0], None if times is None else float(times[0])
    subjects.append(_call("predict", predictor.predict, one))
    if artifact.manifest.state and predictor.device == "cpu":
        subjects.append(raw_step(artifact, windows, threads=threads))
    alone = Predictor(path, device=device, threads=threads)
    subjects += [observe(alone, windows), observe_and_forecast(predictor, windows)]
    if predictor.manifest["architecture"] == "dlinear":
        subjects.append(one_product(contexts.size, int(np.prod(artifact.manifest.output_shapes["forecast"]))))
    return [*subjects, EMPTY]


def raw_subjects(
    graph: bytes,
    contexts: NDArray[np.float32],
    times: NDArray[np.float64] | None,
    *,
    device: str,
    threads: int,
) -> list[Subject]:
    """ONNX Runtime itself, on `cpu` or `cuda:N`: buffers that are bound once, and `run`."""
    feed: dict[str, Any] = {"context": contexts} | ({} if times is None else {"time_s": times})
    session, names, bound = _raw(graph, feed, device=device, threads=threads)
    size = len(contexts)
    return [
        _call(RAW, session.run_with_iobinding, (bound,), windows=size),
        _call("raw onnxruntime, run", session.run, (names, feed), windows=size),
    ]


def raw_step(artifact: Artifact, windows: Windows, *, threads: int) -> Subject:
    """ONNX Runtime itself on the step graph: one step, and a state of zeros again and again."""
    contexts, times = windows.batch(1)
    feed: dict[str, Any] = {"context": contexts[:, -1:]} | ({} if times is None else {"time_s": times[:, None]})
    feed |= {name: np.zeros((1, 1, size), dtype=np.float32) for name, size in artifact.manifest.state.items()}
    graph = artifact.read(STEP, max_bytes=MAX_GRAPH_BYTES)
    session, _, bound = _raw(graph, feed, device="cpu", threads=threads)
    return _call(RAW_STEP, session.run_with_iobinding, (bound,))


def _raw(graph: bytes, feed: dict[str, Any], *, device: str, threads: int) -> tuple[Any, list[str], Any]:
    """A session, the names of its outputs, and buffers bound to it."""
    ort = import_onnxruntime()
    kind, _, index = device.partition(":")
    providers: list[Any] = [] if kind == "cpu" else [("CUDAExecutionProvider", {"device_id": index})]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=[*providers, "CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    bound = session.io_binding()
    given = {name: ort.OrtValue.ortvalue_from_numpy(array.copy()) for name, array in feed.items()}
    taken = [ort.OrtValue.ortvalue_from_numpy(array) for array in session.run(names, feed)]
    for name, value in given.items():
        bound.bind_ortvalue_input(name, value)
    for name, value in zip(names, taken, strict=True):
        bound.bind_ortvalue_output(name, value)
    bound.kept_alive = given, taken  # onnxruntime 1.18 does not keep the arrays
    return session, names, bound


def observe(predictor: Predictor, windows: Windows) -> Subject:
    """One request more in the predictor's stream."""
    m = predictor.manifest
    if m["kind"] == "requests":
        return Subject(name="observe", call=predictor.observe, arguments=_requests(windows), windows=0)
    # As many requests in a bin as there are in the real ones.
    mean = max(1.0, float(windows.golden.context[:, :, 0].mean()))
    times = itertools.count(_first_bin(m["bin_s"]) * m["bin_s"], m["bin_s"] / mean)
    tokens = (400.0, 150.0) if len(m["channels"]) == 3 else ()
    return Subject(
        name="observe",
        call=predictor.observe,
        arguments=lambda n: [(next(times), *tokens) for _ in range(n)],
        windows=0,
    )


def observe_and_forecast(predictor: Predictor, windows: Windows) -> Subject:
    """One step more, a request or a bin, and the forecast that it makes necessary; the history is full."""
    take_in, arguments = feed(predictor, predictor.manifest, windows)
    forecast = predictor.forecast
    for given in arguments(predictor.manifest["context"] + 2):
        take_in(*given)

    def call(*step: float) -> None:
        take_in(*step)
        forecast()

    return Subject(name=f"{take_in.__name__} + forecast", call=call, arguments=arguments)


def feed(
    stream: Predictor | LiveStream, manifest: Mapping[str, Any], windows: Windows
) -> tuple[Callable[..., None], Callable[[int], list[tuple[float, ...]]]]:
    """How a stream takes in a step, a request or a bin, and what gives the arguments of the next n of them."""
    if manifest["kind"] == "load":
        return stream.observe_bin, _bins(windows, manifest["bin_s"])
    return stream.observe, _requests(windows)


def one_product(values: int, outputs: int) -> Subject:
    """The arithmetic of a folded DLinear and no more: one matrix in log space, (L * C) to (H * C * Q)."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(values, outputs)).astype(np.float32) / values
    offset, window = np.zeros(outputs, np.float32), rng.gamma(2.0, 1.0, values).astype(np.float32)

    def call() -> object:
        return np.expm1(np.log1p(window) @ matrix + offset)

    return Subject(name="numpy, one product", call=call)


def _requests(windows: Windows) -> Callable[[int], list[tuple[float, ...]]]:
    steps = windows.steps()
    now_s = _EPOCH_S

    def arguments(calls: int) -> list[tuple[float, ...]]:
        nonlocal now_s
        made = []
        for inter_arrival_s, *tokens in itertools.islice(steps, calls):
            now_s += inter_arrival_s
            made.append((now_s, *tokens))
        return made

    return arguments


def _bins(windows: Windows, bin_s: float) -> Callable[[int], list[tuple[float, ...]]]:
    steps, bins = windows.steps(), itertools.count(_first_bin(bin_s))
    return lambda calls: [(next(bins) * bin_s, *next(steps)) for _ in range(calls)]


def _first_bin(bin_s: float) -> int:
    return int(_EPOCH_S // bin_s)


def _call(name: str, call: Callable[..., object], given: tuple[Any, ...], *, windows: int = 1) -> Subject:
    return Subject(name=name, call=call, arguments=lambda calls: itertools.repeat(given, calls), windows=windows)
