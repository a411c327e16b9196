"""Pictures of training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.chart_style import GREY, MODELS
from training.checkpoint import write_atomically
from training.metrics_log import METRICS, read_metrics

CURVES = "curves.png"
"""In the folder of the runs, all of them; in a run folder the one is `loss.png`."""


def save_curves(report: dict[str, Any], out: Path) -> None:
    """Draw the curves of every trained model of a report: one picture each in its folder, and one of all in `out`."""
    title = ", ".join(report["trace"]["sources"])
    bar = min(report["baselines"], key=lambda row: float(row["validation"]["wql"]["mean"]))
    best = (bar["name"], float(bar["validation"]["wql"]["mean"]))
    found = {row["name"]: read_metrics(Path(row["folder"]) / METRICS) for row in report["models"]}
    histories = {name: lines for name, lines in found.items() if lines}  # an ensemble is not trained
    for row in report["models"]:
        if row["name"] in histories:
            one = {row["name"]: histories[row["name"]]}
            plot_curves(one, best, Path(row["folder"]) / "loss.png", title=f"{row['name']} on {title}")
    if histories:
        plot_curves(histories, best, out / CURVES, title=title)


def plot_curves(
    histories: Mapping[str, list[dict[str, Any]]], bar: tuple[str, float], path: Path, *, title: str
) -> None:
    """Draw training loss and validation wQL over the epochs as a PNG.

    Args:
        histories: lines of `metrics.jsonl` by model.
        bar: the best baseline on validation, and its wQL there.
        path: where the picture goes.
        title: its heading.
    """
    from matplotlib.figure import Figure  # slow to import; only here
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, lines) in enumerate(histories.items()):
        color = MODELS[index % len(MODELS)]
        epochs = [line for line in lines if line["kind"] == "epoch"]
        place = [_epoch(line, epochs[0]) if epochs else line["step"] for line in lines]
        left.plot(place, [line["train_loss"] for line in lines], ".-", color=color, label=name)
        scored = [line for line in epochs if "validation_wql" in line]
        if not scored:
            continue
        best = min(scored, key=lambda line: float(line["validation_wql"]))
        scores = [line["validation_wql"] for line in scored]
        label = f"{name}, {best['validation_wql']:.4f}"
        right.plot([line["epoch"] for line in scored], scores, ".-", color=color, label=label)
        right.scatter([best["epoch"]], [best["validation_wql"]], s=110, facecolors="none", edgecolors=color, zorder=3)
    right.axhline(bar[1], color=GREY, linestyle="--", label=f"{bar[0]}, the best baseline there, {bar[1]:.4f}")
    left.set(xlabel="epoch", title="training loss (pinball, scaled)")
    right.set(xlabel="epoch", title="validation wQL; circle: the epoch kept")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.08, y=0.12)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


def _epoch(line: dict[str, Any], first: dict[str, Any]) -> float:
    """Where a line lies on the axis of epochs; a line inside an epoch, between two."""
    return float(line["epoch"]) if line["kind"] == "epoch" else line["step"] / first["step"]
