"""The report of `fcast-train`: every model beside every simple baseline, on screen and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from training.checkpoint import write_atomically
from training.plots import CURVES

JSON, MARKDOWN = "report.json", "report.md"
_WIDE = 115


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Models and baselines, best validation score first."""
    rows = [{**row, "model": True} for row in report["models"]] + [
        {**row, "model": False} for row in report["baselines"]
    ]
    return sorted(rows, key=_validation)


def _channels(report: dict[str, Any]) -> list[str]:
    """Channels that get a column of their own; a single one would repeat the mean."""
    return list(report["channels"]) if len(report["channels"]) > 1 else []


def _header(channels: Sequence[str]) -> list[str]:
    return ["forecaster", "validation", "test", *channels, "vs_baseline", "WAPE", "cover_0.9"]


def _cells(report: dict[str, Any], row: dict[str, Any], channels: Sequence[str]) -> list[str]:
    bar = _bar(report)["test"]["wql"]["mean"]
    test = row["test"]
    level = min(range(len(test["levels"])), key=lambda q: abs(test["levels"][q] - 0.9))
    cover = sum(test["coverage"][c][level] for c in report["channels"]) / len(report["channels"])
    best = row["name"] == report["best_model"]
    versus = "-" if row["name"] == report["best_baseline"] else f"{test['wql']['mean'] / bar - 1:+.1%}" if bar else "-"
    return [
        f"{row['name']} *" if best else row["name"],
        f"{row['validation']['wql']['mean']:.4f}",
        f"{test['wql']['mean']:.4f}",
        *(f"{test['wql']['channels'][c]:.4f}" for c in channels),
        versus,
        f"{test['wape']['mean']:.4f}",
        f"{cover:.3f}",
    ]


def legend(report: dict[str, Any]) -> str:
    """What the table's columns mean, which models beat the baselines or lose to them, and then what to do."""
    bar = _bar(report)
    won = [m["name"] for m in _better(report)]
    lost = [m["name"] for m in report["models"] if m["name"] not in won]
    lines = [
        "wQL, lower is better; validation chooses the model (*), test is only reported. 'vs baseline' compares test",
        f"with the baseline that is best there, {bar['name']}. Validation flatters baselines: they were tuned on it.",
    ]
    if won:
        lines.append(f"Better than every baseline on test: {', '.join(won)}.")
    if lost:
        lines.append(f"NOT better than the best baseline on test, do not ship: {', '.join(lost)}.")
    if seen := [m["name"] for m in report["models"] if m.get("training", {}).get("start_saw_test")]:
        lines.append(
            f"Began with weights that were trained on days of this test part: {', '.join(seen)}. "
            "Where the rows are the same, test flatters."
        )
    if lost and not won:
        how = (
            f"export {bar['folder']}" if "folder" in bar else f"fcast-train ... --model {bar['name']}, and export that"
        )
        lines.append(f"{bar['name']} is better: {how}.")
    return "\n".join(lines)


def next_command(report: dict[str, Any], out: Path) -> str:
    """What to run next: the export of the best model that beats every baseline, else of the best baseline."""
    bar = _bar(report)
    if won := _better(report):
        return f"fcast-export {min(won, key=_validation)['folder']} --format onnx"
    export = f"fcast-export {out / bar['name']} --format onnx"
    return export if "folder" in bar else f"fcast-train ... --model {bar['name']}, then {export}"


def _bar(report: dict[str, Any]) -> dict[str, Any]:
    """The row of the best baseline on test."""
    return next(row for row in report["baselines"] if row["name"] == report["best_baseline"])


def _better(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the models that beat it there."""
    bar = _bar(report)["test"]["wql"]["mean"]
    return [row for row in report["models"] if row["test"]["wql"]["mean"] < bar]


def _trained(report: dict[str, Any]) -> bool:
    return any("final_train_loss" in row.get("training", {}) for row in report["models"])


def _validation(row: dict[str, Any]) -> float:
    return float(row["validation"]["wql"]["mean"])


def table(report: dict[str, Any], *, width: int) -> Table:
    """The comparison, for a screen of so many columns; a narrow one goes without the single channels."""
    channels = _channels(report) if width >= _WIDE else []
    shown = Table(title=f"{', '.join(report['trace']['sources'])} as {report['kind']} series", title_justify="left")
    for index, name in enumerate(_header(channels)):
        shown.add_column(name.replace("_", "\n", 1), justify="right" if index else "left", no_wrap=True)
    for row in _rows(report):
        style = "bold green" if row["name"] == report["best_model"] else "" if row["model"] else "dim"
        shown.add_row(*_cells(report, row, channels), style=style)
    return shown


def save_report(report: dict[str, Any], out: Path) -> None:
    """Write `report.json` and `report.md` into the folder of the runs."""
    channels = _channels(report)
    lines = [
        f"# {', '.join(report['trace']['sources'])} as {report['kind']} series",
        "",
        f"{report['trace']['rows']} rows, {report['trace']['steps']} steps; windows: {report['split']['train']} train, "
        f"{report['split']['validation']} validation, {report['split']['test']} test (split by time).",
        "",
        *_markdown(
            [name.replace("_", " ") for name in _header(channels)],
            [_cells(report, row, channels) for row in _rows(report)],
        ),
        "",
        legend(report),
        "",
        *([f"![training loss and validation wQL by epoch]({CURVES})", ""] if _trained(report) else []),
        "Settings of the baselines, tuned on validation:",
        "",
        *(
            f"- {b['name']}: " + (", ".join(f"{key} {value}" for key, value in b["settings"].items()) or "none")
            for b in report["baselines"]
        ),
        *(f"- {name} left out: {reason}" for name, reason in report["left_out"].items()),
    ]
    write_atomically(out / JSON, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(out / MARKDOWN, ("\n".join(lines) + "\n").encode())


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
