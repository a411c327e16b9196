"""`fcast-train` killed with SIGKILL at random moments, the command repeated each time, against a run left alone.

    OMP_NUM_THREADS=1 python -m benchmarks.kill_resume [--kills 20] [--seed 0] [--json]

Every life of the command lasts a random time from when it has read the trace, so kills hit baselines, steps,
checkpoints, validation and scoring. In the end weights and losses must be the same to the bit.
"""

from __future__ import annotations

import json
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
    """Train without kills, then with them: a run is begun anew when it is finished before all kills were made.

    Args:
        folder: for the trace and the runs.
        model: to train.
        kills: how many.
        seed: of the moments.
        most_s: a life ends within so many seconds after it has read the trace.
        settings: options of `fcast-train`.

    Returns:
        JSON values: `same_weights`, `same_losses`, how many epochs were done at each kill, and in all.
    """
    trace = folder / "synthetic.csv"
    write_trace(synthesize(days=0.06, rate_per_s=0.6, seed=0), trace, format="burstgpt", model=SYNTHETIC)
    words = [sys.executable, "-c", _PROGRAM, "--trace", str(trace), "--model", model, "--device", "cpu", *settings]
    _finish(words, folder / "whole")
    chance = random.Random(seed)
    places: list[int] = []
    outs: list[Path] = []
    while len(places) < kills:
        outs.append(folder / f"killed{len(outs)}")
        while len(places) < kills and _killed(words, outs[-1], after_s=chance.uniform(0.0, most_s)):
            metrics = outs[-1] / model / "metrics.jsonl"
            places.append(len(metrics.read_text().splitlines()) if metrics.exists() else 0)
        _finish(words, outs[-1])
    whole, *found = (_outcome(out / model) for out in (folder / "whole", *outs))
    return {
        "same_weights": all(weights == whole[0] for weights, _ in found),
        "same_losses": all(losses == whole[1] for _, losses in found),
        "epochs_done_at_each_kill": places,
        "epochs": len(whole[1]),
    }


def _killed(words: list[str], out: Path, *, after_s: float) -> bool:
    """Begin or repeat the command and kill it; False where it came to its end, or had come to it before."""
    words = [*words, "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()  # it has read the trace: most of its start is behind it
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.stderr.read()
    return process.returncode < 0


def _finish(words: list[str], out: Path) -> None:
    done = subprocess.run([*words, "--out", str(out)], capture_output=True, text=True, check=False)
    if done.returncode and "expected no earlier run" not in done.stderr:
        raise click.ClickException(done.stderr)


def _outcome(folder: Path) -> tuple[bytes, list[list[float]]]:
    """Weights, and the losses of each epoch."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "model.safetensors").read_bytes(), [[line[key] for key in _KEYS] for line in lines]


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
