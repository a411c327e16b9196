"""What leaving nodes out of the exported graph is worth: forms of the same model, timed by turns.

    python -m benchmarks.latency_lean --out FOLDER

`plain` is what torch's default exporter makes, nothing done to it; of the transformer with torch's own encoder layers,
which read every step to the end. `as trained` is our network through our exporter and its clean-up, `lean` what is
shipped, and `batch 1` the same with every dimension a number. Bound buffers, one window; the models are those of
`benchmarks.latency`.
"""

from __future__ import annotations

import copy
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
from torch import nn

from benchmarks.latency import pin_to_one_core
from benchmarks.latency_artifacts import MODELS, SERIES, Trained, trained
from benchmarks.machine import describe_machine
from export.exporters import DEFAULT_OPSET, DYNAMO, record
from export.lean import lean
from export.to_onnx import to_onnx, with_fixed_batch
from runtime.artifact import open_artifact
from runtime.bench import ROUNDS, Subject, measure
from runtime.bench_subjects import raw_subjects
from runtime.golden import read_golden
from training.checkpoint import load_checkpoint
from training.forecaster import Forecaster
from training.models.transformer import Transformer
from training.quantile_model import QuantileModel

FORMS = ("plain", "as trained", "lean", "batch 1")


class TorchEncoder(nn.Module):
    """A Transformer of ours as torch's own layers have it, of the same sizes; its weights are random."""

    def __init__(self, ours: Transformer) -> None:
        super().__init__()
        width, heads = ours.embed.out_features, int(ours.layers[0].nhead)  # type: ignore[arg-type]  # a number
        self.embed, self.position = ours.embed, nn.Buffer(ours.position)
        one = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(
            one, len(ours.layers), norm=nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, F) -> (B, D)."""
        return self.encoder(self.embed(x) + self.position)[:, -1]


def plain(model: QuantileModel, example: dict[str, torch.Tensor]) -> bytes:
    """What torch's default exporter makes of a model."""
    model = copy.deepcopy(model)
    if isinstance(model, Forecaster) and isinstance(model.network, Transformer):
        model.network = TorchEncoder(model.network).eval()
    torch.backends.mha.set_fastpath_enabled(False)  # which cannot be exported
    outputs = ["forecast", "demand"] if model.forecasts_demand else ["forecast"]
    return record(model, example, outputs=outputs, opset=DEFAULT_OPSET, exporter=DYNAMO).SerializeToString()


def forms(one: Trained) -> tuple[list[Subject], list[int]]:
    """All forms at batch 1, and how many nodes each has."""
    model = load_checkpoint(one.run).model
    assert isinstance(model, QuantileModel)
    artifact = open_artifact(one.artifact)
    golden = read_golden(artifact)
    context, time_s = golden.context, golden.time_s
    arrays = {"context": context[:2]} | ({} if time_s is None else {"time_s": time_s[:2]})
    example = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    subjects, nodes = [], []
    graphs = [plain(model, example), to_onnx(model, example), to_onnx(lean(model), example)]
    for name, graph in zip(FORMS, [*graphs, with_fixed_batch(graphs[-1], 1)], strict=True):
        nodes.append(len(onnx.load_from_string(graph).graph.node))
        one_time = None if time_s is None else time_s[:1]
        bound, _ = raw_subjects(graph, context[:1], one_time, device="cpu", threads=1)
        subjects.append(dataclasses.replace(bound, name=name))
    return subjects, nodes


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the models.")
@click.option("--calls", type=click.IntRange(min=ROUNDS), default=10_000, show_default=True, help="Of each form.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(out: Path, calls: int, as_json: bool) -> None:
    """Time every model in all forms."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    models = trained(out, MODELS, SERIES, again=False)
    core = pin_to_one_core()
    for one in models:
        subjects, nodes = forms(one)
        with click.progressbar(length=len(FORMS) * (ROUNDS + 1), label=f"{one.name:<22}", file=sys.stderr) as bar:
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
    heads = [f"nodes {form} | µs" for form in FORMS[:3]] + ["lean over plain", "over trained", "batch 1 over lean"]
    click.echo("| model | " + " | ".join(heads) + " |")
    click.echo("|---" + "|---:" * 9 + "|")
    for name, found in rows.items():
        us = {form: found[form]["p50_us"] for form in FORMS}
        cells = [f"{found[form]['nodes']} | {us[form]:.1f}" for form in FORMS[:3]]
        over = [us["lean"] / us["plain"], us["lean"] / us["as trained"], us["batch 1"] / us["lean"]]
        click.echo(f"| {name} | " + " | ".join(cells + [f"{ratio:.2f}" for ratio in over]) + " |")


if __name__ == "__main__":
    main()
