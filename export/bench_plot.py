"""The picture of `fcast-bench --plot`: percentiles of every subject, a panel per setting. Needs matplotlib.

Found by the runtime as an entry point, since it may not import that itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingDependencyError

_MARKS = (("p50_us", "o", "p50"), ("p90_us", "|", "p90"), ("p99_us", "|", "p99"), ("p999_us", "x", "p99.9"))


def require(path: Path) -> None:
    """Raise before the measuring, not after it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: `path` ends otherwise than in .png, .pdf or .svg, or its folder is missing.
    """
    if path.suffix.lower() not in (".png", ".pdf", ".svg") or not path.parent.is_dir():
        raise InputError(f"--plot: expected a .png, .pdf or .svg file in a folder that is there, got {path}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"--plot: expected matplotlib installed, got {error}; pip install matplotlib"
        ) from None


def plot(title: str, runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the runs of `fcast-bench --json` into a PNG, PDF or SVG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # no display is asked for

    figure = Figure(figsize=(8, 0.9 + sum(0.7 + 0.27 * len(run["rows"]) for run in runs)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    heights = [2 + len(run["rows"]) for run in runs]
    panels = figure.subplots(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, run in zip(panels, runs, strict=True):
        names = [row["subject"] for row in run["rows"]]
        for key, mark, label in _MARKS:
            points = [(row[key], i) for i, row in enumerate(run["rows"]) if row[key] is not None]
            us, rows = [us for us, _ in points], [i for _, i in points]
            axes.plot(us, rows, mark, label=label, color="black" if key == "p50_us" else None)
        axes.hlines(range(len(names)), [r["p50_us"] for r in run["rows"]], [r["p99_us"] for r in run["rows"]], lw=0.8)
        axes.set(xscale="log", xlabel="µs a call", yticks=range(len(names)), yticklabels=names)
        axes.set_title(run["setting"], fontsize=9, loc="left")
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    panels[0].legend(fontsize=8)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"--plot: expected a file to write, got {path}: {error}") from None
