"""Pictures of a training run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from training.checkpoint import write_atomically


def plot_loss(history: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw the loss curve of a run as a PNG.

    Args:
        history: lines of `metrics.jsonl`.
        path: where the picture goes.
        title: its heading.
    """
    from matplotlib.figure import Figure  # slow to import; only here
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    epochs = [line["epoch"] for line in history]
    scores = [line["validation_wql"] for line in history]
    best = min(range(len(scores)), key=scores.__getitem__)
    (train,) = axes.plot(
        epochs, [line["train_loss"] for line in history], ".-", color="tab:gray", label="training loss"
    )
    axes.set(xlabel="epoch", ylabel="training loss (pinball, scaled)", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.08)
    right = axes.twinx()
    (validation,) = right.plot(epochs, scores, ".-", color="tab:blue", label="validation wQL")
    mark = right.scatter(
        [epochs[best]],
        [scores[best]],
        s=110,
        facecolors="none",
        edgecolors="tab:red",
        zorder=3,
        label=f"best, {scores[best]:.4f}",
    )
    right.set_ylabel("validation wQL")
    figure.legend(handles=[train, validation, mark], loc="outside lower center", ncols=3)
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())
