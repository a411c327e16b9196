"""The whole job on two real traces: train every model, export both formats, prove, stream, compare with the baselines.

    python -m benchmarks.real_traces --traces FOLDER --out /tmp/real

FOLDER holds AzureLLMInferenceTrace_conv.csv and azure2024_coding_10s_counts.csv.gz (docs/traces.md says where they
come from). Prints every command it runs, then one table per trace; `results.json` holds all of it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.jobs import JOBS, run_command
from benchmarks.machine import describe_machine

MODELS = "gru,lstm,dlinear,transformer"


@click.command()
@click.option("--traces", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the traces.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/real"), show_default=True)
@click.option("--resume", is_flag=True, help="Keep finished trainings of an earlier call.")
def main(traces: Path, out: Path, resume: bool) -> None:
    """Train, export, prove and stream the four models on two real traces, and their ensemble on the load."""
    results: dict[str, Any] = {"machine": describe_machine(), "jobs": {}}
    for job in ("conv", "week"):
        file, options = JOBS[job].trace, JOBS[job].options
        runs, artifacts = out / job, out / "artifacts"
        started = time.perf_counter()
        again = "--resume" if resume else "--overwrite"
        words = ["--trace", traces / file, "--model", MODELS, *options, "--out", runs, again]
        report = json.loads(run_command("fcast-train", *words, "--json"))
        seconds = time.perf_counter() - started
        rows = {}
        for model in [row["name"] for row in report["models"]]:
            formats = ["--format", "onnx", "--format", "torchscript"]
            names = ["--out", artifacts, "--name", f"{job}-{model}"]
            exported = json.loads(run_command("fcast-export", runs / model, *formats, *names, "--json"))
            verified = json.loads(run_command("fcast-verify", exported["path"], "--json"))
            where = ["--trace", traces / file, "--run", runs / model, "--artifact", exported["path"]]
            streamed = json.loads(run_command(sys.executable, "-m", "benchmarks.stream_equals_batch", *where, "--json"))
            rows[model] = {"parity": exported["parity"], "verified": verified["ok"], "stream": streamed}
        results["jobs"][job] = {"seconds_training": seconds, "report": report, "models": rows}
        click.echo(_table(file, report, rows))
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    click.echo(f"Wrote {out / 'results.json'}")


def _table(file: str, report: dict[str, Any], rows: dict[str, Any]) -> str:
    bar = next(b for b in report["baselines"] if b["name"] == report["best_baseline"])["test"]["wql"]["mean"]
    lines = [
        f"\n{file} as {report['kind']} series",
        f"{'':<22}{'test wQL':>9}{'vs best baseline':>18}{'parity onnx':>13}{'torchscript':>13}{'stream = batch':>16}",
    ]
    scored = {row["name"]: row["test"]["wql"]["mean"] for row in report["models"] + report["baselines"]}
    for name, score in sorted(scored.items(), key=lambda item: item[1]):
        line = f"{name:<22}{score:>9.4f}{score / bar - 1:>+18.1%}"
        if name in rows:
            parity, stream = rows[name]["parity"], rows[name]["stream"]["largest_relative_difference"]
            line += f"{parity['onnx']['max_rel']:>13.1e}{parity['torchscript']['max_rel']:>13.1e}{stream:>16.1e}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
