"""How accurate the models are: four real traces, every model and baseline, several seeds.

    python -m benchmarks.accuracy --traces FOLDER [--job week] [--seeds 0,1,2] [--json]

FOLDER holds the traces that docs/traces.md names. Each job is one `fcast-train` command per seed, with settings chosen
on validation. For each forecaster: the mean over the seeds of the test score, its spread (largest minus smallest), and
the difference to the best baseline, which is the one that is best on test. Baselines have no seed.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.jobs import JOBS, run_command
from benchmarks.machine import describe_machine


@click.command()
@click.option("--traces", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the traces.")
@click.option("--job", "jobs", multiple=True, type=click.Choice(list(JOBS)), help="Only this one; repeatable. [all]")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, comma-separated.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/accuracy"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: Path, jobs: tuple[str, ...], seeds: str, out: Path, as_json: bool) -> None:
    """Train every model on every trace with several seeds; finished runs are kept."""
    results: dict[str, Any] = {"machine": describe_machine(), "seeds": seeds, "jobs": {}}
    for job in jobs or JOBS:
        chosen = JOBS[job]
        reports = []
        for seed in seeds.split(","):
            words = ["--trace", traces / chosen.trace, "--model", chosen.models, *chosen.options, "--seed", seed]
            reports.append(
                json.loads(run_command("fcast-train", *words, "--out", out / job / seed, "--resume", "--json"))
            )
        rows = _rows(reports, chosen.score)
        results["jobs"][job] = {**asdict(chosen), "forecasters": rows}
        if not as_json:
            click.echo(_table(job, results["jobs"][job], reports[0]))
    if as_json:
        click.echo(json.dumps(results, indent=1))
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0)


def _rows(reports: list[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Every forecaster's scores over the seeds, best first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for kind in ("models", "baselines"):
            for row in report[kind]:
                found.setdefault(row["name"], []).append({**row, "kind": kind})
    rows = []
    for name, runs in found.items():
        tests = [run["test"] for run in runs]
        scores = [test["wql"]["mean"] if score == "wql" else test["planner_loss"] for test in tests]
        rows.append(
            {
                "name": name,
                "is_model": runs[0]["kind"] == "models",
                "score": statistics.mean(scores),
                "spread": max(scores) - min(scores),
                "validation": statistics.mean(run["validation"]["wql"]["mean"] for run in runs),
                "channels": {
                    c: _mean(test["wql"]["channels"][c] for test in tests) for c in tests[0]["wql"]["channels"]
                },
                "capacity": _mean(test.get("capacity_ratio", {}).get("0.01") for test in tests),
                "cover_0.9": _mean(v[_level(tests[0], 0.9)] for test in tests for v in test["coverage"].values()),
                "seconds": _mean(run["training"]["seconds"] for run in runs if "training" in run),
            }
        )
    return sorted(rows, key=lambda row: float(row["score"]))


def _level(test: dict[str, Any], level: float) -> int:
    return int(test["levels"].index(level))


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _table(job: str, result: dict[str, Any], report: dict[str, Any]) -> str:
    rows, windows = result["forecasters"], report["split"]
    bar = next(row for row in rows if not row["is_model"])
    channels = list(rows[0]["channels"])
    wide = channels if len(channels) > 1 and result["score"] == "wql" else []
    lines = [
        f"\n{job}: {result['trace']}, {windows['train']} training and {windows['test']} test windows; "
        f"{result['score']} on test",
        f"{'':<23}{'mean':>9}{'spread':>9}{'vs best baseline':>18}"
        + "".join(f"{name:>17}" for name in wide)
        + f"{'capacity 1 %':>14}{'cover 0.9':>11}{'train s':>9}",
    ]
    for row in rows:
        versus = "best baseline" if row is bar else f"{row['score'] / bar['score'] - 1:+.1%}"
        capacity = "" if row["capacity"] is None else f"{row['capacity']:.3f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(
            f"{row['name']:<23}{row['score']:>9.4f}{row['spread']:>9.4f}{versus:>18}"
            + "".join(f"{row['channels'][name]:>17.4f}" for name in wide)
            + f"{capacity:>14}{row['cover_0.9']:>11.3f}{seconds:>9}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
