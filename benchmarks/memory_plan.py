"""Peak memory of `fcast-train` on a CPU beside what it said before it began.

    python -m benchmarks.memory_plan [--rows 1430000] [--json]

Makes a synthetic trace, trains each model on it for one epoch of every 100th window in a fresh process, and compares
the line "needs about X" with the largest resident set of the process, as the system counted it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.machine import describe_machine
from training.synth import synthesize
from training.trace_write import SYNTHETIC, write_trace

CASES = {
    "gru": [],
    "lstm, batches of 4096": ["--set", "batch_size=4096"],
    "gru, batches of 4096": ["--set", "batch_size=4096"],
    "dlinear, batches of 8192": ["--set", "batch_size=8192"],
    "multiscale, batches of 8192": ["--set", "batch_size=8192"],
    "transformer, batches of 4096": ["--set", "batch_size=4096"],
    "transformer, batches of 4096, recomputed": ["--set", "batch_size=4096", "--set", "gradient_checkpointing=true"],
    "gru, load": ["--series", "load", "--bin", "60", "--set", "stride=1", "--set", "batch_size=4096"],
}
_UNITS = {"MB": 1e6, "GB": 1e9}
_PROGRAM = "from training.cli_train import main; main()"


def _measure(trace: Path, out: Path, model: str, options: list[str]) -> tuple[float, float]:
    """Bytes that were foreseen and that were used at most."""
    words = [
        sys.executable,
        "-c",
        _PROGRAM,
        "--trace",
        str(trace),
        "--model",
        model,
        "--device",
        "cpu",
        "--epochs",
        "1",
    ]
    words += ["--set", "stride=100", "--out", str(out), *options]
    with open(out.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        log.seek(0)
        text = log.read()
    said = re.search(r"needs about ([\d.]+) (MB|GB)", text)
    if status or not said:
        raise click.ClickException(text)
    return float(said[1]) * _UNITS[said[2]], used.ru_maxrss * 1024


@click.command()
@click.option("--rows", type=int, default=1_430_000, show_default=True, help="Requests in the trace.")
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Of these; all of them if none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(rows: int, names: tuple[str, ...], as_json: bool) -> None:
    """Foreseen over used, for each model; within 20 % is the aim."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "synthetic.csv")
        write_trace(
            synthesize(days=61, rate_per_s=rows / (61 * 86400), seed=0), trace, format="burstgpt", model=SYNTHETIC
        )
        for name in names or CASES:
            out = Path(folder, f"runs{len(found)}")
            foreseen, used = _measure(trace, out, name.split(",")[0], CASES[name])
            found[name] = {"foreseen_bytes": foreseen, "used_bytes": used, "ratio": foreseen / used}
            if not as_json:
                click.echo(
                    f"{name:<42} {foreseen / 1e6:6.0f} MB foreseen {used / 1e6:6.0f} MB used {foreseen / used:6.2f}"
                )
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "rows": rows, "cases": found}, indent=1))


if __name__ == "__main__":
    main()
