"""The facts of a trace as tables for a person."""

from __future__ import annotations

from typing import Any

from training.describe import wall_clock


def print_facts(facts: dict[str, Any]) -> None:
    """Print what `describe` found on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(
        title=escape(", ".join(facts["sources"])), show_header=False, title_justify="left", title_style="bold"
    )
    table.add_column(style="cyan")
    table.add_column()
    for name, value in _overview(facts):
        table.add_row(name, value)
    console.print(table)
    if spreads := _spreads(facts):
        table = Table("", "mean", "min", "median", "p90", "p99", "max")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, spread in spreads:
            table.add_row(name, *(_number(spread[key]) for key in ("mean", "min", "p50", "p90", "p99", "max")))
        console.print(table)
    cycle = facts["cycle"]
    if cycle is not None:
        console.print(_hours(cycle["rate_per_s_by_hour"], facts["clock"]))
    for remark in facts["remarks"]:
        console.print(f"[yellow]*[/] {remark}")


def _overview(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("rows", f"{facts['rows']:,} ({facts['kind']}), {facts['clock']} clock")]
    if facts["kind"] == "counts":
        rows.append(("requests", f"{facts['requests']:,.0f} in bins of {facts['bin_s']:g} s"))
    span = _length(facts["span_s"])
    if "first" in facts:
        span += f", {facts['first']} to {facts['last']}"
    rows += [("span", span), ("rate", f"{_number(facts['rate_per_s'])} requests/s")]
    if facts["kind"] == "requests":
        rows += [("inter-arrival CV", f"{_number(facts['inter_arrival_cv'])} (Poisson: 1)")]
    dispersion = ", ".join(f"{_number(value)} at {bin_s} s" for bin_s, value in facts["dispersion"].items())
    rows.append(("dispersion index", f"{dispersion} (Poisson: 1)"))
    if facts["kind"] == "requests":
        rows += [
            ("length correlation", f"{_number(facts['length_correlation'])} (log request and log response tokens)"),
            ("response tokens 0", f"{facts['zero_response_tokens']:,} rows (failed requests, in BurstGPT)"),
            ("request tokens 0", f"{facts['zero_request_tokens']:,} rows"),
            ("equal times", f"{facts['equal_times']:,} rows have the time of the row before"),
        ]
    else:
        rows += [
            ("next-bin correlation", _number(facts["next_bin_correlation"])),
            ("empty bins", f"{facts['zero_bins']:,} counted 0, {facts['missing_bins']:,} missing"),
        ]
        rows += [
            (name.replace("_", " "), _number(facts[name]))
            for name in ("request_tokens_per_request", "response_tokens_per_request")
            if name in facts
        ]
    rows += _gap_rows(facts)
    if facts["cycle"] is not None:
        rows += _cycle_rows(facts["cycle"])
    return [*rows, ("fingerprint", facts["fingerprint"][:16])]


def _gap_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    gaps = facts["gaps"]
    if not gaps["longest"]:
        return [("longest silences", "none")]

    def when(time_s: float) -> str:
        return wall_clock(time_s) if facts["clock"] == "epoch" else f"{time_s:,.0f} s"

    longest = ", ".join(f"{_length(gap['length_s'])} after {when(gap['after_s'])}" for gap in gaps["longest"])
    missing = f"{gaps['missing']} silences over {gaps['threshold_s'] / 3600:g} h, {_length(gaps['missing_s'])} in all"
    return [("longest silences", longest), ("missing data", missing if gaps["missing"] else "none")]


def _cycle_rows(cycle: dict[str, Any]) -> list[tuple[str, str]]:
    if cycle["peak_hour"] is None:
        return []
    likeness = cycle["next_day_correlation"]
    return [
        ("day cycle", f"peak at {cycle['peak_hour']}:00, {_number(cycle['peak_over_mean'])} x the mean rate"),
        ("next-day correlation", "too few days, or gaps" if likeness is None else _number(likeness)),
    ]


def _spreads(facts: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    keys = {
        "inter_arrival_s": "inter-arrival, s",
        "request_tokens": "request tokens",
        "response_tokens": "response tokens",
        "requests_per_bin": "requests per bin",
    }
    return [(name, facts[key]) for key, name in keys.items() if facts.get(key) is not None]


def _hours(rate: list[float | None], clock: str) -> str:
    """One character per hour: a picture of the day in a line."""
    highest = max(value for value in rate if value is not None) or 1.0
    bars = "".join("·" if value is None else "▁▂▃▄▅▆▇█"[min(7, int(8 * value / highest))] for value in rate)
    return f"rate by hour 0-23 {'UTC' if clock == 'epoch' else 'since time 0'}: {bars}"


def _length(seconds: float) -> str:
    for scale, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{seconds:.3g} s"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
