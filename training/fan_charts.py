"""The pictures of the data in the backtest report: the whole series, and forecasts as fans over what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.chart_style import GREY, INK, chart, clock, palette, spoken, thousands, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.evaluate import Backtest
    from training.forecasts import Forecasts

_MOST_POINTS = 1500
_STRETCH = {"load": 600, "requests": 240}
_HISTORY_OF_HORIZON = 3


def overview(backtest: Backtest) -> Figure:
    """The first channel over the whole trace, and where validation and test begin."""
    ground, report = backtest.ground, backtest.report
    series, channel = ground.series, report["channels"][0]
    values, time_s = series.values[:, 0], series.time_s
    epoch = series.clock == "epoch"
    width = -(-len(values) // _MOST_POINTS)
    starts = np.arange(0, len(values), width)
    mean = np.add.reduceat(values.astype(np.float64), starts) / np.diff(np.append(starts, len(values)))
    with chart(height=2.6) as (figure, ((axes,),)):
        at = times(time_s[starts], epoch=epoch, of=time_s)
        if width > 1:
            lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
            axes.fill_between(at, lowest, highest, color=GREY, alpha=0.35, linewidth=0, label="lowest to highest")
        axes.plot(at, mean, color=INK, linewidth=0.9, label="mean" if width > 1 else "value")
        split = report["split"]
        edges = times([split["validation_from_s"], split["test_from_s"], split["test_to_s"]], epoch=epoch, of=time_s)
        axes.axvspan(edges[0], edges[1], color="#dd7a2c", alpha=0.12, linewidth=0, label="validation")
        axes.axvspan(edges[1], edges[2], color="#2f7fd0", alpha=0.14, linewidth=0, label="test")
        axes.set_ylabel(_unit(report, channel))
        axes.set_ylim(bottom=0.0)
        thousands(axes)
        clock(axes, time_s, epoch=epoch)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9)
    return figure


def stretch(backtest: Backtest, channel: int) -> Figure:
    """The busiest stretch of the test part as it was forecast one lead time ahead: best model over best baseline."""
    ground, report = backtest.ground, backtest.report
    step = report["lead_step"] if report["best_planner"] else 0
    target = ground.target("test")[:, step, channel]
    time_s = ground.target_time_s("test")[:, step]
    at = _busiest(target, most=_STRETCH[report["kind"]])
    chosen = [_named(backtest, report["best_model"]), _named(backtest, report["best_baseline"])]
    looks = palette(report)
    epoch = ground.series.clock == "epoch"
    with chart(2, 1, height=6.0, sharex=True, sharey=True) as (figure, panels):
        for axes, found in zip(panels[:, 0], chosen, strict=True):
            places = np.arange(len(target))[at]
            x = places if report["step_s"] is None else times(time_s[at], epoch=epoch, of=time_s[at])
            color = looks[found.name]["color"]
            _fan(axes, x, found.test[at, step, channel], report["levels"], GREY if color == INK else color)
            axes.plot(x, target[at], color=INK, linewidth=1.0, label="what came", zorder=4)
            axes.set_title(f"{found.name}, {_ahead(report, step)}")
            axes.set_ylabel(_unit(report, report["channels"][channel]))
            thousands(axes)
        # One wild quantile, or one wild value of a heavy tail, must not flatten the rest.
        usual = float(np.quantile(target[at], 0.99))
        top = max(float(np.quantile(found.test[at, step, channel, -1], 0.98)) for found in chosen)
        axes.set_ylim(0.0, 1.08 * max(min(top, 1.7 * usual), usual) or None)
        if report["step_s"] is None:
            axes.set_xlabel("test request")
        else:
            clock(axes, time_s[at], epoch=epoch)
        _legend(figure, panels[0, 0])
    return figure


def single_fans(backtest: Backtest, channel: int = 0) -> Figure:
    """Whole forecasts of the best model from six test origins, easy and hard ones."""
    ground, report = backtest.ground, backtest.report
    found = _named(backtest, report["best_model"])
    target = ground.target("test")
    picks = _telling_origins(found, target, ground.test, ground.series.values, channel)
    color = palette(report)[found.name]["color"]
    history = min(backtest.data.wide_context, _HISTORY_OF_HORIZON * ground.horizon + 5)
    columns = 3
    with chart(-(-len(picks) // columns), columns, height=2.5 * -(-len(picks) // columns)) as (figure, panels):
        for axes, (what, n) in zip(panels.ravel(), picks, strict=False):
            origin = int(ground.test[n])
            past = ground.series.values[max(0, origin - history) : origin, channel]
            ahead = np.arange(ground.horizon + 1)
            # The fan opens from the last value that is known.
            opened = np.concatenate([np.repeat(past[-1:, None], len(report["levels"]), 1), found.test[n, :, channel]])
            _fan(axes, ahead, opened, report["levels"], color)
            axes.plot(np.arange(1 - len(past), 1), past, color=INK, linewidth=1.0)
            came = np.append(past[-1], target[n, :, channel])
            axes.plot(ahead, came, color=INK, linewidth=1.2, marker=".", markersize=4, label="what came")
            axes.axvline(0, color=GREY, linewidth=0.9, linestyle="--")
            axes.set_title(what)
            axes.set_ylim(bottom=0.0)
            thousands(axes)
        for axes in panels.ravel()[len(picks) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel(_unit(report, report["channels"][channel]))
        for axes in panels[-1]:
            axes.set_xlabel(
                "steps from now" if report["step_s"] is None else f"steps of {report['step_s']:g} s from now"
            )
        _legend(figure, panels[0, 0])
    return figure


def _fan(axes: Any, x: Any, quantiles: np.ndarray, levels: list[float], color: str) -> None:
    """Bands between levels that mirror each other, the median, and the highest level as a line."""
    for q, level in enumerate(levels):
        mirror = next((p for p, other in enumerate(levels) if abs(level + other - 1.0) < 1e-9), None)
        if mirror is not None and mirror > q:
            inner = levels[mirror] - level
            label = f"{level:g} to {levels[mirror]:g}"
            alpha = 0.22 if inner > 0.6 else 0.38
            axes.fill_between(
                x, quantiles[:, q], quantiles[:, mirror], color=color, alpha=alpha, linewidth=0, label=label
            )
    middle = min(range(len(levels)), key=lambda q: abs(levels[q] - 0.5))
    axes.plot(x, quantiles[:, middle], color=color, linewidth=1.4, label=f"level {levels[middle]:g}", zorder=3)
    if levels[-1] > 0.9:
        axes.plot(
            x, quantiles[:, -1], color=color, linewidth=0.9, linestyle=":", label=f"level {levels[-1]:g}", zorder=3
        )


def _busiest(target: np.ndarray, *, most: int) -> slice:
    """Where the test part asks for most, `most` origins long."""
    width = min(most, len(target))
    sums = np.concatenate([[0.0], np.cumsum(target, dtype=np.float64)])
    start = int((sums[width:] - sums[:-width]).argmax())
    return slice(start, start + width)


def _telling_origins(
    found: Forecasts, target: np.ndarray, origins: np.ndarray, values: np.ndarray, channel: int
) -> list[tuple[str, int]]:
    """Places of six different test origins: what each one is, and its place."""
    ours, came = found.test[..., channel, :], target[..., channel].astype(np.float64)
    middle = ours.shape[-1] // 2
    miss = np.abs(came - ours[..., middle]).sum(axis=1) / np.maximum(came.sum(axis=1), 1e-9)
    total = came.sum(axis=1)
    rise = came.mean(axis=1) - values[origins - 1, channel]
    busy = total >= np.median(total)  # a miss by half of next to nothing is no story
    wanted = [
        ("a typical forecast", np.argsort(np.abs(miss - np.median(miss)))),
        ("the busiest time", np.argsort(-total)),
        ("the quietest time", np.argsort(total)),
        ("the steepest rise", np.argsort(-rise)),
        ("the steepest fall", np.argsort(rise)),
        ("the worst miss of a busy time", np.argsort(np.where(busy, -miss, np.inf))),
    ]
    picks: list[tuple[str, int]] = []
    for what, order in wanted:
        taken = [place for _, place in picks]
        free = [
            int(place)
            for place in order[: 6 * len(wanted) * target.shape[1]]
            if _apart(int(place), taken, target.shape[1])
        ]
        if free:
            picks.append((what, free[0]))
    return picks


def _apart(place: int, taken: list[int], horizon: int) -> bool:
    return all(abs(place - other) >= horizon for other in taken)


def _named(backtest: Backtest, name: str) -> Forecasts:
    return next(found for found in backtest.forecasts if found.name == name)


def _ahead(report: dict[str, Any], step: int) -> str:
    if report["step_s"] is None:
        return "one request ahead" if step == 0 else f"{step + 1} requests ahead"
    return f"{(step + 1) * report['step_s']:g} s ahead"


def _unit(report: dict[str, Any], channel: str) -> str:
    per_step = "" if report["step_s"] is None else f" per {report['step_s']:g} s"
    return spoken(channel) + per_step


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
