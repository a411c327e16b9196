"""The runtime beside neuralforecast's `predict()`: the same sizes, in turn, on the same core.

    python -m benchmarks.latency_peers --out /tmp/latency --venv /tmp/latency/peers

The first call installs neuralforecast into an environment of its own (hundreds of megabytes), with the torch of this
one and, where that is a CPU build, from the same indexes: give pip one that has it (PIP_EXTRA_INDEX_URL). Both models
see 50 steps of 3 channels and forecast 10 steps at 7 levels: one window of three channels here, three series there.

The ratios are of processor time: on a shared core a call of milliseconds is interrupted and one of microseconds is not,
which would flatter us.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import venv
from datetime import date
from pathlib import Path
from typing import Any

import click

from benchmarks.latency import pin_to_one_core
from benchmarks.latency_artifacts import trained
from benchmarks.machine import describe_machine
from runtime.bench import Subject, measure
from runtime.bench_subjects import artifact_subjects

CHILD = Path(__file__).with_name("neuralforecast_child.py")
MODELS = ("dlinear", "lstm", "gru", "stateful-lstm", "stateful-gru")
SERIES = "requests"
AIMS = {"dlinear": 300, "lstm": 60, "gru": 60, "stateful-lstm": 200, "stateful-gru": 200}
OURS = ("predict", "observe + forecast", "raw onnxruntime, bound")


def peer_python(folder: Path) -> Path:
    """The interpreter of an environment with neuralforecast, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import neuralforecast"], check=False).returncode:
        import torch

        click.echo(f"installing neuralforecast into {folder}", err=True)
        venv.create(folder, with_pip=True)
        same = f"torch=={torch.__version__.partition('+')[0]}"
        subprocess.run([python, "-m", "pip", "install", "-q", same, "neuralforecast"], check=True)
    return python


class Peer:
    """neuralforecast in a process of its own."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen([python, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()  # when it is ready

    def ask(self, name: str, calls: int) -> dict[str, float]:
        """Median wall time and mean processor time of so many calls of a forecaster."""
        assert self._process.stdin is not None
        print(name, calls, file=self._process.stdin, flush=True)
        answer = self._answer()
        return {"wall_us": statistics.median(answer["wall_ns"]) / 1e3, "cpu_us": answer["cpu_ns"] / calls / 1e3}

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(
                "neuralforecast: expected an answer, got the end of its process; run the child by hand"
            )
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps our models.")
@click.option("--venv", "folder", type=click.Path(path_type=Path), required=True, help="neuralforecast's environment.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Turns of each side.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(out: Path, folder: Path, rounds: int, as_json: bool) -> None:
    """How many times faster than neuralforecast."""
    core = pin_to_one_core()
    ours = {one.model: one for one in trained(out, MODELS, [SERIES], again=False)}
    peer = Peer(peer_python(folder))
    found: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        subjects = artifact_subjects(ours[model].artifact, device="cpu", threads=1, batch=1)
        asked = [subject for subject in subjects if subject.name in OURS]
        theirs = model.removeprefix("stateful-")
        turns = [_turn(asked, peer, theirs) for _ in range(rounds + 1)][1:]
        found[model] = {
            "median": {
                name: {key: statistics.median(turn[name][key] for turn in turns) for key in ("wall_us", "cpu_us")}
                for name in turns[0]
            },
            "times_faster": {
                f"{them}/{own.name}": statistics.median(
                    turn[them]["cpu_us"] / turn[own.name]["cpu_us"] for turn in turns
                )
                for own in asked
                for them in (theirs, f"{theirs}+df")
            },
            "aim": AIMS[model],
            "turns": turns,
        }
    peer.close()
    if as_json:
        facts = {"date": date.today().isoformat(), "core": core, "machine": describe_machine()}
        click.echo(json.dumps({"benchmark": "latency_peers", **facts, "models": found}, indent=1))
        return
    click.echo("\n".join(_table(found)))


def _turn(ours: list[Subject], peer: Peer, model: str) -> dict[str, dict[str, float]]:
    own = {t.subject: {"wall_us": t.p50_us, "cpu_us": t.cpu_us} for t in measure(ours, calls=200, rounds=1)}
    return own | {name: peer.ask(name, 10) for name in (model, f"{model}+df")}


def _table(found: dict[str, dict[str, Any]]) -> list[str]:
    columns = ["neuralforecast `predict()`", "our `predict`; stateful: observe + forecast", "times faster", "aim"]
    columns += ["`predict(df)`", "observe + forecast", "times faster"]
    lines = ["| CPU per call | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for model, row in found.items():
        us, faster, theirs = row["median"], row["times_faster"], model.removeprefix("stateful-")
        # A stateful model is asked through its streams: that is what the aim is about.
        ours = "predict" if theirs == model else "observe + forecast"
        cells = [
            f"{us[theirs]['cpu_us'] / 1e3:.1f} ms",
            f"{us[ours]['cpu_us']:.0f} µs",
            f"{faster[f'{theirs}/{ours}']:.0f}",
            f"{row['aim']}",
            f"{us[f'{theirs}+df']['cpu_us'] / 1e3:.1f} ms",
            f"{us['observe + forecast']['cpu_us']:.0f} µs",
            f"{faster[f'{theirs}+df/observe + forecast']:.0f}",
        ]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
