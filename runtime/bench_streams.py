"""What `fcast-bench --streams N` times: one more step in each of N streams, then a forecast for each of them.

One by one and together, beside the same windows through ONNX Runtime itself, one by one and in batches: what batching
gains is the bare session's gain, less what each stream costs either way.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .artifact import MAX_GRAPH_BYTES, open_artifact
from .bench import Subject
from .bench_subjects import Windows, feed, raw_subjects
from .golden import read_golden
from .predictor import Predictor
from .together import PIECE


def stream_subjects(path: str | os.PathLike[str], *, device: str, threads: int, streams: int) -> list[Subject]:
    """The subjects of so many streams; the first is raw ONNX Runtime, one window after the other in bound buffers.

    Args:
        path: as of `Predictor`.
        device: as of `Predictor`.
        threads: as of `Predictor`.
        streams: how many; all have a whole context behind them.

    Raises:
        ArtifactError, DeviceError, MissingDependencyError, InputError: as `Predictor`; also for missing goldens.
    """
    artifact = open_artifact(path)
    windows = Windows(read_golden(artifact))
    predictor = Predictor(path, device=device, threads=threads, max_streams=streams, breaker=False)
    graph = artifact.read("model.onnx", max_bytes=MAX_GRAPH_BYTES)

    def raw(batch: int) -> Callable[[], object]:
        calls = []
        for size, times in ((batch, streams // batch), (streams % batch, 1)):
            if size:
                bound = raw_subjects(graph, *windows.batch(size), device=predictor.device, threads=threads)[0]
                calls += [(bound.call, *given) for given in bound.arguments(1)] * times
        return lambda: [call(*given) for call, *given in calls]

    keys = range(streams)
    handles = [predictor.stream(key) for key in keys]
    give = [feed(handle, predictor.manifest, windows) for handle in handles]

    def one_more_step() -> None:
        for take_in, arguments in give:
            for given in arguments(1):
                take_in(*given)

    for take_in, arguments in give:
        for given in arguments(predictor.manifest["context"] + 2):
            take_in(*given)
    piece = min(PIECE, streams)
    return [
        Subject(name="raw, one by one", call=raw(1), windows=streams),
        Subject(name=f"raw, batches of {piece}", call=raw(piece), windows=streams),
        Subject(
            name="forecast, one by one",
            call=lambda: [handle.forecast() for handle in handles],
            windows=streams,
            before=one_more_step,
        ),
        Subject(
            name="forecast_many", call=lambda: predictor.forecast_many(keys), windows=streams, before=one_more_step
        ),
    ]
