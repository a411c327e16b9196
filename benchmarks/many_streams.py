"""Many streams before one model: forecast together and one by one, beside what batching gains ONNX Runtime itself.

    python -m benchmarks.many_streams [ARTIFACT] [--streams 1000] [--rounds 9] [--json]

Each round gives every stream one more step, then times `forecast()` of each in turn, and after another step
`forecast_many` of all; then as many windows go through a bare session, one by one in bound buffers and in batches of
several sizes. Memory is the process's own, from /proc, over the making and feeding of all streams.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "requests"
BATCHES = 16, 64, 256, 1024
TARGET_GAIN = 10.0


@click.command()
@click.argument("artifact", type=click.Path(exists=True), default=str(DEFAULT))
@click.option("--streams", type=click.IntRange(min=1), default=1000, show_default=True, help="Streams.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Rounds over all streams.")
@click.option("--adapt", is_flag=True, help="Correct the forecasts of each stream.")
@click.option("--json", "as_json", is_flag=True, help="Print every sample, the machine and the versions.")
def main(artifact: str, streams: int, rounds: int, adapt: bool, as_json: bool) -> None:
    """Time and memory of many streams, forecast together and one by one."""
    result = measure(artifact, streams=streams, rounds=rounds, adapt=adapt)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{'µs per forecast':<24}{'median':>10}{'least':>10}   {streams} streams, {rounds} rounds")
    for name, row in result["us"].items():
        click.echo(f"{name:<24}{statistics.median(row):>10.1f}{min(row):>10.1f}")
    click.echo(
        f"gain of batching: {result['gain']:.1f}x here, {result['raw_gain']:.1f}x of the bare session "
        f"(target {TARGET_GAIN:g}x)"
    )
    click.echo("bytes per stream: " + ", ".join(f"{value:.0f} {name}" for name, value in result["bytes"].items()))
    click.echo("µs per stream: " + ", ".join(f"{value:.1f} {name}" for name, value in result["snapshot_us"].items()))


def measure(artifact: str | os.PathLike[str], *, streams: int, rounds: int, adapt: bool) -> dict[str, Any]:
    """Feed all streams, then time them by turns; medians of the ratios within the rounds."""
    from runtime import Predictor

    predictor = Predictor(artifact, device="cpu", adapt=adapt, max_streams=streams)
    m = predictor.manifest
    rng = np.random.default_rng(0)
    step_s = m["bin_s"] or 1.0
    at = round(1.7e9 / step_s)

    def feed(keys: Iterable[int], steps: int) -> None:
        nonlocal at
        rows = rng.integers(1, 4000, (steps, len(m["channels"]))).astype(float).tolist()
        for key in keys:
            stream = predictor.stream(key)
            for i, row in enumerate(rows, at):
                if m["kind"] == "requests":
                    stream.observe(i * step_s, row[1], row[2])
                else:
                    stream.observe_bin(i * step_s, *row)
        at += steps

    # One stream first, so that what the library takes once is not counted as the streams' own.
    feed([-1], m["context"] + 1)
    predictor.forecast_many([-1])
    predictor.forget(-1)
    keys, before = range(streams), _rss_bytes()
    used = {}
    for key in keys:
        predictor.stream(key)
    used["new"] = (_rss_bytes() - before) / streams
    feed(keys, m["context"] + 1)
    used["with a whole context"] = (_rss_bytes() - before) / streams
    predictor.forecast_many(keys)
    used["with a forecast too"] = (_rss_bytes() - before) / streams
    begun = time.perf_counter_ns()
    data = predictor.snapshot()
    taken = time.perf_counter_ns()
    predictor.restore(data)
    restored = time.perf_counter_ns()
    used["in a snapshot"] = len(data) / streams

    raw = _Raw(artifact, m)
    windows = rng.gamma(2.0, 100.0, (streams, m["context"], len(m["channels"]))).astype(np.float32)
    us: dict[str, list[float]] = {}

    def timed(name: str, call: Any) -> None:
        begun = time.perf_counter_ns()
        call()
        us.setdefault(name, []).append((time.perf_counter_ns() - begun) / 1e3 / streams)

    handles = [predictor.stream(key) for key in keys]
    for _ in range(rounds):
        feed(keys, 1)
        timed("forecast, one by one", lambda: [stream.forecast() for stream in handles])
        feed(keys, 1)
        timed("forecast_many", lambda: predictor.forecast_many(keys))
        timed("bare, one by one", lambda: raw.one_by_one(windows))
        for batch in BATCHES:
            timed(f"bare, batches of {batch}", lambda batch=batch: raw.batches(windows, batch))
    best = min((f"bare, batches of {batch}" for batch in BATCHES), key=lambda name: statistics.median(us[name]))
    return {
        "benchmark": "many_streams",
        "artifact": {"name": m["name"], "version": m["version"], "architecture": m["architecture"]},
        "streams": streams,
        "rounds": rounds,
        "adapt": adapt,
        "gain": _ratio(us["forecast, one by one"], us["forecast_many"]),
        "raw_gain": _ratio(us["bare, one by one"], us[best]),
        "target": {"gain": TARGET_GAIN},
        "bytes": used,
        "snapshot_us": {
            "to take a snapshot": (taken - begun) / 1e3 / streams,
            "to restore it": (restored - taken) / 1e3 / streams,
        },
        "us": us,
        "machine": describe_machine(),
    }


class _Raw:
    """The same graph in a session of its own, with the same settings."""

    def __init__(self, artifact: str | os.PathLike[str], manifest: Any) -> None:
        import onnxruntime as ort

        from runtime.artifact import open_artifact

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = open_artifact(artifact).folder / "model.onnx"
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._one = np.zeros((1, manifest["context"], len(manifest["channels"])), np.float32)
        self._time_s = np.full(1, 1.7e9) if "time_s" in manifest["inputs"] else None
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("context", ort.OrtValue.ortvalue_from_numpy(self._one))
        if self._time_s is not None:
            self._binding.bind_ortvalue_input("time_s", ort.OrtValue.ortvalue_from_numpy(self._time_s))
        self._outputs = []
        for output in self._session.get_outputs():
            self._outputs.append(np.zeros((1, *output.shape[1:]), np.float32))
            self._binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(self._outputs[-1]))

    def one_by_one(self, windows: Any) -> None:
        for window in windows:
            self._one[0] = window
            self._session.run_with_iobinding(self._binding)

    def batches(self, windows: Any, batch: int) -> None:
        for i in range(0, len(windows), batch):
            feed = {"context": windows[i : i + batch]}
            if self._time_s is not None:
                feed["time_s"] = np.repeat(self._time_s, len(feed["context"]))
            self._session.run(None, feed)


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _rss_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
