"""The self-test of `fcast-doctor`: train, export, verify, measure, on every device, in one report to send home.

Every item is tried whatever became of the others. Without a GPU its items are skipped and say so; none of them has been
run on one. Training needs the part that the distribution's entry point `train` names; artifacts may be given instead.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import MAX_GRAPH_BYTES, open_artifact
from .bench import measure
from .bench_subjects import artifact_subjects
from .cuda_options import CudaOptions
from .device import node_placement
from .doctor import FAILED, OK, SKIPPED, WARNING, Check
from .golden import read_golden
from .predictor import Predictor
from .verify import verify

_CALLS, _ROUNDS = 1000, 10
_MEMORY_LIMIT_BYTES = 512 << 20

Progress = Callable[[str], None]


class SkippedError(Exception):
    """An item that cannot be tried here, and why."""


def selftest(
    folder: Path,
    *,
    gpus: Sequence[int],
    no_gpu: str,
    artifacts: Sequence[Path],
    train: Any,
    no_train: str,
    progress: Progress,
) -> list[Check]:
    """Try everything.

    Args:
        folder: where models are trained and exported; empty.
        gpus: indices of the GPUs that a session really ran on.
        no_gpu: why there are none; what skipped items say.
        artifacts: to be tested beside, or instead of, those trained here.
        train: the part that trains; None where there is none.
        no_train: why there is none.
        progress: told what begins.
    """
    run = _Runner(progress)
    devices = ["cpu", *(f"cuda:{index}" for index in gpus)]
    found = {open_artifact(path).manifest.name: Path(path) for path in artifacts}
    if train is None:
        run("train", lambda: _skip(no_train))
    else:
        for kind in train.kinds():
            made = run(f"train {kind}", partial(_train, train, kind, folder / "runs"))
            if made is not None:
                path = run(f"export {kind}", partial(_export, train, made, folder, kind))
                if path is not None:
                    found[kind] = path
    for number, (name, path) in enumerate(found.items()):
        for device in devices if number == 0 else devices[:2]:  # a model on every GPU, the others on the first
            run(f"verify {name} on {device}", partial(_verify, path, device))
            run(f"nodes of {name} on {device}", partial(_placement, path, device))
            run(f"latency of {name} on {device}", partial(_latency, path, device))
    gpu = devices[1] if gpus else None
    for name, path in found.items():
        run(f"cuda graph of {name}", partial(_graph, path, gpu, no_gpu))
    if found:
        name, path = next(iter(found.items()))
        run(f"memory limit for {name}", partial(_memory_limit, path, gpu, no_gpu))
        run(f"device auto for {name}", partial(_auto, path, gpu, no_gpu))
    if train is not None:
        usable = train.gpus()
        run("amp", partial(_amp, train, folder / "amp", usable, no_gpu))
        run("two processes over gloo", partial(_talk, train, "gloo", usable, no_gpu))
        run("two processes over nccl", partial(_talk, train, "nccl", usable, no_gpu))
    return run.checks


class _Runner:
    """Tries one item after the other and keeps what came out."""

    def __init__(self, progress: Progress) -> None:
        self.checks: list[Check] = []
        self._progress = progress

    def __call__(self, name: str, item: Callable[[], tuple[str, Any]]) -> Any:
        """The second of what the item gives, `facts` where it is a dictionary; None when it did not come to that."""
        self._progress(name)
        begun = time.perf_counter()
        result: Any = None
        status, remedy = OK, ""
        try:
            said, result = item()
            if said.startswith("off: "):
                status = WARNING
        except SkippedError as why:
            status, said = SKIPPED, str(why)
        except Exception as error:  # whatever it is belongs into the report
            status, said = FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
            remedy = "send the report home"
        took_s = round(time.perf_counter() - begun, 2)
        facts = {"seconds": took_s} | (result if isinstance(result, dict) else {})
        self.checks.append(Check(name=name, status=status, found=said, remedy=remedy, facts=facts))
        return result


def _skip(why: str) -> tuple[str, Any]:
    raise SkippedError(why)


def _need(gpu: str | None, no_gpu: str) -> str:
    if gpu is None:
        raise SkippedError(no_gpu)
    return gpu


def _train(train: Any, kind: str, folder: Path) -> tuple[str, Path]:
    run, wql = train.train(kind, folder)
    return f"on {train.device()}, wQL {wql:.4f}", run


def _export(train: Any, run: Path, folder: Path, kind: str) -> tuple[str, Path]:
    path: Path = train.export(run, folder / "artifacts", kind)
    return f"{path.parent.name}/{path.name}, proven", path


def _amp(train: Any, folder: Path, usable: int, no_gpu: str) -> tuple[str, None]:
    if not usable:
        raise SkippedError(no_gpu or "torch finds no CUDA device")
    return train.amp(folder), None


def _talk(train: Any, backend: str, usable: int, no_gpu: str) -> tuple[str, None]:
    if backend == "nccl" and usable < 2:
        raise SkippedError("one CUDA device, two are needed" if usable else no_gpu or "torch finds no CUDA device")
    train.talk(backend)
    return "sums agree", None


def _verify(path: Path, device: str) -> tuple[str, Any]:
    found = verify(path, device=device)
    if found.problems:
        raise ArithmeticError(found.problems[0])
    used = max(check.used for check in found.forecasts)
    return f"{found.windows} golden windows, {used:.1%} of the tolerance", {"used": used}


def _placement(path: Path, device: str) -> tuple[str, Any]:
    graph = open_artifact(path).read("model.onnx", max_bytes=MAX_GRAPH_BYTES)
    placed = node_placement(graph, device=device)
    if placed is None:
        raise SkippedError("this onnxruntime does not tell")
    counts = {provider: sum(kinds.values()) for provider, kinds in placed.items()}
    said = ", ".join(f"{count} on {provider}" for provider, count in counts.items())
    if device != "cpu" and (left := placed.get("CPUExecutionProvider")):
        said += f": {', '.join(sorted(left))}"
    return said, {"nodes": placed}


def _latency(path: Path, device: str) -> tuple[str, Any]:
    subjects = [one for one in artifact_subjects(path, device=device, threads=1, batch=1) if one.windows]
    rows = measure(subjects, calls=_CALLS, rounds=_ROUNDS)
    said = ", ".join(f"{row.subject} {row.p50_us:.0f} us" for row in rows)
    return said, {"p50_us": {row.subject: row.p50_us for row in rows}, "p99_us": {r.subject: r.p99_us for r in rows}}


def _graph(path: Path, gpu: str | None, no_gpu: str) -> tuple[str, Any]:
    gpu = _need(gpu, no_gpu)
    with_graph = Predictor(path, device=gpu, cuda=CudaOptions(graph=True))
    state = with_graph.stats()["device"]["cuda_graph"]
    if "recurrent" in state:
        raise SkippedError(state)
    if state != "on":
        return state, None
    without, on_cpu = Predictor(path, device=gpu), Predictor(path, device="cpu")
    graph_us, plain_us, cpu_us = _by_turns(path, [with_graph, without, on_cpu])
    _compare(path, with_graph, on_cpu)
    said = f"recorded and right: {graph_us:.0f} us a forecast, {plain_us:.0f} without, {cpu_us:.0f} on the cpu"
    return said, {"graph_us": graph_us, "plain_us": plain_us, "cpu_us": cpu_us}


def _memory_limit(path: Path, gpu: str | None, no_gpu: str) -> tuple[str, Any]:
    gpu = _need(gpu, no_gpu)
    limited = Predictor(path, device=gpu, cuda=CudaOptions(memory_limit_bytes=_MEMORY_LIMIT_BYTES))
    _compare(path, limited, Predictor(path, device="cpu"))
    return f"forecasts within {_MEMORY_LIMIT_BYTES >> 20} MiB", None


def _auto(path: Path, gpu: str | None, no_gpu: str) -> tuple[str, Any]:
    _need(gpu, no_gpu)
    facts = Predictor(path, device="auto").stats()["device"]
    return f"took {facts['name']}, {facts['choice']}", None


def _by_turns(path: Path, predictors: Sequence[Predictor]) -> list[float]:
    golden = read_golden(open_artifact(path))
    times: list[list[int]] = [[] for _ in predictors]
    for row in itertools.islice(itertools.cycle(range(len(golden.context))), 500):
        time_s = None if golden.time_s is None else float(golden.time_s[row])
        for predictor, took in zip(predictors, times, strict=True):
            begun = time.perf_counter_ns()
            predictor.predict(golden.context[row], time_s)
            took.append(time.perf_counter_ns() - begun)
    return [statistics.median(took) / 1e3 for took in times]


def _compare(path: Path, one: Predictor, other: Predictor) -> None:
    golden = read_golden(open_artifact(path))
    for row, context in enumerate(golden.context):
        time_s = None if golden.time_s is None else float(golden.time_s[row])
        a, b = one.predict(context, time_s), other.predict(context, time_s)
        if not np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(b).max())):
            raise ArithmeticError(f"window {row}: forecasts on {one.device} and {other.device} differ")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole or not at all: beside its place, then moved there.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(report, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
