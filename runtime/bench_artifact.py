"""All settings of a `fcast-bench`: devices, threads, batches, hot and paced, and the cold start, as one JSON object."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .artifact import Artifact, open_artifact
from .bench import ROUNDS, Subject, measure, paced
from .bench_start import measure_start
from .bench_streams import stream_subjects
from .bench_subjects import Windows, artifact_subjects
from .errors import DeviceError, MissingDependencyError
from .extras import extra
from .golden import read_golden
from .predictor import Predictor

_FEWEST_CALLS = 200
_MOST_STARTS = 5
_FEWEST_TURNS = 5
_PACKAGES = ("fcast", "numpy", "onnxruntime", "onnxruntime-gpu", "torch")

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(what is measured now, its turns) -> a context that gives a function to be told how many turns are done."""


def bench_artifact(
    path: str | os.PathLike[str],
    *,
    device: str | None,
    threads: Sequence[int],
    batches: Sequence[int],
    calls: int,
    paced_ms: float | None,
    streams: int | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: Progress,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Time an artifact in every combination of the settings.

    Args:
        path: as of `Predictor`.
        device: as of `Predictor`; None for the CPU, and CUDA where it works.
        threads: threads inside one operator, each a setting.
        batches: windows in a call, each a setting.
        calls: of each subject at batch 1; of B windows a B-th, at least 200.
        paced_ms: also make a tenth of the calls at batch 1 with so many milliseconds of sleep before each.
        streams: also forecast for so many streams, one by one and together; None for not.
        checkpoint: the run folder it was exported from, to time eager torch too; None for not.
        progress: shows it.
        warn: is told what is left out.

    Returns:
        What `fcast-bench --json` prints.

    Raises:
        ArtifactError, DeviceError, MissingDependencyError, InputError: as `Predictor`; also for missing goldens.
        ValueError: the checkpoint is missing, damaged or another one.
    """
    found = open_artifact(path)
    devices = _devices(path, device)
    torch = extra("fcast.bench", "torch")
    without_torch = torch.why_no_torchscript(found) if torch else "the distribution fcast is not installed"
    if checkpoint is not None and not torch:
        raise MissingDependencyError(
            "--checkpoint: expected the distribution fcast, got a copied folder; pip install fcast"
        )
    if without_torch:
        warn(f"torchscript is left out: {without_torch}")
    runs = []
    for on, thread, batch in [(d, t, b) for d in devices for t in threads for b in batches]:
        subjects = artifact_subjects(path, device=on, threads=thread, batch=batch)
        if on == "cpu":
            given = Windows(read_golden(found)).batch(batch)
            if checkpoint is not None:
                subjects.insert(3, torch.eager_subject(checkpoint, found, *given, threads=thread))
            if without_torch is None:
                subjects.insert(3, torch.torchscript_subject(found, *given, threads=thread))
        paces: list[tuple[int, float | None]] = [(calls if batch == 1 else max(_FEWEST_CALLS, calls // batch), None)]
        if paced_ms and batch == 1:
            paces.append((max(ROUNDS, calls // 10), paced_ms))
        for number, pace_ms in paces:
            setting = f"{on}, {thread} thread{'s' * (thread > 1)}, batch {batch}"
            setting += f", {pace_ms:g} ms before each call" if pace_ms else ""
            asked = [paced(subject, pace_ms / 1e3) for subject in subjects] if pace_ms else subjects
            facts = {"device": on, "threads": thread, "batch": batch, "paced_ms": pace_ms, "streams": None}
            runs.append(_run(setting, asked, facts, progress, calls=number))
    if streams is not None:
        for on, thread in [(d, t) for d in devices for t in threads]:
            setting = f"{on}, {thread} thread{'s' * (thread > 1)}, {streams:,} streams, all of them a call"
            asked = stream_subjects(path, device=on, threads=thread, streams=streams)
            facts = {"device": on, "threads": thread, "batch": None, "paced_ms": None, "streams": streams}
            number = max(_FEWEST_TURNS, calls // streams)
            runs.append(_run(setting, asked, facts, progress, calls=number, rounds=min(ROUNDS, number)))
    with progress("cold start", 1) as tick:
        start = measure_start(found, pairs=max(1, min(_MOST_STARTS, calls // 1000)))
        tick(1)
    return {
        "benchmark": "fcast-bench",
        "date": date.today().isoformat(),
        "artifact": _artifact(found),
        "machine": _machine(),
        "cold_start": start,
        "runs": runs,
    }


def _run(
    setting: str,
    subjects: Sequence[Subject],
    facts: dict[str, Any],
    progress: Progress,
    *,
    calls: int,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    with progress(setting, len(subjects) * (rounds + 1)) as tick:
        timings = measure(subjects, calls=calls, rounds=rounds, tick=lambda: tick(1))
    return {"setting": setting, **facts, "rows": [dataclasses.asdict(timing) for timing in timings]}


def _devices(path: str | os.PathLike[str], device: str | None) -> list[str]:
    if device is not None:
        return [Predictor(path, device=device).device]
    try:
        return ["cpu", Predictor(path, device="cuda").device]
    except DeviceError:
        return ["cpu"]


def _artifact(found: Artifact) -> dict[str, Any]:
    m = found.manifest
    facts = {"name": m.name, "version": m.version, "kind": m.kind, "context": m.context, "horizon": m.horizon}
    shape = {"channels": len(m.channels), "levels": len(m.levels)}
    return facts | shape | {"graph_bytes": found.manifest.files["model.onnx"].size_bytes}


def _machine() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": versions,
    }
