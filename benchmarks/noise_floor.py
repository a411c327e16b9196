"""How much of a run's loss no forecaster can avoid: beside it, a judge that has seen the steps around each step.

    python -m benchmarks.noise_floor --trace TRACE --run runs/ensemble

The judge knows every step of the series but the one that it is asked about: a parabola through the steps on both
sides, nearer ones weighing more, on the log scale, and the quantiles of its errors on the steps before the test part,
apart for quiet and busy ones. How near is near is tuned on validation. What it still loses is how much single steps
scatter around their rate. A forecaster that knew the rate of every step to come would lose about that, and none knows
it: the last steps tell the rate as it was, from one side. A load series of one channel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import describe_machine
from training.backtest import rolling_forecasts
from training.baselines import run_baselines
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.metrics import quantile_loss
from training.readers import read_trace
from training.run import Data, prepare, window_source

WIDTHS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Standard deviations of the weights, steps."""
GROUPS = 6
"""Of steps, by their rate, each with quantiles of its own."""


def rate_from_both_sides(values: np.ndarray, *, width: float) -> np.ndarray:
    """The rate of every step on the log scale, read off the others.

    Args:
        values: (T,) raw units.
        width: standard deviation of the weights, steps.

    Returns:
        (T,) float64; NaN within three widths of either end.
    """
    reach = round(3 * width)
    away = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (away / width) ** 2) * (away != 0)
    powers = np.stack([away**power for power in range(3)]).astype(np.float64)
    parabola = np.linalg.solve((powers * weights) @ powers.T, powers * weights)[0]  # its value in the middle
    rate = np.full(len(values), np.nan)
    rate[reach:-reach] = np.convolve(np.log1p(values), parabola[::-1], mode="valid")
    return rate


def quantiles_in_hindsight(values: np.ndarray, *, known: int, width: float, levels: tuple[float, ...]) -> np.ndarray:
    """Quantiles of every step by the judge.

    Args:
        values: (T,) raw units.
        known: steps before this one give the quantiles of the errors.
        width: see `rate_from_both_sides`.
        levels: Q.

    Returns:
        (T, Q) raw units, NaN where there is no rate.
    """
    rate = rate_from_both_sides(values, width=width)
    error = np.log1p(values) - rate
    given = np.isfinite(rate) & (np.arange(len(values)) < known)
    group = np.searchsorted(np.quantile(rate[given], np.linspace(0, 1, GROUPS + 1)[1:-1]), rate)
    moves = np.stack([np.quantile(error[given & (group == g)], levels) for g in range(GROUPS)])
    return np.expm1(rate[:, None] + moves[group])


def floor_steps(data: Data) -> tuple[np.ndarray, float]:
    """Loss of the judge on every step, and its width.

    Returns:
        (T,) float64 loss as `quantile_loss` gives it, NaN near the ends; the width that is best on validation.
    """
    values, split, levels = data.wide.values[:, 0].astype(np.float64), data.wide_split, data.config.levels

    def loss(width: float, known: int) -> np.ndarray:
        quantiles = quantiles_in_hindsight(values, known=known, width=width, levels=levels)
        return quantile_loss(quantiles[:, None, None], values[:, None, None], levels)[:, 0, 0]

    judged = slice(split.train_end, split.validation_end)
    width = min(WIDTHS, key=lambda width: float(np.nanmean(loss(width, split.train_end)[judged])))
    return loss(width, split.validation_end), width


def by_lead(loss: np.ndarray, target: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """WQL of each step ahead over the windows whose step counts: (n, H) each -> (H,)."""
    return np.asarray((loss * counted).sum(0) / (target * counted).sum(0))


@click.command()
@click.option("--trace", "traces", multiple=True, required=True, help="The trace that the model was trained on.")
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True, help="Run folder of a load series.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """WQL of each step ahead: the model, the best baseline, and what no forecaster can avoid."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(folder)
    data = prepare(read_trace(traces), RunConfig.from_dict(checkpoint.meta["config"]).data)
    if data.series.kind != "load" or len(data.series.channels) != 1 or len(np.unique(data.wide.segment)) != 1:
        raise click.UsageError(f"--run: expected a load series of counts without gaps, got {folder}; give another run")
    levels, split = data.config.levels, data.wide_split
    forecast, target = rolling_forecasts(checkpoint.model, window_source(data, torch.device("cpu")), data.split.test)
    floor, width = floor_steps(data)
    ahead = floor[split.test[:, None] + np.arange(data.config.horizon)]
    counted = np.isfinite(ahead)
    losses = {"hindsight": np.where(counted, ahead, 0.0), folder.name: quantile_loss(forecast, target, levels)[..., 0]}
    for baseline in run_baselines(
        data.wide,
        context=data.wide_context,
        horizon=data.config.horizon,
        levels=levels,
        validation=split.validation,
        test=split.test,
    ):
        losses[baseline.name] = quantile_loss(baseline.test, target, levels)[..., 0]
    of_steps = {name: by_lead(loss, target[..., 0], counted) for name, loss in losses.items()}
    total = {name: float((loss * counted).sum() / (target[..., 0] * counted).sum()) for name, loss in losses.items()}
    best = min((name for name in losses if name not in ("hindsight", folder.name)), key=lambda name: total[name])
    result: dict[str, Any] = {
        "run": folder.name,
        "baseline": best,
        "width": width,
        "wql": {name: total[name] for name in ("hindsight", folder.name, best)},
        "wql_steps": {name: of_steps[name].tolist() for name in ("hindsight", folder.name, best)},
        "machine": describe_machine(),
    }
    click.echo(json.dumps(result) if as_json else "\n".join(_table(result)))


def _table(result: dict[str, Any]) -> list[str]:
    names = list(result["wql"])
    floor, model, baseline = result["wql"].values()
    lines = [f"{'':<12}" + "".join(f"{name:>16}" for name in names)]
    for h, row in enumerate(zip(*result["wql_steps"].values(), strict=True), start=1):
        lines.append(f"{f'step {h}':<12}" + "".join(f"{value:>16.4f}" for value in row))
    lines.append(f"{'all':<12}" + "".join(f"{value:>16.4f}" for value in (floor, model, baseline)))
    share = (baseline - model) / (baseline - floor)
    lines.append(f"{result['run']} avoids {share:.0%} of what {result['baseline']} loses beyond hindsight")
    return lines


if __name__ == "__main__":
    main()
