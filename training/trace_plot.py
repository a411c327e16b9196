"""One picture of a trace: its rate, its burstiness, its lengths and its day."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.describe import autocorrelation, describe, dispersion, inter_arrivals
from training.errors import ConfigError
from training.trace import GAP_S, Trace
from training.trace_write import check_writable, published, to_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREY = "#2563a8", "#d9762b", "#8a8f98"
_STEPS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 86400, 7 * 86400)
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "legend.frameon": False,
}


def plot_trace(trace: Trace, path: str | Path, *, force: bool = False) -> None:
    """Draw four panels: rate over time, inter-arrival times, token lengths, rate by hour of day.

    A trace of counts shows requests per bin and, without token totals, its autocorrelation instead of lengths.
    Less than 12 hours show the index of dispersion over bin widths instead of the hours.

    Args:
        trace: what to draw.
        path: picture to write; .png, .svg or .pdf.
        force: replace an existing file.
    Raises:
        ConfigError: another file ending.
        TraceError: the file exists or cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--plot: expected a name ending in .png, .svg or .pdf, got '{path.name}'; change it")
    check_writable(path, force=force)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(12, 7.6), dpi=120)
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.075, top=0.87, hspace=0.36, wspace=0.17)
        facts = describe(trace)
        _title(figure, trace, facts)
        _draw_rate(axes[0, 0], trace)
        (_draw_counts if trace.is_counts else _draw_inter_arrivals)(axes[0, 1], trace)
        (_draw_autocorrelation if trace.request_tokens is None else _draw_tokens)(axes[1, 0], trace)
        if facts["cycle"] is None:
            _draw_dispersion(axes[1, 1], trace)
        else:
            _draw_hours(axes[1, 1], trace, facts["cycle"]["rate_per_s_by_hour"])
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:])
    with published(path, force=force) as file:
        file.write(picture.getbuffer())


def _title(figure: Any, trace: Trace, facts: dict[str, Any]) -> None:
    names = ", ".join(trace.sources[:3]) + (f" and {len(trace.sources) - 3} more" if len(trace.sources) > 3 else "")
    when = f"{facts['first'][:16].replace('T', ' ')} UTC, " if "first" in facts else ""
    rate = "" if facts["rate_per_s"] is None else f", {_si(facts['rate_per_s'])} requests/s"
    figure.suptitle(
        f"{names}\n{when}{_duration(trace.span_s)}, {facts['requests']:,.0f} requests{rate}",
        x=0.012,
        y=0.985,
        ha="left",
    )


def _draw_rate(axes: Axes, trace: Trace) -> None:
    bin_s = _plot_bin(trace, 500)
    binned = to_counts(trace, bin_s)
    assert binned.requests is not None
    rate, start_s = binned.requests / bin_s, binned.time_s
    if len(rate) > 4 and bin_s != trace.bin_s:  # the edge bins are covered in part
        rate, start_s = rate[1:-1], start_s[1:-1]
    scale, unit = (1.0, "") if trace.clock == "epoch" else _time_unit(trace.span_s)
    for part in np.split(np.arange(len(rate)), np.flatnonzero(np.diff(start_s) > 1.5 * bin_s) + 1):
        edges = np.append(start_s[part], start_s[part[-1]] + bin_s)
        x = edges.astype("datetime64[s]") if trace.clock == "epoch" else edges / scale
        axes.stairs(rate[part], x, fill=True, color=_BLUE, alpha=0.25)
        axes.stairs(rate[part], x, color=_BLUE, linewidth=1.2, baseline=None)
    silent = np.flatnonzero(np.diff(trace.time_s) - (trace.bin_s or 0) > GAP_S)
    for i, row in enumerate(silent[:200]):
        span = trace.time_s[[row, row + 1]]
        x = span.astype("datetime64[s]") if trace.clock == "epoch" else span / scale
        axes.axvspan(x[0], x[1], color=_GREY, alpha=0.2, linewidth=0, label=None if i else "no data")
    if len(silent):
        axes.legend(loc="upper left")
    axes.set_title(f"Request rate ({_duration(bin_s)} bins)")
    axes.set_ylabel("requests / s")
    axes.set_ylim(bottom=0)
    if trace.clock == "epoch":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_xlabel("UTC")
    else:
        axes.set_xlabel(f"{unit} since time 0")


