"""The backtest as one page for a person: no network, no script, light and dark, all pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from training import charts, fan_charts
from training.backtest_table import change, cover, interval, ratio, score, title, verdict
from training.chart_style import spoken
from training.decision import SHARES
from training.describe import describe, wall_clock
from training.html_capacity import capacity
from training.html_parts import PAGE, STYLE, facts, fold, kind, note, picture, table

if TYPE_CHECKING:
    from training.evaluate import Backtest

Settings = Mapping[str, Mapping[str, Any]]
"""What a run was made of, by the run's name."""


def html_report(backtest: Backtest, *, settings: Settings, command: str) -> str:
    """The report as one HTML document.

    Args:
        backtest: from `training.evaluate`.
        settings: by model, for the section on configuration.
        command: the command line that made it.
    """
    sections = [
        ("Verdict", _verdict(backtest)),
        ("Forecasts", _forecasts(backtest)),
        ("Accuracy", _accuracy(backtest)),
        ("Calibration", _calibration(backtest)),
        ("Capacity", capacity(backtest.report)),
        ("Data", _data(backtest)),
        ("Configuration", _configuration(backtest, settings, command)),
    ]
    sections = [(name, body) for name, body in sections if body]
    index = "".join(f'<a href="#{name.lower()}">{name}</a>' for name, _ in sections)
    bodies = "\n".join(f'<section id="{name.lower()}"><h2>{name}</h2>\n{body}</section>' for name, body in sections)
    heading = f"Backtest of {title(backtest.report)}"
    return PAGE.format(title=escape(heading), style=STYLE, index=index, body=bodies, subtitle=_subtitle(backtest))


def _subtitle(backtest: Backtest) -> str:
    report, split = backtest.report, backtest.report["split"]
    when = (
        f", {_when(split['test_from_s'])} to {_when(split['test_to_s'])} UTC"
        if report["trace"]["clock"] == "epoch"
        else ""
    )
    steps = "requests" if report["step_s"] is None else f"steps of {report['step_s']:g} s"
    how = f"refitted {report['refit']} times" if report["refit"] else "fixed models"
    return escape(f"{split['test']:,} test forecasts of {report['horizon']} {steps}{when}; {how}")


def _when(time_s: float) -> str:
    return wall_clock(time_s)[:16].replace("T", " ")


def _verdict(backtest: Backtest) -> str:
    report = backtest.report
    load = report["best_planner"] is not None
    header = ["forecaster", "validation wQL", "test wQL", "vs best baseline", "95 % interval", "WAPE", "cover 0.9"]
    header += [f"capacity, {share:.0%} short" for share in SHARES] if load else []
    if "planner_loss" in report["forecasters"][0]["test"]:
        header.append("planner loss")
    rows = []
    for row in report["forecasters"]:
        test = row["test"]
        cells = [
            row["name"] + (" ★" if row["name"] == report["best_model"] else ""),
            score(row["validation"]["wql"]["mean"]),
            score(test["wql"]["mean"]),
            change(row["difference"]),
            interval(row["difference"], " to "),
            score(test["wape"]["mean"]),
            f"{cover(report, row, 0.9):.3f}",
        ]
        if load:
            rates = row["decision"][report["channels"][0]]["rates"]
            cells += [ratio(rates[f"{share:g}"]["capacity"]) for share in SHARES]
        if "planner_loss" in test:
            cells.append(f"{test['planner_loss']:.4f}")
        rows.append((kind(report, row), cells))
    lines = "".join(_lead(line) for line in (*verdict(report), *report["notes"]))
    return (
        lines
        + table(header, rows)
        + note(
            "Best test wQL first; ★ the model that validation chooses. wQL, the mean weighted quantile loss, is 0 for "
            "a perfect forecast. Baselines were tuned on validation, so their validation scores flatter them a little."
        )
    )


def _lead(line: str) -> str:
    tone = "good" if line.startswith("Better") else "bad" if line.startswith("WORSE") else ""
    return f'<p class="lead {tone}">{escape(line)}</p>'


