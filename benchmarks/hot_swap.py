"""Forecasts while versions are swapped: is any lost, and how late does the latest come?

    python -m benchmarks.hot_swap [ARTIFACT] [--swaps 50] [--rounds 5] [--json]

A thread observes and forecasts without a pause, by turns in four settings: alone; beside a thread that swaps between
two versions with `reload` (each time hashed, opened and run on all its goldens); beside one that opens and drops as
many bare sessions of the same graph, which is what ONNX Runtime itself costs its process; and beside one that hashes
for as long, without the interpreter, which is what any other thread costs where cores are few.

A forecast is late when it takes more than twice the median of those made alone, longer by a run of the model. On shared
cores the worst of all is the system's: what a swap adds is seen in the latest forecast of each one, by the median of
all swaps, beside the latest in as many spans of the same length alone.

On Linux the time is told in which a forecast neither ran nor waited for a core: that is what it waited for Python's
interpreter, which the other thread held. It is given for a whole swap, and for the forecast that waited the longest.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np

from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "requests"
SETTINGS = "alone", "hashing", "bare sessions", "swaps"
_SMALLEST_WAIT_NS = 5_000  # what three clocks, read one after the other, may differ by
Sample: TypeAlias = "tuple[int, int, int]"
"""When it began, how long it took, and how much of that it waited for the interpreter, in nanoseconds."""


@click.command()
@click.argument("artifact", type=click.Path(exists=True), default=str(DEFAULT))
@click.option("--swaps", type=click.IntRange(min=1), default=50, show_default=True, help="Swaps in all.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of the settings.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, the machine and the versions.")
def main(artifact: str, swaps: int, rounds: int, as_json: bool) -> None:
    """Forecasts lost and late while versions are swapped."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(two_versions(Path(artifact), Path(folder)), swaps=swaps, rounds=rounds)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    heads = ("count", "median", "p99", "worst", "latest of a span", "late", "waits in a span", "longest wait")
    click.echo(f"{'µs per observe + forecast':<26}" + "".join(f"{head:>{len(head) + 4}}" for head in heads))
    for name, row in result["settings"].items():
        values = (
            row["count"],
            *(f"{row[key]:.0f}" for key in ("median", "p99", "worst", "latest")),
            f"{row['late']:.1%}",
            *(f"{row[key]:.0f}" for key in ("waits", "longest_wait")),
        )
        click.echo(f"{name:<26}" + "".join(f"{v:>{len(head) + 4}}" for head, v in zip(heads, values, strict=True)))
    click.echo(
        f"{result['swaps']} swaps, {result['swap_ms']:.1f} ms each (median); {result['lost']} forecasts lost: "
        f"not from the model, or not of the last request; a model kept takes {result['kept_bytes'] / 1e6:.1f} MB"
    )


