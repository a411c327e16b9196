"""What the weights of another service, or of older days, are worth on a short history.

    python -m benchmarks.warm_start --traces FOLDER

FOLDER holds AzureLLMInferenceTrace_conv.csv, azure2024_coding_10s_counts.csv.gz and servegen_m-large_10min_counts.csv
(docs/traces.md says where the first two come from; the last holds the requests of ServeGen's m-large per 10 minutes, 14
days, columns pool,ts,requests,active_clients). For each pair a model is trained on the source; then two runs on the
first hours of the target, equal but for their start and peak learning rate: random weights, or the source's. Printed is
test wQL after each number of epochs, epoch 0 being no training at all, of the epoch that validation keeps, and of the
baseline that is best on test.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import describe_machine
from training.checkpoint import Checkpoint
from training.compare import score_baselines, tune_baselines
from training.config import RunConfig, build_runs
from training.fit import fit, validation_wql
from training.readers import read_trace
from training.run import Data, build_model, prepare, train_model, window_source
from training.trace import Trace
from training.warm_start import start_from, warm_run

_WEEK, _POOL = "azure2024_coding_10s_counts.csv.gz", "servegen_m-large_10min_counts.csv"
_CHAT = "AzureLLMInferenceTrace_conv.csv"
_SHOWN = (0, 1, 3)
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A source, a target and how much of it is known; days count from the first row."""

    name: str
    source: str
    source_days: tuple[float, float]
    source_bin_s: float
    target: str
    target_days: tuple[float, float]
    target_bin_s: float
    split: str


_PAIRS = (
    _Pair(
        name="coding week, its first half -> 12 h of the second",
        source=_WEEK,
        source_days=(0, 3.5),
        source_bin_s=60.0,
        target=_WEEK,
        target_days=(3.5, 7),
        target_bin_s=60.0,
        split="12,12,60",
    ),
    _Pair(
        name="ServeGen, 10 min bins -> 12 h of the coding week, 1 min bins",
        source=_POOL,
        source_days=(0, 14),
        source_bin_s=600.0,
        target=_WEEK,
        target_days=(2.9, 7),
        target_bin_s=60.0,
        split="12,12,74",
    ),
    _Pair(
        name="coding week -> 2 days of ServeGen, 10 min bins",
        source=_WEEK,
        source_days=(0, 7),
        source_bin_s=600.0,
        target=_POOL,
        target_days=(0, 14),
        target_bin_s=600.0,
        split="2,1,11",
    ),
    _Pair(
        name="coding week -> 29 min of the conversations, 10 s bins",
        source=_WEEK,
        source_days=(3, 4),
        source_bin_s=10.0,
        target=_CHAT,
        target_days=(0, 1),
        target_bin_s=10.0,
        split="50,20,30",
    ),
)


def _counts(path: Path, days: tuple[float, float], bin_s: float) -> Trace:
    """Days of a trace as counts alone, so that traces without tokens compare."""
    trace = read_trace([str(path)])
    kept = (trace.time_s - trace.time_s[0] >= days[0] * _DAY_S) & (trace.time_s - trace.time_s[0] < days[1] * _DAY_S)
    if trace.is_counts:
        assert trace.requests is not None
        return replace(trace, time_s=trace.time_s[kept], requests=trace.requests[kept])
    index = np.floor(trace.time_s[kept] / bin_s).astype(np.int64)
    counts = np.bincount(index - index[0]).astype(np.float64)
    starts = (index[0] + np.arange(len(counts))) * bin_s
    return replace(trace, time_s=starts, requests=counts, request_tokens=None, response_tokens=None, bin_s=bin_s)


def _curve(data: Data, run: RunConfig, start: Checkpoint | None) -> tuple[list[float], list[float], str]:
    """Validation and test wQL after 0, 1, ... epochs, and the statistics used."""
    source = window_source(data, torch.device("cpu"))
    model = build_model(data, run)
    statistics = start_from(model, start, source, data.split).statistics if start else "new"
    validation, test = [], []

    def score(line: dict[str, float] | None = None) -> None:
        validation.append(line["validation_wql"] if line else validation_wql(model, source, data.split.validation))
        test.append(validation_wql(model, source, data.split.test))

    score()
    with tempfile.TemporaryDirectory() as folder:
        fit(model, source, data.split, config=run, folder=Path(folder), on_epoch=score)
    return validation, test, statistics


def _measure(pair: _Pair, model: str, traces: Path, epochs: int) -> dict[str, Any]:
    settings = {"series": "load", "context": 60, "horizon": 10, "calendar": "none", "device": "cpu", "epochs": epochs}
    (run,) = build_runs([model], {**settings, "bin_s": pair.source_bin_s, "split": [70, 30, 0]})
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(_counts(traces / pair.source, pair.source_days, pair.source_bin_s), run.data)
        start = train_model(data, run, Path(folder))
    split = [float(part) for part in pair.split.split(",")]
    target = {"device": "cpu", "epochs": epochs, "bin_s": pair.target_bin_s, "split": split}
    warm = warm_run(start, [model], target)
    data = prepare(_counts(traces / pair.target, pair.target_days, pair.target_bin_s), warm.data)
    (cold,) = build_runs([model], {**settings, **target})
    rows = {}
    for name, one, begin in (("from scratch", cold, None), ("from the source", warm, start)):
        validation, test, statistics = _curve(data, one, begin)
        best = int(np.argmin(validation if begin else [np.inf, *validation[1:]]))
        rows[name] = {"validation": validation, "test": test, "best_epoch": best, "statistics": statistics}
    bar = min(score_baselines(data, tune_baselines(data)), key=lambda row: float(row["test"]["wql"]["mean"]))
    return {"windows": len(data.split.train), "rows": rows, "baseline": bar["name"], "bar": bar["test"]["wql"]["mean"]}


@click.command()
@click.option("--traces", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the traces.")
@click.option("--model", "models", multiple=True, default=["dlinear", "multiscale"], show_default=True)
@click.option("--epochs", type=int, default=8, show_default=True, help="Of the source and of both runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: Path, models: tuple[str, ...], epochs: int, as_json: bool) -> None:
    """Test wQL on a short history, from scratch and from the weights of another trace."""
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for pair in _PAIRS:
        results[pair.name] = {model: _measure(pair, model, traces, epochs) for model in models}
        if as_json:
            continue
        shown = [epoch for epoch in _SHOWN if epoch < epochs]
        first = results[pair.name][models[0]]
        header = "".join(f"{f'epoch {epoch}':>10}" for epoch in shown)
        click.echo(f"\n{pair.name}: {first['windows']} training windows, test wQL")
        click.echo(f"{'':<32}{header}{'kept':>10}{'(epoch)':>9}{'vs baseline':>13}  statistics")
        for model, found in results[pair.name].items():
            for name, row in found["rows"].items():
                kept = row["test"][row["best_epoch"]]
                cells = "".join(f"{row['test'][epoch]:>10.4f}" for epoch in shown)
                click.echo(
                    f"{f'{model} {name}':<32}{cells}{kept:>10.4f}{row['best_epoch']:>9}"
                    f"{kept / found['bar'] - 1:>+13.1%}  {row['statistics']}"
                )
        click.echo(f"{first['baseline']:<32}{'':>{10 * len(shown)}}{first['bar']:>10.4f}")
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "epochs": epochs, "pairs": results}, indent=1))


if __name__ == "__main__":
    main()
