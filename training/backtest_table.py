"""What `fcast-backtest` prints: every forecaster in one table, the verdict, and a summary over several traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from training.decision import SHARES

_WIDE = 115
_STRICT = f"{SHARES[0]:g}"


def table(report: dict[str, Any], *, width: int) -> Table:
    """All forecasters, best test wQL first, for a screen of so many columns; a narrow one shows less."""
    wide, load = width >= _WIDE, report["best_planner"] is not None
    shown = Table(title=title(report), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("forecaster", no_wrap=True)
    for name, needs_width, needs_load in _COLUMNS:
        if (wide or not needs_width) and (load or not needs_load):
            shown.add_column(name, justify="right", no_wrap=True)
    for row in report["forecasters"]:
        cells = [
            cell
            for cell, (_, needs_width, needs_load) in zip(_cells(report, row), _COLUMNS, strict=True)
            if (wide or not needs_width) and (load or not needs_load)
        ]
        style = "bold green" if row["name"] == report["best_model"] else "" if row["model"] else "dim"
        shown.add_row(_name(report, row), *cells, style=style)
    return shown


_COLUMNS = (
    # header, only on a wide screen, only for a load series
    ("valid.\nwQL", True, False),
    ("test\nwQL", False, False),
    ("vs best\nbaseline", False, False),
    ("95 %\ninterval", False, False),
    ("WAPE", True, False),
    ("cover\n0.9", False, False),
    ("1 %\nshort", False, True),
    ("5 %\nshort", False, True),
    ("planned\n1 % short", True, True),
    ("really\nshort", True, True),
)


def _cells(report: dict[str, Any], row: dict[str, Any]) -> list[str]:
    test, difference = row["test"], row["difference"]
    cells = [
        score(row["validation"]["wql"]["mean"]),
        score(test["wql"]["mean"]),
        change(difference),
        interval(difference),
        score(test["wape"]["mean"]),
        f"{cover(report, row, 0.9):.3f}",
    ]
    if row["decision"] is None:
        return [*cells, "", "", "", ""]
    rates = row["decision"][report["channels"][0]]["rates"]
    planned = rates[_STRICT]["planned"]
    return [
        *cells,
        *(ratio(rates[f"{share:g}"]["capacity"]) for share in SHARES),
        ratio(planned["capacity"]),
        "-" if planned["short"] is None else f"{planned['short']:.1%}",
    ]


def title(report: dict[str, Any]) -> str:
    """The traces and the kind of series."""
    return f"{', '.join(report['trace']['sources'])} as {report['kind']} series"


def change(difference: dict[str, Any] | None) -> str:
    """A relative difference in percent; "-" for the reference itself, or against a reference of 0."""
    return "-" if difference is None else _percent(difference["difference"], "-")


def interval(difference: dict[str, Any] | None, between: str = " ") -> str:
    """The interval of a relative difference; "?" where there were too few origins."""
    if difference is None:
        return "-"
    bounds = [_percent(difference[name], "?") for name in ("low", "high")]
    return "?" if bounds == ["?", "?"] else between.join(bounds)


def _percent(value: float | None, missing: str) -> str:
    if value is None:
        return missing
    return f"{value:+.1%}" if abs(value) < 1 else f"{value:+.0%}" if value < 10 else ">+999%"


def score(value: float) -> str:
    """A wQL or WAPE, short even where a forecaster is far off."""
    return f"{value:.4f}" if value < 100 else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """A capacity over demand; "never" where no factor meets the demand."""
    return "never" if value is None else f"{value:.2f}"


def cover(report: dict[str, Any], row: dict[str, Any], level: float) -> float:
    """Mean coverage over the channels, at the level nearest to `level`."""
    place = nearest_level(report, level)
    return float(np.mean([row["test"]["coverage"][name][place] for name in report["channels"]]))


def nearest_level(report: dict[str, Any], level: float) -> int:
    """The place of the quantile level nearest to `level`."""
    return min(range(len(report["levels"])), key=lambda q: abs(report["levels"][q] - level))


def _name(report: dict[str, Any], row: dict[str, Any]) -> str:
    return f"{row['name']} *" if row["name"] == report["best_model"] else str(row["name"])


def verdict(report: dict[str, Any]) -> list[str]:
    """What the numbers say about the models, a sentence each."""
    models = [row for row in report["forecasters"] if row["model"]]
    bar = report["best_baseline"]
    groups = {
        "better": f"Better than the best baseline, {bar}, with an interval below 0",
        "no clear difference": f"NO clear difference from the best baseline, {bar}",
        "worse": f"WORSE than the best baseline, {bar}, do not ship",
        "too few origins to tell": "Too few test windows for an interval, so no verdict",
    }
    lines = []
    for kind, text in groups.items():
        named = [f"{row['name']} ({change(row['difference'])})" for row in models if _verdict(row) == kind]
        if named:
            lines.append(f"{text}: {', '.join(named)}.")
    if report["best_planner"] is not None:
        lines += _planner_lines(report, models)
    return lines


def _verdict(row: dict[str, Any]) -> str:
    return str(row["difference"]["verdict"])


def _planner_lines(report: dict[str, Any], models: Sequence[dict[str, Any]]) -> list[str]:
    channel, planner = report["channels"][0], report["best_planner"]
    bar = next(row for row in report["forecasters"] if row["name"] == planner)
    needed = {row["name"]: row["decision"][channel]["rates"][_STRICT] for row in (*models, bar)}
    best = report["best_model"]
    difference = next(row for row in models if row["name"] == best)["decision"][channel]["difference"][_STRICT]
    low, high = difference["low"], difference["high"]
    sure = "" if low is None or high is None else f" (95 % interval of the difference {low:+.2f} to {high:+.2f})"
    constant = report["constant_capacity"][channel]["rates"][_STRICT]["capacity"]
    return [
        f"Capacity over demand, ordered {report['lead_time_s']:g} s ahead with 1 % of bins short: {best} "
        f"{ratio(needed[best]['capacity'])}, the best baseline, {planner}, {ratio(needed[planner]['capacity'])}, a "
        f"constant capacity {ratio(constant)}. {best} against {planner}: {difference['verdict']}{sure}.",
        *_demand_lines(report, next(row for row in models if row["name"] == best)),
    ]


def _demand_lines(report: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Whether forecasting the sum over the lead time beats adding up the steps' quantiles."""
    found = row["demand"]["sum"][report["channels"][0]]
    if found["direct"] is None or report["lead_step"] == 0:
        return []
    direct, composed = found["direct"], found["composed"]
    q = nearest_level(report, 0.9)
    return [
        f"All {report['channels'][0]} until then: {row['name']} forecasts their sum with wQL {score(direct['wql'])}, "
        f"covers {direct['coverage'][q]:.3f} at level {report['levels'][q]:g}; adding the quantiles of its steps gives "
        f"{score(composed['wql'])} and {composed['coverage'][q]:.3f}."
    ]