def _draw_inter_arrivals(axes: Axes, trace: Trace) -> None:
    between = inter_arrivals(trace)
    positive = between[between > 0]
    axes.set_title("Time between requests")
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of requests")
    if len(positive) < 2 or positive.min() == positive.max():
        axes.text(0.5, 0.5, "no two different times", ha="center", transform=axes.transAxes, color=_GREY)
        return
    edges = np.geomspace(np.quantile(positive, 0.0005), positive.max(), 61)
    share = np.histogram(positive, edges)[0] / len(between)
    axes.stairs(share, edges, fill=True, color=_BLUE, alpha=0.35, label="trace")
    mean = between.mean()
    axes.plot(
        np.sqrt(edges[1:] * edges[:-1]),
        np.exp(-edges[:-1] / mean) - np.exp(-edges[1:] / mean),
        color=_GREY,
        linestyle="--",
        label="Poisson, same rate",
    )
    _log_x(axes)
    axes.set_ylim(bottom=0)
    zero = 1 - len(positive) / len(between)
    title = f"CV {between.std() / mean:.2f}" + (f", {zero:.1%} at the same time" if zero else "")
    axes.legend(loc="upper left", title=title, alignment="left")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.15)


def _log_x(axes: Axes) -> None:
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_counts(axes: Axes, trace: Trace) -> None:
    counts = trace.requests
    assert counts is not None
    assert trace.bin_s is not None
    from matplotlib.ticker import MaxNLocator

    axes.stairs(*_histogram(counts), fill=True, color=_BLUE, alpha=0.35)
    for level, style in ((0.5, "-"), (0.9, "--"), (0.99, ":")):
        value = float(np.quantile(counts, level))
        axes.axvline(value, color=_ORANGE, linestyle=style, linewidth=1.3, label=f"p{level * 100:g}  {value:,.0f}")
    axes.set_title(f"Requests per {_duration(trace.bin_s)} bin")
    axes.set_xlabel("requests")
    axes.set_ylabel("share of bins")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(loc="upper right", frameon=True, edgecolor="none", framealpha=1)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = max(1.0, float(np.ceil(np.ptp(values) / 50)))  # whole: else some bins hold more integers than others
    edges = np.arange(np.floor(values.min()) - 0.5, values.max() + width, width)
    return np.histogram(values, edges)[0] / len(values), edges


def _draw_tokens(axes: Axes, trace: Trace) -> None:
    axes.set_title("Tokens per request" + (" (mean of a bin)" if trace.is_counts else ""))
    for name, color in (("request", _BLUE), ("response", _ORANGE)):
        tokens = getattr(trace, f"{name}_tokens")
        if trace.requests is not None:
            tokens = tokens[trace.requests > 0] / trace.requests[trace.requests > 0]
        tokens = tokens[tokens > 0]
        if not len(tokens):
            continue
        low, high = float(tokens.min()), float(tokens.max())
        edges = np.unique(np.geomspace(low, high * 1.01, 51) if trace.is_counts else _whole_edges(low, high))
        share = np.histogram(tokens, edges)[0] / len(tokens)
        axes.stairs(share, edges, fill=True, color=color, alpha=0.25)
        p50, p99 = np.quantile(tokens, [0.5, 0.99])
        axes.stairs(share, edges, color=color, linewidth=1.2, label=f"{name}: p50 {p50:,.0f}, p99 {p99:,.0f}")
    _log_x(axes)
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.3)
    axes.set_xlabel("tokens")
    axes.set_ylabel("share")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _whole_edges(low: float, high: float) -> np.ndarray:
    """Logarithmic edges between whole numbers, so that no bin is empty because no integer lies in it."""
    return np.asarray(np.unique(np.rint(np.geomspace(max(low, 1), high + 1, 51))) - 0.5)


