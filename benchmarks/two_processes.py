"""Training with two processes under torchrun (gloo, CPU) beside one process: speed, and equality of the loss.

    OMP_NUM_THREADS=1 python -m benchmarks.two_processes [--model gru] [--rounds 3] [--json]

Both train on the same synthetic trace, the same batches in the same order; one core a process. Rounds alternate.
Windows per second are those of the last epoch, from `metrics.jsonl`; where other work shares the cores, two processes
lose more to it than one, as each waits for the other at every step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.machine import describe_machine
from training.synth import synthesize
from training.trace_write import SYNTHETIC, write_trace

_PROGRAM = "from training.cli_train import main\nmain()\n"
_EPOCHS = 2


def _train(folder: Path, out: Path, model: str, options: list[str], processes: int) -> tuple[float, list[float]]:
    """Windows per second of the last epoch, and each epoch's training loss and validation wQL."""
    (folder / "train.py").write_text(_PROGRAM)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [sys.executable, *(torchrun if processes > 1 else []), str(folder / "train.py")]
    words += ["--trace", str(folder / "synthetic.csv"), "--model", model, "--device", "cpu", "--epochs", str(_EPOCHS)]
    words += ["--out", str(out), "--overwrite", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)
    lines = [json.loads(line) for line in (out / model / "metrics.jsonl").read_text().splitlines()]
    return lines[-1]["windows_per_s"], [line[key] for line in lines for key in ("train_loss", "validation_wql")]


@click.command()
@click.option("--model", "models", multiple=True, default=["gru", "lstm", "dlinear"], show_default=True)
@click.option("--batch", type=int, default=512, show_default=True, help="Windows of a step, in all processes together.")
@click.option("--rounds", type=int, default=3, show_default=True, help="One process and two, by turns.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(models: tuple[str, ...], batch: int, rounds: int, as_json: bool) -> None:
    """Speed of two processes by that of one, and the largest relative difference of a loss."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trace(
            synthesize(days=0.3, rate_per_s=0.6, seed=0), folder / "synthetic.csv", format="burstgpt", model=SYNTHETIC
        )
        for model in models:
            options = ["--set", f"batch_size={batch}"]
            speeds: dict[int, list[float]] = {1: [], 2: []}
            losses: dict[int, list[float]] = {}
            for _ in range(rounds):
                for processes in speeds:
                    speed, losses[processes] = _train(folder, folder / f"runs{processes}", model, options, processes)
                    speeds[processes].append(speed)
            ratio = statistics.median(b / a for a, b in zip(*speeds.values(), strict=True))
            apart = max(abs(b / a - 1) for a, b in zip(*losses.values(), strict=True))
            found[model] = {"windows_per_s": speeds, "ratio": ratio, "largest_difference": apart, "losses": losses}
            if not as_json:
                one, two = (statistics.median(speeds[processes]) for processes in (1, 2))
                click.echo(
                    f"{model:<12} {one:8,.0f} and {two:8,.0f} windows/s with one and two processes, {ratio:.2f} times; "
                    f"losses differ by at most {apart:.1e} of themselves"
                )
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "batch": batch, "models": found}, indent=1))


if __name__ == "__main__":
    main()
