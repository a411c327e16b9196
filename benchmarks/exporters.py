"""torch's two ONNX exporters beside each other, over every architecture, baseline and kind of series.

    python -m benchmarks.exporters [CASE...] [--json]

A case is MODEL/SERIES, such as gru/load; without one all are run, each in a fresh process, which exports the model with
legacy, then with dynamo, as fcast-export does: in its lean form, at the default opset. Weights are random: an exporter
does not look at them. Nodes are counted after onnxslim; the worst difference is to the trained model in eager torch,
over the size of its forecast, in batches of 1, 2, 3, 17 and 256. Seconds are of processor time. The two graphs take
turns at batch 1 on one thread, and the latency is the ratio of their median times, dynamo over legacy.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from benchmarks.machine import describe_machine

MODELS = ("dlinear", "gru", "lstm", "transformer", "multiscale", "ensemble")
SERIES: dict[str, dict[str, Any]] = {
    "requests": {"context": 50},
    "anchored": {"context": 50, "anchored": True},
    "load": {"context": 50, "calendar": ("day", "week"), "demand": True},
    "coarse": {"context": 60, "calendar": ("day", "week"), "demand": True, "ratio": 6},
}
BASELINES = ("point", "log_point", "recent_quantiles")
CASES = [f"{model}/{series}" for model in MODELS for series in SERIES] + [f"{name}/baseline" for name in BASELINES]
HORIZON, LEVELS = 10, (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BATCHES = (1, 2, 3, 17, 256)
SIZES = (5.0, 2000.0, 300.0)
WARM_UP, TURNS = 50, 1000


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(CASES), metavar="[CASE]...")
@click.option("--json", "as_json", is_flag=True, help="Print every case, the machine and the versions.")
@click.option("--here", is_flag=True, hidden=True, help="One case, in this process.")
def main(cases: tuple[str, ...], as_json: bool, here: bool) -> None:
    """Time, nodes, differences and latency of both exporters."""
    if here:
        click.echo(json.dumps(measure(cases[0])))
        return
    rows = []
    if not as_json:
        click.echo(f"{'':<27}{'CPU seconds':>18}{'nodes':>14}{'worst':>18}")
        click.echo(
            f"{'case':<27}"
            + f"{'legacy':>9}{'dynamo':>9}{'legacy':>7}{'dynamo':>7}{'legacy':>9}{'dynamo':>9}{'latency':>9}"
        )
    for case in cases or CASES:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.exporters", "--here", case],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append(json.loads(child.stdout.splitlines()[-1]))
        if not as_json:
            click.echo(_line(rows[-1]))
    if as_json:
        click.echo(json.dumps({"benchmark": "exporters", "cases": rows, "machine": describe_machine()}, indent=2))


def _line(row: dict[str, Any]) -> str:
    pair = [row.get("legacy"), row.get("dynamo")]
    seconds = "".join(f"{'-' if one is None else format(one['seconds'], '.1f'):>9}" for one in pair)
    nodes = "".join(f"{'-' if one is None else one['nodes']:>7}" for one in pair)
    worst = "".join(f"{'-' if one is None else format(one['worst'], '.1e'):>9}" for one in pair)
    ratio = "-" if row["latency_ratio"] is None else format(row["latency_ratio"], ".2f")
    return f"{row['case']:<27}{seconds}{nodes}{worst}{ratio:>9}"


def measure(case: str) -> dict[str, Any]:
    """Export one case with both exporters and compare what they give; an exporter that fails is None."""
    import onnx
    import onnxruntime as ort
    import onnxscript  # noqa: F401  # loaded before the clock starts, as onnx is
    import onnxslim  # noqa: F401

    from export.errors import ExportError
    from export.exporters import DYNAMO, LEGACY
    from export.lean import lean
    from export.to_onnx import to_onnx

    torch.set_num_threads(1)
    model, context, takes_time = build(case)
    served, example = lean(model), windows(2, context=context, takes_time=takes_time)
    result: dict[str, Any] = {"case": case, "latency_ratio": None}
    sessions = {}
    for exporter in (LEGACY, DYNAMO):
        begun = time.process_time()  # cores are shared: waiting for one is not counted
        try:
            graph = to_onnx(served, example, exporter=exporter)
        except ExportError as error:
            click.echo(f"{case} {exporter}: {error}", err=True)
            result[exporter] = None
            continue
        seconds = time.process_time() - begun
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        worst = max(
            worst_difference(session, model, windows(batch, context=context, takes_time=takes_time, seed=batch))
            for batch in BATCHES
        )
        nodes = len(onnx.load_from_string(graph).graph.node)
        result[exporter] = {"seconds": seconds, "nodes": nodes, "worst": worst, "bytes": len(graph)}
        sessions[exporter] = session
    if len(sessions) == 2:
        feed = {name: tensor.numpy() for name, tensor in windows(1, context=context, takes_time=takes_time).items()}
        medians = latencies_us(sessions, feed)
        result["latency_us"], result["latency_ratio"] = medians, medians[DYNAMO] / medians[LEGACY]
    return result


def build(case: str) -> tuple[nn.Module, int, bool]:
    """A model with random weights and statistics, its context L, and whether it takes the time."""
    from training.baseline_model import PointBaseline, RecentQuantiles
    from training.forecaster import Forecaster
    from training.quantile_model import Ensemble

    name, _, series = case.partition("/")
    torch.manual_seed(0)
    model: nn.Module
    if series == "baseline":
        if name == "recent_quantiles":
            model = RecentQuantiles(counts=[50, 20, 10], horizon=HORIZON, levels=LEVELS)
        else:
            model = PointBaseline(channels=3, context=50, horizon=HORIZON, levels=LEVELS, log=name == "log_point")
            model.weights.copy_(torch.rand_like(model.weights) / 25)
            model.shift.copy_(torch.rand_like(model.shift).cumsum(2))
        return model.eval(), 50, False
    settings = SERIES[series]
    members = []
    for architecture in ("gru", "dlinear") if name == "ensemble" else (name,):
        member = Forecaster(model=architecture, params={}, channels=3, horizon=HORIZON, levels=LEVELS, **settings)
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        member.scaling.unit.copy_(torch.tensor(SIZES) / 10)
        member.scaling.alpha.fill_(0.1)
        member.offset.copy_(0.05 * torch.randn_like(member.offset))
        members.append(member)
    model = Ensemble(list(members)) if name == "ensemble" else members[0]
    return model.eval(), settings["context"], "calendar" in settings


def windows(batch: int, *, context: int, takes_time: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random windows (B, L, C) in raw units, and times."""
    rng = np.random.default_rng(seed)
    values = rng.exponential(1.0, (batch, context, len(SIZES))) * SIZES
    found = {"context": torch.from_numpy(values.astype(np.float32))}
    if takes_time:
        found["time_s"] = torch.from_numpy(1.7e9 + 1e6 * rng.random(batch))
    return found


def worst_difference(session: Any, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> float:
    """The largest difference to eager torch, over the value or its channel's mean where that is larger."""
    with torch.no_grad():
        expected = model(*inputs.values())
    found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    worst = 0.0
    for got, want in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        size = want.numpy().astype(np.float64)
        mean = np.abs(size).mean(axis=(0, 1, 3))[:, None]
        worst = max(worst, float((np.abs(got - size) / np.maximum(np.abs(size), mean)).max()))
    return worst


def latencies_us(sessions: Mapping[str, Any], feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Median time of a run of each graph; they take turns, so that noise of the machine hits both."""
    samples: dict[str, list[int]] = {name: [] for name in sessions}
    for turn in range(WARM_UP + TURNS):
        for name, session in sessions.items():
            begun = time.perf_counter_ns()
            session.run(None, dict(feed))
            if turn >= WARM_UP:
                samples[name].append(time.perf_counter_ns() - begun)
    return {name: statistics.median(times) / 1e3 for name, times in samples.items()}


if __name__ == "__main__":
    main()
