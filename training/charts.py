"""The pictures of scores in the backtest report: by step, by hour, differences, calibration, capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.backtest_table import change
from training.chart_style import BAR, GREY, INK, MODELS, chart, palette, percent, spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def differences(report: dict[str, Any]) -> Figure:
    """Test wQL of every forecaster against the best baseline's, with intervals; far ones stand at the edge."""
    rows = [row for row in report["forecasters"] if row["difference"] and row["difference"]["difference"] is not None]
    looks = palette(report)
    right = 1.6 * max([0.1, *(abs(row["difference"]["difference"]) for row in rows if row["model"])])
    with chart(height=1.0 + 0.3 * len(rows)) as (figure, ((axes,),)):
        for place, row in enumerate(reversed(rows)):
            found, color = row["difference"], looks[row["name"]]["color"]
            if found["low"] is not None:
                axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=5, alpha=0.45)
            inside = found["difference"] <= right
            at = found["difference"] if inside else right
            axes.plot([at], [place], "o" if inside else ">", color=color, markersize=7, clip_on=False)
        axes.axvline(0.0, color=INK, linewidth=1.2)
        names = [f"{row['name']}   {change(row['difference'])}" for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), names)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(min([-0.03, *(1.2 * (row["difference"]["low"] or 0.0) for row in rows)]), right)
        percent(axes.xaxis)
        axes.set_xlabel(f"test wQL against {report['best_baseline']} (left is better; bar: 95 % interval; ▸ beyond)")
    return figure


def by_step(report: dict[str, Any]) -> Figure:
    """wQL of each step of the horizon, a panel per channel."""
    looks, channels = palette(report), report["channels"]
    seconds = report["step_s"]
    with chart(1, len(channels), height=3.6) as (figure, (panels,)):
        for axes, channel in zip(panels, channels, strict=True):
            for row in report["forecasters"]:
                scores = row["test"]["wql_steps"]["channels"][channel]
                marker = {"marker": "."} if len(scores) < 3 else {}
                axes.plot(np.arange(1, len(scores) + 1), scores, **looks[row["name"]], **marker)
            axes.set_title(spoken(channel))
            axes.set_xlabel("steps ahead" if seconds is None else f"steps of {seconds:g} s ahead")
            scores_of = {row["name"]: row["test"]["wql_steps"]["channels"][channel] for row in report["forecasters"]}
            axes.set_ylim(0.0, _top(report, scores_of))
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("wQL on test")
        _legend(figure, panels[0])
    return figure


def by_hour(report: dict[str, Any]) -> Figure | None:
    """wQL in each hour of the day; None where the test part has too few hours."""
    if report["forecasters"][0]["test"]["by_hour"] is None:
        return None
    looks = palette(report)
    with chart(height=3.4) as (figure, ((axes,),)):
        for row in report["forecasters"]:
            scores = [np.nan if value is None else value for value in row["test"]["by_hour"]]
            axes.plot(np.arange(24), scores, **looks[row["name"]])
        axes.set(ylabel="wQL on test", xticks=range(0, 24, 2))
        axes.set_ylim(0.0, _top(report, {row["name"]: row["test"]["by_hour"] for row in report["forecasters"]}))
        axes.set_xlabel("hour of the day, UTC" if report["trace"]["clock"] == "epoch" else "hour, from the clock's 0")
        _legend(figure, axes)
    return figure


def reliability(report: dict[str, Any]) -> Figure:
    """How often each quantile held against how often it should, on an axis that shows the tails."""
    looks, channels = palette(report), report["channels"]
    levels = np.array(report["levels"])
    with chart(1, len(channels), height=4.2) as (figure, (panels,)):
        for axes, channel in zip(panels, channels, strict=True):
            line = _spread(report, [levels.min(), levels.max()])
            axes.plot(line, line, color=GREY, linewidth=6, alpha=0.25, zorder=0, label="calibrated")
            for row in report["forecasters"]:
                if row["model"] or row["name"] == report["best_baseline"]:
                    covered = _spread(report, row["test"]["coverage"][channel])
                    axes.plot(_spread(report, levels), covered, marker="o", markersize=4, **looks[row["name"]])
            ticks = [f"{level:g}" for level in levels]
            axes.set_xticks(_spread(report, levels), ticks, rotation=45)
            axes.set_yticks(_spread(report, levels), ticks)
            axes.set_title(spoken(channel))
            axes.set_xlabel("level promised")
        panels[0].set_ylabel("share of targets at or below")
        _legend(figure, panels[0])
    return figure


