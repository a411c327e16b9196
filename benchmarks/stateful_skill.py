"""What a state that is carried is worth: test wQL of models of windows, of stateful ones read both ways, and a bar.

    python -m benchmarks.stateful_skill --traces FOLDER --out /tmp/stateful [--job week] [--seed 1] [--resume] [--json]

FOLDER holds the traces of docs/traces.md. Trains an lstm and a gru on each, plain and with `--set stateful=true`; the
forecasts of the carried state run over the whole trace, from a cold state at each gap, and are judged on the origins
that the windows are judged on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.jobs import CODE, CONV, POOL, WEEK, run_command
from benchmarks.machine import describe_machine

MODELS = ("lstm", "gru")
JOBS = {
    "week": (WEEK, "--series load --bin 60 --context 60 --split 4,1,2 --epochs 12"),
    "pool": (POOL, "--series load --bin 600 --context 36 --horizon 6 --epochs 20"),
    "conv": (CONV, "--series requests --context 50 --set learning_rate=0.0003 --epochs 3"),
    "code": (CODE, "--series requests --context 50 --set learning_rate=0.0003 --epochs 3"),
}


@click.command()
@click.option("--traces", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the traces.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the runs.")
@click.option("--job", "jobs", multiple=True, type=click.Choice(list(JOBS)), help="Some of them.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights.")
@click.option("--resume", is_flag=True, help="Keep finished trainings of an earlier call.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: Path, out: Path, jobs: tuple[str, ...], seed: int, resume: bool, as_json: bool) -> None:
    """Train, judge and print one row for each model of each trace."""
    found: dict[str, Any] = {}
    for job in jobs or JOBS:
        file, options = JOBS[job]
        again = "--resume" if resume else "--overwrite"
        words = [
            "--trace",
            traces / file,
            "--model",
            ",".join(MODELS),
            *options.split(),
            "--set",
            f"seed={seed}",
            again,
            "--json",
        ]
        plain = json.loads(run_command("fcast-train", *words, "--out", out / job / "plain"))
        stateful = ["--set", "stateful=true", "--out", out / job / "stateful"]
        run_command("fcast-train", *words, *stateful)
        bar = next(row for row in plain["baselines"] if row["name"] == plain["best_baseline"])
        found[job] = {"baseline": bar["name"], "baseline_wql": bar["test"]["wql"]["mean"], "models": {}}
        for row in plain["models"]:
            meta = json.loads((out / job / "stateful" / row["name"] / "checkpoint.json").read_text())
            found[job]["models"][row["name"]] = {"plain": row["test"]["wql"]["mean"], **meta["carried"]["test"]}
    result = {"benchmark": "stateful_skill", "machine": describe_machine(), "jobs": found}
    click.echo(json.dumps(result, indent=1) if as_json else "\n".join(table(found)))


def table(found: dict[str, Any]) -> list[str]:
    """The rows of docs/models.md, against the best baseline."""
    lines = [
        "| trace | model | plain | stateful, by windows | stateful, carried | best baseline |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for job, one in found.items():
        bar = one["baseline_wql"]
        for name, row in one["models"].items():
            cells = [f"{row[way]:.4f} ({row[way] / bar - 1:+.1%})" for way in ("plain", "windowed", "carried")]
            lines.append(f"| {job} | {name} | " + " | ".join(cells) + f" | {bar:.4f} {one['baseline']} |")
    return lines


if __name__ == "__main__":
    main()
