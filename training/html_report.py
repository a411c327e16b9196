"""The backtest as one page for a person: no network, no script, light and dark, all pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from training import charts, fan_charts
from training.backtest_table import change, cover, interval, ratio, score, title, verdict
from training.chart_style import spoken, to_svg
from training.decision import SHARES
from training.describe import describe, wall_clock
from training.html_style import PAGE, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        ("Capacity", _capacity(backtest)),
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
        f" from {wall_clock(split['test_from_s'])} to {wall_clock(split['test_to_s'])}"
        if report["trace"]["clock"] == "epoch"
        else ""
    )
    steps = "requests" if report["step_s"] is None else f"steps of {report['step_s']:g} s"
    how = f"refitted {report['refit']} times" if report["refit"] else "fixed models"
    return escape(f"{split['test']:,} test forecasts of {report['horizon']} {steps}{when}; {how}")


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
            interval(row["difference"]),
            score(test["wape"]["mean"]),
            f"{cover(report, row, 0.9):.3f}",
        ]
        if load:
            rates = row["decision"][report["channels"][0]]["rates"]
            cells += [ratio(rates[f"{share:g}"]["capacity"]) for share in SHARES]
        if "planner_loss" in test:
            cells.append(f"{test['planner_loss']:.4f}")
        kind = "best" if row["name"] == report["best_model"] else "model" if row["model"] else "baseline"
        rows.append((kind, cells))
    lines = "".join(f"<p class=lead>{escape(line)}</p>" for line in (*verdict(report), *report["notes"]))
    return (
        lines
        + _table(header, rows)
        + _note(
            "Best test wQL first; ★ the model that validation chooses. wQL, the mean weighted quantile loss, is 0 for "
            "a perfect forecast. Baselines were tuned on validation, so their validation scores flatter them a little."
        )
    )


def _forecasts(backtest: Backtest) -> str:
    report = backtest.report
    parts = [
        _picture(
            fan_charts.stretch(backtest, c),
            f"The busiest stretch of test: {spoken(name)}",
            "Every point was forecast that long before it happened. Dark band: half of the outcomes belong there; "
            "light band: 80 %, with the usual levels.",
        )
        for c, name in enumerate(report["channels"])
    ]
    parts.append(
        _picture(
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
        _picture(
            charts.differences(report),
            "How sure the ranking is",
            f"Paired differences on the same test windows; intervals from a moving-block bootstrap with blocks of "
            f"{blocks['block_origins']} origins, {blocks['replicates']} replicates, seed {blocks['seed']}. "
            "An interval that holds 0 is no clear difference. The choice of the best among many is not corrected for.",
        )
        + _picture(charts.by_step(report), "Error by step", "Lines that leave a panel are about twice as bad or worse.")
        + (
            _picture(hours, "Error by hour of the day", "Each hour's loss over that hour's demand.")
            if hours
            else _note("The test part covers too few hours of the day for a picture of the error by hour.")
        )
    )


def _calibration(backtest: Backtest) -> str:
    report = backtest.report
    header = ["forecaster", "channel", *(f"{level:g}" for level in report["levels"])]
    rows = [
        (
            "best" if row["name"] == report["best_model"] else "model" if row["model"] else "baseline",
            [row["name"], spoken(channel), *(f"{share:.3f}" for share in row["test"]["coverage"][channel])],
        )
        for row in report["forecasters"]
        for channel in report["channels"]
    ]
    return (
        _picture(
            charts.reliability(report),
            "Reliability",
            "On the grey line a quantile keeps its promise. Above it the forecast is too high or too wide there, below "
            "it too low: capacity bought at that level falls short more often than promised.",
        )
        + _picture(charts.coverage_steps(report), "Coverage at each step of the horizon", "")
        + _fold("Coverage of every level, all forecasters", _table(header, rows))
    )


def _capacity(backtest: Backtest) -> str:
    report = backtest.report
    if report["best_planner"] is None:
        return ""
    parts = [
        f"<p>Capacity is ordered {report['lead_time_s']:g} s ahead, for the step in which that time ends: a factor "
        "times a quantile of the forecast. The level is chosen on validation for each rate of shortage.</p>"
    ]
    for channel in report["channels"]:
        parts.append(
            _picture(
                charts.trade_off(report, channel),
                f"What shortage costs: {spoken(channel)}",
                "Lower is better. The factor of every point is matched on test, so that all stand at equal rates. The "
                "dots buy a quantile as it stands, without a factor.",
            )
        )
        parts.append(_capacity_table(report, channel))
    parts.append(
        _note(
            "matched: capacity over demand with the factor found on test, one rate for all. planned: factor found on "
            "validation, as a planner must; beside it the share of bins that then really fell short. The oracle, which "
            "knows demand, needs 1.00 and is never short."
        )
    )
    return "".join(parts)


def _capacity_table(report: dict[str, Any], channel: str) -> str:
    header = ["forecaster"]
    for share in SHARES:
        header += [f"{share:.0%}: matched", "level", "planned", "really short"]
    rows = []
    constant = {"name": "constant capacity", "model": False, "decision": report["constant_capacity"]}
    for row in (*report["forecasters"], constant):
        cells = [row["name"]]
        for share in SHARES:
            rate = row["decision"][channel]["rates"][f"{share:g}"]
            planned = rate["planned"]
            level = "-" if row is constant else f"{rate['level']:g}"
            short = "-" if planned["short"] is None else f"{planned['short']:.1%}"
            cells += [ratio(rate["capacity"]), level, ratio(planned["capacity"]), short]
        kind = "best" if row["name"] == report["best_model"] else "model" if row["model"] else "baseline"
        rows.append((kind, cells))
    return _table(header, rows)


def _data(backtest: Backtest) -> str:
    report, trace = backtest.report, backtest.data.trace
    facts = describe(trace)
    split = report["split"]
    shown = {
        "files": ", ".join(report["trace"]["sources"]),
        "rows": f"{len(trace):,}",
        "requests": f"{facts['requests']:,.0f}",
        "span": f"{facts['span_s'] / 86400:.3g} days"
        if facts["span_s"] > 86400
        else f"{facts['span_s'] / 3600:.3g} hours",
        "first and last": f"{facts['first']} to {facts['last']}" if "first" in facts else "on a relative clock",
        "mean rate": "-" if facts["rate_per_s"] is None else f"{facts['rate_per_s']:.4g} requests/s",
        "steps of the series": f"{report['trace']['steps']:,} in {report['trace']['segments']} segment(s)",
        "scored windows": f"{split['validation']:,} validation, {split['test']:,} test",
        "fingerprint": report["trace"]["fingerprint"][:16],
    }
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*trace.notes, *facts["remarks"]))
    return (
        _picture(fan_charts.overview(backtest), "The whole trace", "")
        + _facts(shown)
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _configuration(backtest: Backtest, settings: Settings, command: str) -> str:
    report = backtest.report
    parts = [f"<pre>{escape(command)}</pre>"]
    parts += [_fold(f"Settings of {name}", _facts(found)) for name, found in settings.items()]
    tuned = {
        row["name"]: ", ".join(f"{key} {value}" for key, value in row["settings"].items()) or "nothing to tune"
        for row in report["forecasters"]
        if not row["model"]
    }
    parts.append(_fold("Baselines, as tuned on validation", _facts(tuned)))
    if report["left_out"]:
        parts.append(_fold("Baselines left out", _facts(report["left_out"])))
    return "".join(parts)


def _picture(figure: Figure, heading: str, caption: str) -> str:
    return (
        f"<figure><h3>{escape(heading)}</h3>{to_svg(figure, label=heading)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _table(header: list[str], rows: list[tuple[str, list[str]]]) -> str:

    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr class={kind}>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>" for kind, cells in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"


def _facts(facts: Mapping[str, Any]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items()) + "</dl>\n"


def _fold(heading: str, body: str) -> str:
    return f"<details><summary>{escape(heading)}</summary>{body}</details>\n"


def _note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>\n"
