"""Why a call made every few milliseconds takes longer than in a hot loop: one cause at a time.

    python -m benchmarks.latency_paced --out /tmp/latency [--model gru] [--series requests] [--calls 2000]

The subject is raw ONNX Runtime with bound buffers; what happens between two calls differs. All take turns on one core.
Each condition is also asked of two probes: the clock (a fixed amount of arithmetic that needs no cache to speak of; a
slower processor shows here alone) and `observe` (plain Python, no ONNX Runtime).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.latency import pin_to_one_core
from benchmarks.latency_artifacts import MODELS, SERIES, trained
from benchmarks.machine import describe_machine
from runtime.artifact import MAX_GRAPH_BYTES, open_artifact
from runtime.bench import Subject, measure
from runtime.bench_subjects import Windows, observe, raw_subjects
from runtime.golden import read_golden
from runtime.predictor import Predictor

PAUSE_S = 0.005


def spin(seconds: float) -> None:
    """Wait without giving the core away."""
    until_ns = time.perf_counter_ns() + int(seconds * 1e9)
    while time.perf_counter_ns() < until_ns:
        pass


def conditions(call: Callable[[], object], twin: Callable[[], object]) -> dict[str, Callable[[], object] | None]:
    """What happens before each call, by name.

    Args:
        call: the model, untimed.
        twin: another session of the same graph: the same code, other data.
    """
    second_cache, third_cache = np.ones(1 << 18), np.ones(1 << 23)  # 2 and 64 MiB
    objects = [(i, str(i)) for i in range(20_000)]

    def then(*steps: Callable[[], object]) -> Callable[[], None]:
        def do() -> None:
            for step in steps:
                step()

        return do

    sleep = partial(time.sleep, PAUSE_S)
    return {
        "nothing (hot loop)": None,
        "spin 0.2 ms": partial(spin, 0.0002),
        "sleep 0.2 ms": partial(time.sleep, 0.0002),
        "spin 1 ms": partial(spin, 0.001),
        "sleep 1 ms": partial(time.sleep, 0.001),
        "spin 5 ms": partial(spin, PAUSE_S),
        "sleep 5 ms": sleep,
        "sleep 50 ms": partial(time.sleep, 0.05),
        "sleep 5 ms, spin 0.5 ms": then(sleep, partial(spin, 0.0005)),
        "sleep 5 ms, twin session": then(sleep, twin),
        "sleep 5 ms, call": then(sleep, call),
        "read 2 MiB": partial(second_cache.sum),
        "read 64 MiB": partial(third_cache.sum),
        "walk 20,000 Python tuples": lambda: sum(len(text) for _, text in objects),
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the models.")
@click.option("--model", type=click.Choice(MODELS), default="gru", show_default=True, help="Which one.")
@click.option("--series", type=click.Choice(SERIES), default="requests", show_default=True, help="Of which series.")
@click.option("--calls", type=click.IntRange(min=50), default=1000, show_default=True, help="Under each condition.")
@click.option("--busy", is_flag=True, help="A second thread of the process keeps another core busy meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(out: Path, model: str, series: str, calls: int, busy: bool, as_json: bool) -> None:
    """Time one model under every condition."""
    core = pin_to_one_core()
    (one,) = trained(out, [model], [series], again=False)
    found = open_artifact(one.artifact)
    graph = found.read("model.onnx", max_bytes=MAX_GRAPH_BYTES)
    windows = Windows(read_golden(found))
    contexts, times = windows.batch(1)
    raw, twin = (raw_subjects(graph, contexts, times, device="cpu", threads=1)[0] for _ in range(2))
    probes = {
        "model": raw,
        "observe": observe(Predictor(one.artifact, device="cpu"), windows),
        "clock": Subject(name="clock", call=partial(hashlib.pbkdf2_hmac, "sha256", b"", b"", 4000), windows=0),
    }
    between = conditions(
        partial(raw.call, *next(iter(raw.arguments(1)))), partial(twin.call, *next(iter(twin.arguments(1))))
    )
    asked = [
        dataclasses.replace(probe, name=f"{name}|{label}", before=before)
        for label, before in between.items()
        for name, probe in probes.items()
    ]
    if busy:
        threading.Thread(target=_burn, daemon=True).start()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with click.progressbar(length=len(asked) * 21, label=one.name, file=sys.stderr) as bar:
        timings = measure(asked, calls=calls, rounds=20, tick=partial(bar.update, 1))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    rows: dict[str, dict[str, Any]] = {label: {} for label in between}
    for timing in timings:
        name, _, label = timing.subject.partition("|")
        rows[label][name] = dataclasses.asdict(timing)
    if as_json:
        facts = {"date": date.today().isoformat(), "core": core, "busy": busy, "machine": describe_machine()}
        click.echo(json.dumps({"benchmark": "latency_paced", "model": one.name, **facts, "conditions": rows}, indent=1))
        return
    made = sum(t.calls for t in timings)
    click.echo(f"{one.name}: p50 (p99) in µs, {calls} calls each; {faults / made:.3f} page faults a call of all kinds")
    click.echo(f"{'before each call':<28}{'model':>18}{'vs hot':>8}{'observe':>17}{'clock probe':>17}")
    hot = rows["nothing (hot loop)"]["model"]["p50_us"]
    for label, row in rows.items():
        cells = [f"{row[name]['p50_us']:9.1f} ({row[name]['p99_us']:5.0f})" for name in probes]
        click.echo(f"{label:<28}{cells[0]:>18}{row['model']['p50_us'] / hot:>7.1f}x{cells[1]:>17}{cells[2]:>17}")


def _burn() -> None:
    square = np.ones((256, 256))
    while True:
        square @ square  # numpy lets go of the interpreter's lock


if __name__ == "__main__":
    main()
