"""The runs of a folder as a table for a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from training.run_list import DAMAGED, FINISHED, UNFINISHED

_COLUMNS = {
    "run": 0,
    "state": 0,
    "model": 120,
    "series": 100,
    "trace": 150,
    "validation": 0,
    "test": 0,
    "vs_baseline": 0,
    "size": 150,
    "changed": 120,
}
"""Columns, and how wide a screen has them."""
_STYLES = {UNFINISHED: "yellow", DAMAGED: "red", FINISHED: ""}


def runs_table(rows: Sequence[dict[str, Any]], *, title: str, width: int) -> Table:
    """The table for a screen of so many columns; problems stand below it, from `problems`."""
    columns = [name for name, least in _COLUMNS.items() if width >= least]
    table = Table(title=escape(title), title_justify="left")
    for name in columns:
        left = name in ("run", "state", "model", "series", "trace")
        table.add_column(name.replace("_", "\n"), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        cells = _cells(row)
        table.add_row(*(escape(cells[name]) for name in columns), style=_STYLES[row["state"]])
    return table


def problems(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with runs, one line each."""
    return [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    epochs = row.get("epochs")
    trace = row.get("trace") or {}
    return {
        "run": row["name"],
        "state": f"{row['state']} {epochs['done']}/{epochs['of']}"
        if epochs and row["state"] == UNFINISHED
        else row["state"],
        "model": row.get("model", "-"),
        "series": _series(row.get("data")),
        "trace": _short(", ".join(trace.get("sources") or []) or trace.get("fingerprint", "-")[:8]),
        **{part: f"{row[part]:.4f}" if part in row else "-" for part in ("validation", "test")},
        "vs_baseline": "-" if row.get("versus") is None else f"{row['versus']:+.1%}",
        "size": _size(row["size_bytes"]),
        "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(row["changed_s"])),
    }


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:21] + "..."


def _series(data: dict[str, Any] | None) -> str:
    if data is None:
        return "-"
    if data["series"] == "requests":
        return f"requests {data['context']}>{data['horizon']}"
    step = "" if data["step_s"] is None else f"/{data['step_s']:g}"
    return f"load {data['bin_s']:g}{step} s {data['context']}>{data['horizon']}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
