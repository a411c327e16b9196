"""From process start to the first forecast: the runtime against a bare script of numpy and onnxruntime.

    python -m benchmarks.cold_start [ARTIFACT] [--pairs 15] [--json]

Both subjects load the same model.onnx with the same settings and run it once on the same context. They take turns, each
run a fresh process, after one run of each that warms the disk cache. Wall time is from before the process is made to
after its forecast, on the machine's monotonic clock; memory is the process's own, from /proc, after the forecast. Both
are those of `fcast-bench` (`runtime/bench_start.py`), here with every sample.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe_machine
from runtime.artifact import open_artifact
from runtime.bench_start import SUBJECTS, sample_start

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "load"
TARGET_RATIO, TARGET_RSS_MB = 1.5, 15.0


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
    found = open_artifact(artifact)
    manifest = found.manifest
    for name in SUBJECTS:
        sample_start(name, found)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    for i in range(pairs):
        for name in sorted(SUBJECTS, reverse=i % 2 == 0):
            samples[name].append(sample_start(name, found))
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


def _graph_bytes(folder: Path) -> int:
    return (folder / "model.onnx").stat().st_size


if __name__ == "__main__":
    main()
