"""From process start to the first forecast: the runtime against a bare script of numpy and onnxruntime.

    python -m benchmarks.cold_start [ARTIFACT] [--pairs 15] [--json]

Both subjects load the same model.onnx with the same settings and run it once on the same context. They take turns, each
run a fresh process, after one run of each that warms the disk cache. Wall time is from before the process is made to
after its forecast, on the machine's monotonic clock; memory is the process's own, from /proc, after the forecast.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "load"
TARGET_RATIO, TARGET_RSS_MB = 1.5, 15.0

# argv: artifact folder, L, C, takes time
_BARE = """
import sys
import numpy as np
import onnxruntime as ort
folder, steps, channels, clock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
feed = {"context": np.full((1, steps, channels), 3, dtype=np.float32)}
if clock:
    feed["time_s"] = np.array([1.7e9])
forecast = session.run(["forecast"], feed)[0]
"""
_RUNTIME = """
import sys
import numpy as np
from runtime import Predictor
folder, steps, channels, clock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
predictor = Predictor(folder, device="cpu")
context = np.full((1, steps, channels), 3, dtype=np.float32)
forecast = predictor.predict(context, 1.7e9 if clock else None)
"""
_REPORT = """
import time
done_ns = time.monotonic_ns()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
kb = lambda key: int(status[key].split()[0])
print(done_ns, kb("VmRSS"), kb("VmHWM"), float(forecast.sum()))
"""
SUBJECTS = {"runtime": _RUNTIME, "bare": _BARE}


@click.command()
@click.argument("artifact", type=click.Path(exists=True), default=str(DEFAULT))
@click.option("--pairs", type=click.IntRange(min=1), default=15, show_default=True, help="Runs of each subject.")
@click.option("--json", "as_json", is_flag=True, help="Print every sample, the machine and the versions.")
def main(artifact: str, pairs: int, as_json: bool) -> None:
    """Time and memory to the first forecast, beside a bare numpy + onnxruntime script."""
    result = measure(artifact, pairs=pairs)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{'subject':<10}{'wall ms':>10}{'RSS MB':>10}{'peak MB':>10}   median of {pairs}")
    for name in SUBJECTS:
        row = result["median"][name]
        click.echo(f"{name:<10}{row['wall_ms']:>10.1f}{row['rss_mb']:>10.1f}{row['peak_rss_mb']:>10.1f}")
    click.echo(f"ratio of wall times {result['wall_ratio']:.2f} (target <= {TARGET_RATIO})")
    click.echo(
        f"more memory: {result['rss_more_mb']:.1f} MB, at peak {result['peak_rss_more_mb']:.1f} MB "
        f"(target <= {TARGET_RSS_MB:g})"
    )


def measure(artifact: str | os.PathLike[str], *, pairs: int) -> dict[str, Any]:
    """Run both subjects `pairs` times by turns; medians, and the median of the ratios within the pairs."""
    from runtime.artifact import open_artifact

    found = open_artifact(artifact)
    manifest = found.manifest
    arguments = [str(found.folder.resolve()), str(manifest.context), str(len(manifest.channels))]
    arguments.append("1" if manifest.takes_time else "0")
    for name in SUBJECTS:
        _sample(name, arguments)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    for i in range(pairs):
        for name in sorted(SUBJECTS, reverse=i % 2 == 0):
            samples[name].append(_sample(name, arguments))
    median = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in samples.items()
    }
    ratios = [a["wall_ms"] / b["wall_ms"] for a, b in zip(samples["runtime"], samples["bare"], strict=True)]
    return {
        "benchmark": "cold_start",
        "artifact": {"name": manifest.name, "version": manifest.version, "graph_bytes": _graph_bytes(found.folder)},
        "pairs": pairs,
        "wall_ratio": statistics.median(ratios),
        "rss_more_mb": median["runtime"]["rss_mb"] - median["bare"]["rss_mb"],
        "peak_rss_more_mb": median["runtime"]["peak_rss_mb"] - median["bare"]["peak_rss_mb"],
        "target": {"wall_ratio": TARGET_RATIO, "rss_more_mb": TARGET_RSS_MB},
        "median": median,
        "samples": samples,
        "machine": describe_machine(),
    }


def _sample(name: str, arguments: list[str]) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    begun_ns = time.monotonic_ns()
    child = subprocess.run(
        [sys.executable, "-c", SUBJECTS[name] + _REPORT, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=True,
    )
    done_ns, rss_kb, peak_kb, _ = child.stdout.split()
    return {
        "wall_ms": (int(done_ns) - begun_ns) / 1e6,
        "rss_mb": int(rss_kb) / 1024,
        "peak_rss_mb": int(peak_kb) / 1024,
    }


def _graph_bytes(folder: Path) -> int:
    return (folder / "model.onnx").stat().st_size


if __name__ == "__main__":
    main()