def _draw_autocorrelation(axes: Axes, trace: Trace) -> None:
    assert trace.requests is not None
    assert trace.bin_s is not None
    counts = trace.requests
    lags = np.unique(np.linspace(1, max(1, len(counts) // 3), 300).astype(int))
    values = [autocorrelation(counts, int(lag)) for lag in lags]
    known = [(lag, value) for lag, value in zip(lags, values, strict=True) if value is not None]
    axes.set_title("Likeness to itself later (autocorrelation)")
    axes.axhline(0, color=_GREY, linewidth=0.8)
    if not known:
        axes.text(0.5, 0.5, "too few bins", ha="center", transform=axes.transAxes, color=_GREY)
        return
    scale, unit = _time_unit(float(known[-1][0]) * trace.bin_s)
    axes.plot([lag * trace.bin_s / scale for lag, _ in known], [value for _, value in known], color=_BLUE)
    axes.set_xlabel(f"{unit} later")
    axes.set_ylabel("correlation")


def _draw_hours(axes: Axes, trace: Trace, rate: list[float | None]) -> None:
    known = [(hour, value) for hour, value in enumerate(rate) if value is not None]
    axes.bar([hour + 0.5 for hour, _ in known], [value for _, value in known], width=0.9, color=_BLUE, alpha=0.75)
    mean = float(np.mean([value for _, value in known]))
    axes.axhline(mean, color=_ORANGE, linestyle="--", linewidth=1.2, label=f"mean {_si(mean)}")
    axes.set_title("Rate by hour of the day")
    axes.set_xlabel("hour, UTC" if trace.clock == "epoch" else "hour since time 0, modulo 24")
    axes.set_ylabel("requests / s")
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 3))
    axes.set_ylim(top=max(value for _, value in known) * 1.15 or 1)
    axes.legend(loc="upper left")


def _draw_dispersion(axes: Axes, trace: Trace) -> None:
    smallest = trace.bin_s or min(0.1, trace.span_s / 1000)
    widths = [width for width in smallest * np.geomspace(1, 1e5, 26) if 12 * width < trace.span_s]
    if trace.bin_s is not None:
        widths = sorted({trace.bin_s * round(width / trace.bin_s) for width in widths})
    points = [(width, value) for width in widths if (value := dispersion(trace, width)) is not None]
    axes.set_title("Burstiness (index of dispersion)")
    axes.set_xlabel("bin width, seconds")
    axes.set_ylabel("variance / mean of counts")
    if not points:
        axes.text(0.5, 0.5, "trace too short", ha="center", transform=axes.transAxes, color=_GREY)
        return
    axes.plot(*zip(*points, strict=True), color=_BLUE, marker="o", markersize=4, label="trace")
    axes.axhline(1, color=_GREY, linestyle="--", label="Poisson")
    _log_x(axes)
    axes.set_yscale("log")
    axes.legend(loc="upper left")


def _plot_bin(trace: Trace, most: int) -> float:
    """The narrowest pleasant bin that gives at most `most` of them."""
    wanted = trace.span_s / most
    if trace.bin_s is None:
        return float(next((step for step in _STEPS_S if step >= wanted), wanted))
    multiples = [step / trace.bin_s for step in _STEPS_S if step >= wanted and step >= trace.bin_s]
    multiple = next((value for value in multiples if abs(value - round(value)) < 1e-6), wanted / trace.bin_s)
    return trace.bin_s * max(1, round(multiple))


def _time_unit(span_s: float) -> tuple[float, str]:
    for scale, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if span_s > 2 * scale:
            return scale, unit
    return 1.0, "seconds"


def _duration(seconds: float) -> str:
    for scale, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _si(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
