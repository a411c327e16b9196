"""What leaving nodes out of the exported graph is worth: the trained model exported as it is, and in its lean form.

    python -m benchmarks.latency_lean --out FOLDER

Both graphs go through the exporter and the clean-up, and are timed with bound buffers at batch 1, by turns. The
models are those of `benchmarks.latency`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from benchmarks.latency import pin_to_one_core
from benchmarks.latency_artifacts import MODELS, SERIES, Trained, trained
from benchmarks.machine import describe_machine
from export.lean import lean
from export.to_onnx import to_onnx
from runtime.artifact import open_artifact
from runtime.bench import ROUNDS, Subject, measure
from runtime.device import open_session
from runtime.golden import read_golden
from training.checkpoint import load_checkpoint

FORMS = ("as trained", "lean")


def forms(one: Trained) -> tuple[list[Subject], list[int]]:
    """Both forms at batch 1, and how many nodes each has."""
    model = load_checkpoint(one.run).model
    artifact = open_artifact(one.artifact)
    golden = read_golden(artifact)
    arrays = {"context": golden.context[:2]} | ({} if golden.time_s is None else {"time_s": golden.time_s[:2]})
    example = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    subjects, nodes = [], []
    for name, form in zip(FORMS, (model, lean(model)), strict=True):
        graph = to_onnx(form, example)
        nodes.append(len(onnx.load_from_string(graph).graph.node))
        session = open_session(graph, artifact.manifest, device="cpu", threads=1, where=name)
        bound = session.take_binding()
        bound.context[:] = golden.context[:1]
        if golden.time_s is not None:
            bound.time_s[:] = golden.time_s[:1]
        subjects.append(Subject(name=name, call=bound.run))
    return subjects, nodes


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the models.")
@click.option("--calls", type=click.IntRange(min=ROUNDS), default=10_000, show_default=True, help="Of each form.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(out: Path, calls: int, as_json: bool) -> None:
    """Time every model in both forms."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    models = trained(out, MODELS, SERIES, again=False)
    core = pin_to_one_core()
    for one in models:
        subjects, nodes = forms(one)
        with click.progressbar(length=2 * (ROUNDS + 1), label=f"{one.name:<22}", file=sys.stderr) as bar:
            timings = measure(subjects, calls=calls, tick=functools.partial(bar.update, 1))
        rows[one.name] = {
            timing.subject: dataclasses.asdict(timing) | {"nodes": count}
            for timing, count in zip(timings, nodes, strict=True)
        }
    if as_json:
        click.echo(
            json.dumps({"benchmark": "latency_lean", "core": core, "machine": describe_machine(), "models": rows})
        )
        return
    click.echo(
        "| model | nodes as trained | µs | nodes, lean | µs | lean over trained |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, found in rows.items():
        before, after = (found[form] for form in FORMS)
        cells = [before["nodes"], f"{before['p50_us']:.1f}", after["nodes"], f"{after['p50_us']:.1f}"]
        click.echo(f"| {name} | " + " | ".join(map(str, cells)) + f" | {after['ratio']:.2f} |")


if __name__ == "__main__":
    main()
