"""What the adaptive layer of the runtime does to coverage, and what it costs: rolling forecasts of a part of a run.

    python -m benchmarks.adaptive_coverage --trace TRACE --run runs/gru

Every origin of the part is forecast once by the checkpoint; then `runtime.adaptive` goes over these forecasts in the
order of time, knowing at each only what had finished. It begins with the part and has learnt nothing before. Its rates
were chosen on the training and validation parts of the coding week, never on test.
A window of six hours holds what was forecast, for whatever step ahead, of the bins in it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import describe_machine
from runtime.adaptive import AdaptiveQuantiles
from training.backtest import rolling_forecasts
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.metrics import coverage, wql
from training.readers import read_trace
from training.run import prepare
from training.series import Series
from training.windows import WindowSource

WINDOW_S = 6 * 3600.0
LEVEL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How far the coverage of one level is from it in sliding windows.

    Attributes:
        count: windows.
        worst: largest deviation over all windows, all steps ahead together.
        beyond: share of the windows that are more than 0.02 away.
        worst_steps: (H,) the same for each step ahead by itself.
    """

    count: int
    worst: float
    beyond: float
    worst_steps: list[float]


def adapted(
    forecast: np.ndarray, origins: np.ndarray, series: Series, *, levels: tuple[float, ...], ratio: int = 1
) -> np.ndarray:
    """Run the layer over forecasts in the order of time.

    Args:
        forecast: (n, H, C, Q), raw units.
        origins: (n,) ascending indices into the series: the first bin that each forecast does not know.
        series: in context bins.
        levels: Q.
        ratio: bins in a forecast step.

    Returns:
        (n, H, C, Q) float32.
    """
    layer = AdaptiveQuantiles(levels, horizon=forecast.shape[1], channels=forecast.shape[2], ratio=ratio)
    found = np.empty_like(forecast)
    row_of = {int(origin): row for row, origin in enumerate(origins)}
    for at in range(int(origins[0]), int(origins[-1]) + 1):
        if at and series.segment[at] != series.segment[at - 1]:
            layer.clear()
        if at in row_of:
            found[row_of[at]] = layer.adjust(forecast[row_of[at]])
        layer.learn(series.values[at])
    return found


def windows(covered: np.ndarray, *, steps: int, level: float) -> Windows:
    """Coverage over sliding windows of `steps` forecast steps.

    Args:
        covered: (n, H) bool, one channel, for consecutive origins.
        steps: width of a window; the whole if there are fewer.
        level: what the coverage should be.
    """
    n, horizon = covered.shape
    # Row t: what the H forecasts of the same step t said of it. The first H - 1 steps lack some.
    same = np.stack([covered[horizon - 1 - h : n - h, h] for h in range(horizon)], axis=1).astype(np.float64)
    steps = min(steps, len(same))
    sums = np.concatenate([np.zeros((1, horizon)), same.cumsum(axis=0)])
    away = (sums[steps:] - sums[:-steps]) / steps - level
    together = np.abs(away.mean(axis=1))
    return Windows(
        count=len(together),
        worst=float(together.max()),
        beyond=float((together > 0.02).mean()),
        worst_steps=np.abs(away).max(axis=0).tolist(),
    )


def score(forecast: np.ndarray, target: np.ndarray, levels: tuple[float, ...], *, step_s: float) -> dict[str, Any]:
    """wQL, coverage of each level and its windows, for the first channel: the requests."""
    covered = target[..., 0] <= forecast[:, :, 0, levels.index(LEVEL)]
    found = windows(covered, steps=round(WINDOW_S / step_s), level=LEVEL)
    return {
        "wql": float(wql(forecast, target, levels).mean()),
        "coverage": dict(zip(map(str, levels), coverage(forecast, target, levels)[0].tolist(), strict=True)),
        "windows": found.count,
        "worst": found.worst,
        "beyond_0.02": found.beyond,
        "worst_steps": found.worst_steps,
    }


@click.command()
@click.option("--trace", "traces", multiple=True, required=True, help="The trace that the model was trained on.")
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True, help="Run folder of a load series.")
@click.option("--part", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: tuple[str, ...], folder: Path, part: str, as_json: bool) -> None:
    """Coverage over six hours with and without the adaptive layer, and what it costs in wQL."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(folder)
    run = RunConfig.from_dict(checkpoint.meta["config"])
    data = prepare(read_trace(traces), run.data)
    bin_s, step_s, levels = checkpoint.meta["bin_s"], checkpoint.meta["step_s"], run.data.levels
    if step_s is None or LEVEL not in levels:
        raise click.UsageError(f"--run: expected a load series with the level {LEVEL}, got {folder}; give another run")
    ratio = round(step_s / bin_s)
    source = WindowSource(
        data.series, context=run.data.context, horizon=run.data.horizon, ratio=ratio, device=torch.device("cpu")
    )
    origins = getattr(data.split, part)
    plain, target = rolling_forecasts(checkpoint.model, source, origins)
    begun = time.perf_counter()
    other = adapted(plain, origins, data.series, levels=levels, ratio=ratio)
    layer_us = 1e6 * (time.perf_counter() - begun) / len(origins)
    result = {
        "run": folder.name,
        "part": part,
        "origins": len(plain),
        "layer_us": layer_us,
        "model": score(plain, target, levels, step_s=step_s),
        "model+adaptive": score(other, target, levels, step_s=step_s),
        "machine": describe_machine(),
    }
    click.echo(json.dumps(result) if as_json else "\n".join(_table(result, levels)))


def _table(result: dict[str, Any], levels: tuple[float, ...]) -> list[str]:
    sources = ("model", "model+adaptive")
    a, b = (result[source] for source in sources)
    what = f"{result['origins']} origins of the {result['part']} part, {a['windows']} windows of six hours"
    lines = [f"{result['run']}: {what}"]
    lines.append(f"{'':<34}" + "".join(f"{source:>16}" for source in sources))
    for level in map(str, levels):
        lines.append(f"{'coverage of ' + level:<34}{a['coverage'][level]:>16.3f}{b['coverage'][level]:>16.3f}")
    lines.append(f"{f'{LEVEL}: worst deviation, any window':<34}{a['worst']:>16.3f}{b['worst']:>16.3f}")
    lines.append(f"{'  windows beyond 0.02':<34}{a['beyond_0.02']:>16.1%}{b['beyond_0.02']:>16.1%}")
    for h, (x, y) in enumerate(zip(a["worst_steps"], b["worst_steps"], strict=True), start=1):
        lines.append(f"{f'  worst, step {h} alone':<34}{x:>16.3f}{y:>16.3f}")
    lines.append(f"{'us per forecast and step':<34}{'':>16}{result['layer_us']:>16.0f}")
    lines.append(f"{'wQL':<34}{a['wql']:>16.4f}{b['wql']:>16.4f}   {b['wql'] / a['wql'] - 1:+.1%}")
    return lines


if __name__ == "__main__":
    main()
