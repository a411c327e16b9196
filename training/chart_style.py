"""How the pictures of the backtest report look: one palette, light and dark, as SVG to put into a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1d21"
"""Text, axes and what really came; the page's own colour of text takes its place."""
GREY = "#8a8f98"
BAR = "#6b7280"
MODELS = ("#2f7fd0", "#dd7a2c", "#2f9e78", "#a06bc9", "#c9507a", "#8a7a2f")
_STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GREY,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "fcast",
}


@contextmanager
def chart(rows: int = 1, columns: int = 1, *, height: float = 3.4, **options: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure as wide as the page and its axes, in the report's style while it is drawn.

    Args:
        rows, columns: of axes.
        height: inches.
        options: of `Figure.subplots`.

    Yields:
        The figure, and the axes as an array (rows, columns).
    """
    from matplotlib import rc_context  # slow to import; only here
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def to_svg(figure: Figure, *, label: str) -> str:
    """The figure as an SVG element for a page: sized by the page, in the page's colour of text.

    Args:
        figure: what to draw.
        label: what it shows, for readers who can't see it.
    """
    from html import escape

    from matplotlib import rc_context

    image = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = image.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)  # finer than any screen
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page's font
    text = text.replace(INK, "currentColor")
    # Ids hold for the whole page: those of another picture must not clip this one.
    mark = re.sub(r"\W+", "-", label.lower()).strip("-")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{mark}-", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {size[1]} {size[2]}">'
    return head + text[text.index(">", text.index("viewBox")) + 1 :]


def palette(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How the line of each forecaster looks: models in colour, the best baseline dashed, the others thin."""
    looks: dict[str, dict[str, Any]] = {}
    models = [row["name"] for row in report["forecasters"] if row["model"]]
    for index, name in enumerate(models):
        looks[name] = {"color": MODELS[index % len(MODELS)], "zorder": 3, "label": name}
    baselines = [row["name"] for row in report["forecasters"] if not row["model"]]
    for name in baselines:
        looks[name] = {"color": GREY, "linewidth": 0.9, "alpha": 0.75, "zorder": 1}
    looks[baselines[-1]]["label"] = "other baselines"
    best = report["best_baseline"]
    looks[best] = {"color": INK, "linestyle": (0, (4, 2)), "zorder": 2, "label": f"{best} (best baseline)"}
    return looks


def spoken(channel: str) -> str:
    """A channel's name as a person writes it."""
    return "inter-arrival time, s" if channel == "inter_arrival_s" else channel.replace("_", " ")


def percent(axis: Any, decimals: int = 0) -> None:
    """Show an axis of shares in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def thousands(axes: Axes) -> None:
    """Show the numbers of the vertical axis as 12,000."""
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def clock(axes: Axes, time_s: np.ndarray, *, epoch: bool) -> None:
    """Name the horizontal axis, which holds `training.chart_style.times` of these seconds."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if epoch:
        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_xlabel("time, UTC")
    else:
        axes.set_xlabel(
            "hours since the start of the trace's clock" if long(time_s) else "minutes on the trace's clock"
        )


def long(time_s: np.ndarray) -> bool:
    """Whether a stretch is better told in hours than in minutes."""
    return float(time_s[-1]) - float(time_s[0]) > 4 * 3600


def times(time_s: Any, *, epoch: bool, of: np.ndarray) -> Any:
    """Seconds as places on an axis: dates for wall clocks, else hours or minutes, as `of` as a whole needs."""
    seconds = np.asarray(time_s, dtype=np.float64)
    if epoch:
        return (seconds * 1e6).astype("int64").astype("datetime64[us]")
    return seconds / (3600.0 if long(of) else 60.0)