def _forecasts(backtest: Backtest) -> str:
    report = backtest.report
    parts = [
        picture(
            fan_charts.stretch(backtest, c),
            f"The busiest stretch of test: {spoken(name)}",
            "Every point was forecast that long before it happened; the bands lie between the levels of the legend.",
        )
        for c, name in enumerate(report["channels"])
    ]
    parts.append(
        picture(
            fan_charts.single_fans(backtest),
            f"Six whole forecasts of {report['best_model']}",
            "Left of the dashed line is what the model had just seen. A typical forecast is one with the median error; "
            "the others are the extremes of the test part.",
        )
    )
    return "".join(parts)


def _accuracy(backtest: Backtest) -> str:
    report, blocks = backtest.report, backtest.report["uncertainty"]
    hours = charts.by_hour(report)
    return (
        picture(
            charts.differences(report),
            "How sure the ranking is",
            f"Paired differences on the same test windows; intervals from a moving-block bootstrap with blocks of "
            f"{blocks['block_origins']} origins, {blocks['replicates']} replicates, seed {blocks['seed']}. "
            "An interval that holds 0 is no clear difference. The choice of the best among many is not corrected for.",
        )
        + picture(charts.by_step(report), "Error by step", "Lines that leave a panel are about twice as bad or worse.")
        + (
            picture(hours, "Error by hour of the day", "Each hour's loss over that hour's demand.")
            if hours
            else note("The test part covers too few hours of the day for a picture of the error by hour.")
        )
    )


def _calibration(backtest: Backtest) -> str:
    report = backtest.report
    header = ["forecaster", "channel", *(f"{level:g}" for level in report["levels"])]
    rows = [
        (
            kind(report, row),
            [row["name"], spoken(channel), *(f"{share:.3f}" for share in row["test"]["coverage"][channel])],
        )
        for row in report["forecasters"]
        for channel in report["channels"]
    ]
    return (
        picture(
            charts.reliability(report),
            "Reliability",
            "On the grey line a quantile keeps its promise. Above it the forecast is too high or too wide there, below "
            "it too low: capacity bought at that level falls short more often than promised.",
        )
        + picture(charts.coverage_steps(report), "Coverage at each step of the horizon", "")
        + fold("Coverage of every level, all forecasters", table(header, rows))
    )


def _data(backtest: Backtest) -> str:
    report, trace = backtest.report, backtest.data.trace
    found = describe(trace)
    split = report["split"]
    shown = {
        "files": ", ".join(report["trace"]["sources"]),
        "rows": f"{len(trace):,}",
        "requests": f"{found['requests']:,.0f}",
        "span": f"{found['span_s'] / 86400:.3g} days"
        if found["span_s"] > 86400
        else f"{found['span_s'] / 3600:.3g} hours",
        "first and last": f"{_when(found['first_s'])} to {_when(found['last_s'])} UTC"
        if "first" in found
        else "on a relative clock",
        "mean rate": "-" if found["rate_per_s"] is None else f"{found['rate_per_s']:.4g} requests/s",
        "steps of the series": f"{report['trace']['steps']:,} in {report['trace']['segments']} segment(s)",
        "scored windows": f"{split['validation']:,} validation, {split['test']:,} test",
        "fingerprint": report["trace"]["fingerprint"][:16],
    }
    notes = "".join(f"<li>{escape(text)}</li>" for text in (*trace.notes, *found["remarks"]))
    return (
        picture(fan_charts.overview(backtest), "The whole trace", "")
        + facts(shown)
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _configuration(backtest: Backtest, settings: Settings, command: str) -> str:
    report = backtest.report
    parts = [f"<pre>{escape(command)}</pre>"]
    parts += [fold(f"Settings of {name}", facts(found)) for name, found in settings.items()]
    tuned = {
        row["name"]: ", ".join(f"{key} {value}" for key, value in row["settings"].items()) or "nothing to tune"
        for row in report["forecasters"]
        if not row["model"]
    }
    parts.append(fold("Baselines, as tuned on validation", facts(tuned)))
    if report["left_out"]:
        parts.append(fold("Baselines left out", facts(report["left_out"])))
    return "".join(parts)
