"""`fcast-train` killed with SIGKILL at random moments, the command repeated each time, against a run left alone.

    OMP_NUM_THREADS=1 python -m benchmarks.kill_resume [--kills 20] [--seed 0] [--json]

Every life of the command lasts a random time from when it has read the trace, so kills hit baselines, steps,
checkpoints, validation and scoring. In the end weights and losses must be the same to the bit.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe_machine
from training.synth import synthesize
from training.trace_write import SYNTHETIC, write_trace

_PROGRAM = "from training.cli_train import main; main()"
_KEYS = ("train_loss", "validation_wql", "learning_rate")


def kill_and_repeat(folder: Path, *, model: str, kills: int, seed: int, most_s: float, settings: list[str]) -> Any:
    """Train without and with kills.

    Args:
        folder: for the trace and the runs.
        model: to train.
        kills: how many.
        seed: of the moments.
        most_s: a life ends within so many seconds after it has read the trace.
        settings: options of `fcast-train`.

    Returns:
        JSON values: `same_weights`, `same_losses`, and how many epochs were done at each kill and in all.
    """
    trace = folder / "synthetic.csv"
    write_trace(synthesize(days=0.06, rate_per_s=0.6, seed=0), trace, format="burstgpt", model=SYNTHETIC)
    words = [sys.executable, "-c", _PROGRAM, "--trace", str(trace), "--model", model, "--device", "cpu", *settings]
    whole, killed = folder / "whole", folder / "killed"
    _run([*words, "--out", str(whole)])
    chance = random.Random(seed)
    places: list[int] = []
    while len(places) < kills:
        process = subprocess.Popen([*words, "--out", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        first = process.stderr.readline()  # it has read the trace: most of its start is behind it
        deadline = time.monotonic() + chance.uniform(0.0, most_s)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        text = (first + process.stderr.read()).decode()
        if process.wait() >= 0:  # it came to its end before it could be killed
            if process.returncode:
                raise click.ClickException(text)
            break
        metrics = killed / model / "metrics.jsonl"
        places.append(len(metrics.read_text().splitlines()) if metrics.exists() else 0)
    _run([*words, "--out", str(killed)], refused=True)
    histories = [
        [json.loads(line) for line in (out / model / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, killed)
    ]
    losses = [[line[key] for line in history for key in _KEYS] for history in histories]
    weights = [(out / model / "model.safetensors").read_bytes() for out in (whole, killed)]
    return {
        "same_weights": weights[0] == weights[1],
        "same_losses": losses[0] == losses[1],
        "epochs_done_at_each_kill": places,
        "epochs": len(histories[0]),
    }


def _run(words: list[str], *, refused: bool = False) -> None:
    """Run the command to its end; `refused` where it may find that everything is finished."""
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode and not (refused and "expected no earlier run" in done.stderr):
        raise click.ClickException(done.stderr)


@click.command()
@click.option("--model", default="multiscale", show_default=True, help="With dropout, by default.")
@click.option("--kills", type=int, default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(model: str, kills: int, seed: int, as_json: bool) -> None:
    """Weights and losses after the kills, against those of a run left alone."""
    settings = ["--epochs", "60", "--context", "30", "--set", "checkpoint_s=0.1", "--set", "patience=60"]
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_repeat(Path(folder), model=model, kills=kills, seed=seed, most_s=5.0, settings=settings)
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "kills": kills, **found}, indent=1))
        return
    places = found["epochs_done_at_each_kill"]
    click.echo(f"{len(places)} kills, with so many of {found['epochs']} epochs done: {', '.join(map(str, places))}")
    click.echo(
        f"weights {'equal to the bit' if found['same_weights'] else 'DIFFERENT'}, "
        f"losses {'equal to the bit' if found['same_losses'] else 'DIFFERENT'}"
    )


if __name__ == "__main__":
    main()