def legend(report: dict[str, Any]) -> str:
    """What the columns of the table mean."""
    lines = [
        "* best model on validation. 'vs baseline': test wQL against the best baseline's; the interval is of a paired "
        f"block bootstrap (blocks of {report['uncertainty']['block_origins']} origins).",
    ]
    if report["best_planner"] is not None:
        lines.append(
            "'1 % short': capacity over demand with that share of the bins short; factor matched on test. 'planned': "
            "factor from validation, and the share that really fell short."
        )
    return "\n".join(lines)


def summarize(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several traces at a glance: ranks and wQL relative to each trace's best baseline.

    Returns:
        `files` (their names) and `forecasters`, best mean rank first: `name`, `model`, `mean_rank` by test wQL among
        the forecasters that every trace has, `relative_wql` (geometric mean over the traces; None where a trace has
        a wQL of 0) and `better_on`, the traces on which it clearly beats the best baseline.
    """
    common = [
        row["name"]
        for row in reports[0]["forecasters"]
        if all(row["name"] in {other["name"] for other in report["forecasters"]} for report in reports)
    ]
    rows = []
    for name in common:
        found = [next(row for row in report["forecasters"] if row["name"] == name) for report in reports]
        ranks = [
            [r["name"] for r in report["forecasters"] if r["name"] in common].index(name) + 1 for report in reports
        ]
        changes = [row["difference"]["difference"] if row["difference"] else 0.0 for row in found]
        ratios = [0.0 if change is None else 1.0 + change for change in changes]
        rows.append(
            {
                "name": name,
                "model": found[0]["model"],
                "mean_rank": float(np.mean(ranks)),
                "relative_wql": float(np.exp(np.mean(np.log(ratios)))) if min(ratios) > 0.0 else None,
                "better_on": sum(row["difference"] is not None and _verdict(row) == "better" for row in found),
            }
        )
    files = [", ".join(report["trace"]["sources"]) for report in reports]
    return {"files": files, "forecasters": sorted(rows, key=lambda row: float(row["mean_rank"]))}


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary over several traces."""
    heading = f"{len(summary['files'])} traces, each by itself"
    shown = Table(title=heading, title_justify="left", box=SIMPLE_HEAD)
    for name in ("forecaster", "mean rank", "wQL vs best baseline", "clearly better on"):
        shown.add_column(name, justify="left" if name == "forecaster" else "right")
    for row in summary["forecasters"]:
        relative = "-" if row["relative_wql"] is None else _percent(row["relative_wql"] - 1.0, "-")
        cells = (row["name"], f"{row['mean_rank']:.2f}", relative, f"{row['better_on']} of {len(summary['files'])}")
        shown.add_row(*cells, style="" if row["model"] else "dim")
    return shown