def coverage_steps(report: dict[str, Any]) -> Figure:
    """Coverage at each step of the horizon, of the best model and the best baseline."""
    channels, levels = report["channels"], report["levels"]
    rows = {row["name"]: row for row in report["forecasters"]}
    looks = palette(report)
    shown = sorted({min(range(len(levels)), key=lambda q: abs(levels[q] - wanted)) for wanted in (0.1, 0.5, 0.9, 0.99)})
    with chart(1, len(channels), height=3.8, sharey=True) as (figure, (panels,)):
        for axes, channel in zip(panels, channels, strict=True):
            for q in shown:
                axes.axhline(_spread(report, levels[q]), color=GREY, linewidth=6, alpha=0.22, zorder=0)
                for name in (report["best_model"], report["best_baseline"]):
                    covered = _spread(report, [step[q] for step in rows[name]["test"]["coverage_steps"][channel]])
                    look = looks[name] if q == shown[0] else {**looks[name], "label": None}
                    axes.plot(np.arange(1, len(covered) + 1), covered, marker=".", **look)
            axes.set_yticks([_spread(report, levels[q]) for q in shown], [f"{levels[q]:g}" for q in shown])
            axes.set_title(spoken(channel))
            axes.set_xlabel("steps ahead")
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("share of targets at or below")
        _legend(figure, panels[0])
    return figure


def trade_off(report: dict[str, Any], channel: str) -> Figure:
    """Capacity over demand against the share of bins that fall short, for every forecaster, and the oracle."""
    looks = palette(report)
    with chart(height=4.8) as (figure, ((axes,),)):
        highest = 1.2
        for row in report["forecasters"]:
            found = row["decision"][channel]
            x, y = _drawn(found["curve"])
            axes.plot(x, y, **looks[row["name"]])
            if row["name"] in (report["best_model"], report["best_baseline"]):
                highest = max(highest, *y, 1.2)
                _bought(axes, found["as_is"], looks[row["name"]]["color"], label=row["name"] == report["best_model"])
        x, y = _drawn(report["constant_capacity"][channel]["curve"])
        axes.plot(x, y, color=MODELS[4], linestyle=":", linewidth=1.4, label="constant capacity")
        axes.axhline(1.0, color=BAR, linewidth=1.0, label="oracle: demand known, never short")
        axes.set_xscale("log")
        axes.set_xlim(0.002, 0.3)
        axes.set_ylim(0.9, min(4.0, 1.0 + 1.9 * (highest - 1.0)))
        axes.set_xticks([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
        axes.xaxis.set_minor_locator(_no_ticks())
        percent(axes.xaxis, 1)
        for share in (0.01, 0.05):
            axes.axvline(share, color=GREY, linewidth=0.9, linestyle="--", alpha=0.6)
        axes.set_xlabel(f"bins short of {spoken(channel)}")
        axes.set_ylabel("capacity over demand")
        _legend(figure, axes)
    return figure


def _top(report: dict[str, Any], scores: dict[str, list[float | None]]) -> float | None:
    """Where a panel of scores ends: models and the best baseline fit, lines that leave it are about twice as bad."""
    kept = [row["name"] for row in report["forecasters"] if row["model"] or row["name"] == report["best_baseline"]]
    top = max((value for name in kept for value in scores[name] if value is not None), default=0.0)
    return 1.9 * top if top > 0.0 else None


def _spread(report: dict[str, Any], shares: Any) -> Any:
    """Shares on a logit axis, which shows the tails; 0 and 1 stand beyond what the test part can tell."""
    n, levels = report["split"]["test"], report["levels"]
    inside = np.clip(np.asarray(shares, float), min(0.5 / n, levels[0]), max(1 - 0.5 / n, levels[-1]))
    return np.log(inside / (1 - inside))


def _drawn(curve: dict[str, list[float | None]]) -> tuple[list[float], list[float]]:
    """The finite points of a curve that lie on a logarithmic axis."""
    points = [(s, c) for s, c in zip(curve["short"], curve["capacity"], strict=True) if s and c is not None]
    return [s for s, _ in points], [c for _, c in points]


def _bought(axes: Any, as_is: list[dict[str, Any]], color: str, *, label: bool) -> None:
    """The quantiles as they stand, for a planner that scales nothing."""
    points = [point for point in as_is if point["capacity"] is not None and 0.002 <= point["short"] <= 0.3]
    name = "a quantile as it stands" if label else None
    axes.plot(
        [p["short"] for p in points],
        [p["capacity"] for p in points],
        "o",
        color=color,
        markersize=5,
        label=name,
        zorder=4,
    )
    for point in points:
        axes.annotate(
            f"{point['level']:g}",
            (point["short"], point["capacity"]),
            (5, -11) if label else (5, 5),  # above and below, out of each other's way
            textcoords="offset points",
            fontsize=8,
            color=color,
        )


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