def two_versions(artifact: Path, folder: Path) -> Path:
    """An artifact whose versions 1 and 2 are both the newest of another one."""
    from runtime.artifact import open_artifact
    from runtime.manifest import self_sha256

    source = open_artifact(artifact).folder
    for version in (1, 2):
        to = Path(shutil.copytree(source, folder / source.parent.name / str(version)))
        manifest = json.loads((to / "manifest.json").read_text(encoding="utf-8")) | {"version": version}
        manifest["self_sha256"] = self_sha256(manifest)
        (to / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder / source.parent.name


def measure(artifact: Path, *, swaps: int, rounds: int) -> dict[str, Any]:
    """Take the settings by turns and put their samples together."""
    from runtime import Predictor

    predictor = Predictor(artifact, version=1, device="cpu", breaker=False)
    m = predictor.manifest
    graph = (artifact / "1" / "model.onnx").read_bytes()
    host = _Host(predictor)
    host.run(_Beside(lambda: time.sleep(0.2), 1))
    each = -(-swaps // rounds)
    took_s = 0.0
    settings: dict[str, Callable[[], object]] = {
        "swaps": lambda: predictor.reload(3 - predictor.manifest["version"]),
        "alone": lambda: time.sleep(took_s),
        "bare sessions": lambda: _bare_session(graph),
        "hashing": lambda: _hash(took_s),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in settings}
    spans: dict[str, list[Sample]] = {name: [] for name in settings}
    gc.disable()  # a collection is no part of this, and samples by the hundred thousand make it slow
    for _ in range(rounds):
        for name, what in settings.items():
            beside = _Beside(what, each)
            samples[name] += host.run(beside)
            spans[name] += beside.spans
            if name == "swaps":
                took_s = statistics.median(ns for _, ns, _ in beside.spans) / 1e9
    gc.enable()
    usual = statistics.median(ns for _, ns, _ in samples["alone"])
    return {
        "benchmark": "hot_swap",
        "artifact": {"name": m["name"], "version": m["version"], "architecture": m["architecture"]},
        "swaps": len(spans["swaps"]),
        "swap_ms": statistics.median(ns for _, ns, _ in spans["swaps"]) / 1e6,
        "lost": host.lost,
        "kept_bytes": _bytes_of_a_model(artifact),
        "settings": {name: _describe(samples[name], spans[name], late_ns=2 * usual) for name in SETTINGS},
        "machine": describe_machine(),
    }


def _bytes_of_a_model(artifact: Path) -> float:
    """What one more open model adds to the process's RSS: the mean of ten, each run once."""
    from runtime.model import Model

    models, before = [], rss_bytes()
    for _ in range(10):
        models.append(Model(artifact, version=1, device="cpu", threads=1))
        m = models[-1].manifest
        window = np.ones((m.context, len(m.channels)), np.float32)
        models[-1].outputs(window, 1.7e9 if m.takes_time else None)
    return (rss_bytes() - before) / len(models)


def rss_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class _Beside(threading.Thread):
    """Does something so many times, and keeps when."""

    def __init__(self, what: Callable[[], object], times: int) -> None:
        super().__init__()
        self._what, self._times = what, times
        self.spans: list[Sample] = []

    def run(self) -> None:
        for _ in range(self._times):
            begun = time.perf_counter_ns()
            self._what()
            self.spans.append((begun, time.perf_counter_ns() - begun, 0))


class _Host:
    """What a scheduler does, without a pause."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        m = predictor.manifest
        self._is_load, self._step_s = m["kind"] == "load", m["bin_s"] or 1.0
        self._row = (float(37), 512.0, 128.0)[: len(m["channels"])] if self._is_load else (512.0, 128.0)
        self._at = round(1.7e9 / self._step_s)
        self.lost = 0
        for _ in range(m["context"] + 1):
            self._observe()

    def run(self, beside: _Beside) -> list[Sample]:
        """Each observation with its forecast, until what runs beside it has ended."""
        found: list[Sample] = []
        forecast, clock, ran = self._predictor.forecast, time.perf_counter_ns, time.thread_time_ns
        queued = _queued_ns()
        beside.start()
        while not found or beside.is_alive():
            busy = queued() + ran()
            begun = clock()
            self._observe()
            answer = forecast()
            took = clock() - begun
            found.append((begun, took, max(0, took - (ran() + queued() - busy))))
            expected_s = (self._at - (0 if self._is_load else 1)) * self._step_s
            self.lost += answer.source != "model" or abs(answer.start_s - expected_s) > 1e-3
        return found

    def _observe(self) -> None:
        if self._is_load:
            self._predictor.observe_bin(self._at * self._step_s, *self._row)
        else:
            self._predictor.observe(self._at * self._step_s, *self._row)
        self._at += 1


def _queued_ns() -> Callable[[], int]:
    """Gives for how long this thread has waited for a core so far; on a system that does not tell, 0."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    if not path.exists():
        return lambda: 0
    file = os.open(path, os.O_RDONLY)
    return lambda: int(os.pread(file, 100, 0).split()[1])


def _hash(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        hashlib.sha256(bytes(1 << 18))


def _bare_session(graph: bytes) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _describe(samples: list[Sample], spans: list[Sample], *, late_ns: float) -> dict[str, float]:
    ordered = sorted(ns for _, ns, _ in samples)
    at = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    row: dict[str, float] = {k: ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e3 for k, q in at.items()}
    begun = [start for start, _, _ in samples]
    latest = []
    for start, ns, _ in spans:
        # Also the one that was under way when the span began.
        inside = samples[max(0, bisect_left(begun, start) - 1) : bisect_left(begun, start + ns)]
        latest.append(max((each for _, each, _ in inside), default=0))
    late = sum(ns > late_ns for ns in ordered) / len(ordered)
    waits = [wait for _, _, wait in samples if wait > _SMALLEST_WAIT_NS]
    row |= {"waits": sum(waits) / len(spans) / 1e3, "longest_wait": max(waits, default=0) / 1e3}
    return {"count": len(ordered), **row, "latest": statistics.median(latest) / 1e3, "late": late}


if __name__ == "__main__":
    main()
