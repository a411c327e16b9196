"""What a forecast takes: the runtime beside raw ONNX Runtime, TorchScript, eager torch and numpy, on one core.

    python -m benchmarks.latency --out /tmp/latency [--calls 10000] [--paced 5] [--json]

For each model of both series at batch 1, context 50, 3 channels, horizon 10. All subjects of a model live in one
process, pinned to one core where the system can, and take turns in 50 short rounds (`runtime.bench`). The first call
trains the models for an epoch and exports them; `--again` exports them anew.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.latency_artifacts import MODELS, SERIES, STATEFUL, Trained, trained
from benchmarks.machine import describe_machine
from export.bench_torch import eager_subject, torchscript_subject
from runtime.artifact import open_artifact
from runtime.bench import ROUNDS, Subject, measure, paced
from runtime.bench_subjects import RAW, RAW_STEP, Windows, artifact_subjects
from runtime.golden import read_golden

_NUMPY = "numpy, one product"


def subjects(one: Trained) -> list[Subject]:
    """Everything that can forecast this model at batch 1; raw ONNX Runtime first."""
    found = open_artifact(one.artifact)
    contexts, times = Windows(read_golden(found)).batch(1)
    extra = [
        torchscript_subject(found, contexts, times, threads=1),
        eager_subject(one.run, found, contexts, times, threads=1),
    ]
    own = artifact_subjects(one.artifact, device="cpu", threads=1, batch=1)
    return [*own[:-1], *extra, own[-1]]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the models.")
@click.option("--model", "models", default=",".join((*MODELS, *STATEFUL)), show_default=True, help="Some of them.")
@click.option("--series", default=",".join(SERIES), show_default=True, help="One or both.")
@click.option(
    "--calls",
    type=click.IntRange(min=ROUNDS),
    default=10_000,
    show_default=True,
    help="Of each subject; of torch's a tenth.",
)
@click.option(
    "--paced", "paced_ms", type=float, help="Make a tenth of the calls, each after a sleep of so many milliseconds."
)
@click.option("--again", is_flag=True, help="Export the models anew.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(out: Path, models: str, series: str, calls: int, paced_ms: float | None, again: bool, as_json: bool) -> None:
    """Time every model, hot or paced."""
    torch.set_num_threads(1)
    core = pin_to_one_core()
    number = calls // 10 if paced_ms else calls
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for one in trained(out, models.split(","), series.split(","), again=again):
        asked = subjects(one)
        if paced_ms:
            asked = [paced(subject, paced_ms / 1e3) for subject in asked]
        with click.progressbar(length=len(asked) * (ROUNDS + 1), label=f"{one.name:<22}", file=sys.stderr) as bar:
            tick = functools.partial(bar.update, 1)
            timings = measure(asked, calls=number, tick=tick)
        rows[one.name] = {timing.subject: dataclasses.asdict(timing) for timing in timings}
    facts = {"date": date.today().isoformat(), "core": core, "paced_ms": paced_ms, "machine": describe_machine()}
    result = {"benchmark": "latency", **facts, "models": rows}
    click.echo(json.dumps(result, indent=1) if as_json else "\n".join(table(rows, paced=bool(paced_ms))))


def pin_to_one_core() -> int | None:
    """Stay on the last core that this process may use; None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def table(rows: dict[str, dict[str, dict[str, Any]]], *, paced: bool) -> list[str]:
    """The rows of docs/latency.md: medians in µs; x is the ratio to raw bound buffers, of the same rounds.

    TorchScript and eager torch are shown by processor time.
    """
    columns = [
        "raw, bound",
        "raw, `run`",
        "`predict`",
        "its p99",
        "`observe`",
        "observe + forecast",
        "TorchScript",
        "eager",
    ]
    columns += ["CPU of `predict`"] if paced else ["numpy"]
    lines = ["| model | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for name, found in rows.items():
        forecast = next(row for subject, row in found.items() if subject.endswith("+ forecast"))
        predict = found["predict"]
        cells = [
            f"{found[RAW]['p50_us']:.1f}",
            _beside_raw(found["raw onnxruntime, run"]),
            _beside_raw(predict, more=True),
            f"{predict['p99_us']:.0f} ({predict['p99_us'] / predict['p50_us']:.1f}x)",
            f"{found['observe']['p50_us']:.2f}",
            _beside_raw(forecast, more=True),
            _processor_time(found, "torchscript"),
            _processor_time(found, "torch, eager"),
            f"{predict['cpu_us']:.0f}" if paced else f"{found[_NUMPY]['p50_us']:.1f}" if _NUMPY in found else "",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines + _stateful_table({name: found for name, found in rows.items() if RAW_STEP in found})


def _stateful_table(rows: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """One step with a state beside the whole window; x is the ratio to raw bound buffers of the window."""
    if not rows:
        return []
    columns = ["raw, the window", "raw, one step", "observe + forecast", "beyond the step", "its p99"]
    lines = ["", "| model | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for name, found in rows.items():
        forecast = next(row for subject, row in found.items() if subject.endswith("+ forecast"))
        step = found[RAW_STEP]
        cells = [
            f"{found[RAW]['p50_us']:.1f}",
            _beside_raw(step),
            _beside_raw(forecast),
            f"{forecast['p50_us'] - step['p50_us']:+.1f}",
            f"{forecast['p99_us']:.0f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _processor_time(found: dict[str, dict[str, Any]], subject: str) -> str:
    # On a shared core a call of milliseconds is interrupted and one of microseconds is not: that would flatter us.
    cpu_us = found[subject]["cpu_us"]
    return f"{cpu_us:.0f} ({cpu_us / found[RAW]['cpu_us']:.1f}x)"


def _beside_raw(row: dict[str, Any], *, more: bool = False) -> str:
    added = f", {row['more_us']:+.1f}" if more else ""
    return f"{row['p50_us']:.{1 if row['p50_us'] < 1000 else 0}f} ({row['ratio']:.2f}x{added})"


if __name__ == "__main__":
    main()
