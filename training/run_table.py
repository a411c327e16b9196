"""The runs of a folder as a table for a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from training.run_list import DAMAGED, FINISHED, UNFINISHED

_STYLES = {UNFINISHED: "yellow", DAMAGED: "red", FINISHED: ""}


def runs_table(rows: Sequence[dict[str, Any]], *, title: str) -> Table:
    """The table; problems stand below it, from `problems`."""
    table = Table(title=escape(title), title_justify="left")
    for name in ("run", "state", "model", "series", "trace"):
        table.add_column(name, no_wrap=True, max_width=24 if name == "trace" else None)
    for name in ("validation", "test", "vs\nbaseline", "size", "changed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, _cells(row)), style=_STYLES[row["state"]])
    return table


def problems(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with runs, one line each."""
    return [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]


def _cells(row: dict[str, Any]) -> list[str]:
    epochs = row.get("epochs")
    state = f"{row['state']} {epochs['done']}/{epochs['of']}" if epochs and row["state"] == UNFINISHED else row["state"]
    trace = row.get("trace") or {}
    return [
        row["name"],
        state,
        row.get("model", "-"),
        _series(row.get("data")),
        ", ".join(trace.get("sources") or []) or trace.get("fingerprint", "-")[:8],
        *(f"{row[part]:.4f}" if part in row else "-" for part in ("validation", "test")),
        "-" if row.get("versus") is None else f"{row['versus']:+.1%}",
        _size(row["size_bytes"]),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row["changed_s"])),
    ]


def _series(data: dict[str, Any] | None) -> str:
    if data is None:
        return "-"
    if data["series"] == "requests":
        return f"requests {data['context']}>{data['horizon']}"
    step = "" if data["step_s"] is None else f"/{data['step_s']:g}"
    return f"load {data['bin_s']:g}{step} s {data['context']}>{data['horizon']}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
