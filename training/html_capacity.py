"""The section of the backtest report for who plans capacity: trade-offs, factors, demand until a replica is ready."""

from __future__ import annotations

from typing import Any

from training import charts
from training.backtest_table import nearest_level, ratio, score
from training.chart_style import spoken
from training.decision import SHARES
from training.html_parts import fold, kind, note, picture, table


def capacity(report: dict[str, Any]) -> str:
    """The section on capacity; empty for a requests series."""
    if report["best_planner"] is None:
        return ""
    parts = [
        f"<p>Capacity is ordered {report['lead_time_s']:g} s ahead, for the step in which that time ends: a factor "
        "times a quantile of the forecast. The level is chosen on validation for each rate of shortage.</p>"
    ]
    for channel in report["channels"]:
        parts.append(
            picture(
                charts.trade_off(report, channel),
                f"What shortage costs: {spoken(channel)}",
                "Lower is better. The factor of every point is matched on test, so that all stand at equal rates. The "
                "dots buy a quantile as it stands, without a factor.",
            )
        )
        parts.append(_capacity_table(report, channel))
        parts.append(fold(f"Every quantile as it stands: {spoken(channel)}", _as_is_table(report, channel)))
    parts.append(
        note(
            "matched: capacity over demand with the factor found on test, one rate for all. planned: factor found on "
            "validation, as a planner must; beside it the share of bins that then really fell short. The oracle, which "
            "knows demand, needs 1.00 and is never short."
        )
    )
    parts.append("<h3>Demand until the replica is ready</h3>" + _demand_table(report))
    parts.append(
        note(
            "The sum of all steps up to the lead time, and the largest of them. direct: forecast as such, by models "
            "that do. composed: quantiles of the single steps added up, or the largest of them; right only when all "
            "steps miss together, so it covers too much."
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
        rows.append((kind(report, row), cells))
    return table(header, rows)


def _as_is_table(report: dict[str, Any], channel: str) -> str:
    header = ["forecaster", *(f"level {level:g}" for level in report["levels"])]
    rows = [
        (
            kind(report, row),
            [
                row["name"],
                *(f"{ratio(p['capacity'])}, {p['short']:.1%} short" for p in row["decision"][channel]["as_is"]),
            ],
        )
        for row in report["forecasters"]
    ]
    return table(header, rows)


def _demand_table(report: dict[str, Any]) -> str:
    q = nearest_level(report, 0.9)
    header = ["forecaster", "channel"]
    for quantity in ("sum", "peak"):
        header += [f"{quantity}: wQL direct", "composed", f"cover {report['levels'][q]:g} direct", "composed"]
    rows = []
    for row in report["forecasters"]:
        for channel in report["channels"]:
            cells = [row["name"], spoken(channel)]
            for quantity in ("sum", "peak"):
                found = row["demand"][quantity][channel]
                ways = [found["direct"], found["composed"]]
                cells += ["-" if way is None else score(way["wql"]) for way in ways]
                cells += ["-" if way is None else f"{way['coverage'][q]:.3f}" for way in ways]
            rows.append((kind(report, row), cells))
    return table(header, rows)
