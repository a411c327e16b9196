"""Forecasts while versions are swapped: is any lost, and how late does the latest come?

    python -m benchmarks.hot_swap [ARTIFACT] [--swaps 50] [--rounds 5] [--json]

A thread observes and forecasts without a pause, by turns in three settings: alone; beside a thread that swaps between
two versions with `reload` (each time hashed, opened and run on all its goldens); and beside one that does nothing but
open and drop as many bare sessions of the same graph, which is what ONNX Runtime itself costs its process. Every setting
lasts as long as the swaps do. A forecast is late when it takes more than twice the median of those made alone: longer by
a run of the model.
"""

from __future__ import annotations

import gc
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "requests"
SETTINGS = "alone", "swaps", "bare sessions"


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
    click.echo(
        f"{'µs per observe + forecast':<26}{'count':>9}{'median':>9}{'p99':>9}{'p99.9':>9}{'worst':>10}{'late':>9}"
    )
    for name, row in result["settings"].items():
        numbers = "".join(f"{row[key]:>{9 + (key == 'worst')}.1f}" for key in ("median", "p99", "p99.9", "worst"))
        click.echo(f"{name:<26}{row['count']:>9}{numbers}{row['late']:>8.2%}")
    click.echo(
        f"{result['swaps']} swaps, {result['swap_ms']:.1f} ms each (median); {result['lost']} forecasts lost: "
        "not from the model, or not of the last request"
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

    predictor = Predictor(artifact, version=1, device="cpu")
    m = predictor.manifest
    host = _Host(predictor)
    host.run(until=_after(0.2))
    each, swap_ns, lasts_s = -(-swaps // rounds), [], 0.0
    samples: dict[str, list[int]] = {name: [] for name in SETTINGS}

    def swap() -> None:
        nonlocal lasts_s
        begun = time.perf_counter_ns()
        for _ in range(each):
            at = time.perf_counter_ns()
            assert predictor.reload(3 - predictor.manifest["version"])
            swap_ns.append(time.perf_counter_ns() - at)
        lasts_s = (time.perf_counter_ns() - begun) / 1e9

    def open_sessions() -> None:
        graph = (artifact / "1" / "model.onnx").read_bytes()
        end_s, done = time.monotonic() + lasts_s, 0
        while time.monotonic() < end_s:
            if done < each:
                _bare_session(graph)
                done += 1
            time.sleep(lasts_s / each / 2)

    gc.disable()  # a collection is no part of this, and samples by the hundred thousand make it slow
    for _ in range(rounds):
        samples["swaps"] += host.run(beside=swap)
        samples["alone"] += host.run(until=_after(lasts_s))
        samples["bare sessions"] += host.run(beside=open_sessions)
    usual = statistics.median(samples["alone"])
    return {
        "benchmark": "hot_swap",
        "artifact": {"name": m["name"], "version": m["version"], "architecture": m["architecture"]},
        "swaps": len(swap_ns),
        "swap_ms": statistics.median(swap_ns) / 1e6,
        "lost": host.lost,
        "settings": {name: _describe(found, late_ns=2 * usual) for name, found in samples.items()},
        "machine": describe_machine(),
    }


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

    def run(self, *, until: Callable[[], bool] | None = None, beside: Callable[[], None] | None = None) -> list[int]:
        """Nanoseconds of each observation and forecast, until the time is over or what runs beside it has ended."""
        other = threading.Thread(target=beside)
        if beside is not None:
            other.start()
        over = until or (lambda: not other.is_alive())
        found, forecast, clock = [], self._predictor.forecast, time.perf_counter_ns
        while not over():
            begun = clock()
            self._observe()
            answer = forecast()
            found.append(clock() - begun)
            expected_s = (self._at - (0 if self._is_load else 1)) * self._step_s
            self.lost += answer.source != "model" or abs(answer.start_s - expected_s) > 1e-3
        return found

    def _observe(self) -> None:
        if self._is_load:
            self._predictor.observe_bin(self._at * self._step_s, *self._row)
        else:
            self._predictor.observe(self._at * self._step_s, *self._row)
        self._at += 1


def _after(seconds: float) -> Callable[[], bool]:
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() >= end_s


def _bare_session(graph: bytes) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _describe(samples: list[int], *, late_ns: float) -> dict[str, float]:
    ordered = sorted(samples)
    at = {"median": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}
    row: dict[str, float] = {k: ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e3 for k, q in at.items()}
    return {"count": len(ordered), **row, "late": sum(ns > late_ns for ns in ordered) / len(ordered)}


if __name__ == "__main__":
    main()
