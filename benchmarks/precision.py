"""Training in bfloat16 beside float32: the wQL that comes out of it, on the CPU.

    OMP_NUM_THREADS=1 python -m benchmarks.precision [--model gru] [--trace FILE] [--json]

Every model is trained twice from the same weights with the same batches, `precision=fp32` and `precision=bf16`, with
`fcast-train`'s other defaults on minutes of a synthetic trace. The bound is 1 % of the final wQL on validation and on
test. Rounding is no noise that averages out: on a CPU without instructions for bfloat16 it is slow, too.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from benchmarks.machine import describe_machine
from training.config import build_runs
from training.readers import read_trace
from training.run import prepare, train_model
from training.synth import synthesize

BOUND = 0.01


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["lstm", "gru", "dlinear", "transformer", "multiscale"],
    show_default=True,
)
@click.option("--trace", type=click.Path(path_type=Path), help="A real one instead.")
@click.option("--epochs", type=int, default=6, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(models: tuple[str, ...], trace: Path | None, epochs: int, as_json: bool) -> None:
    """Final wQL with bf16 by that with fp32; within 1 % is the aim."""
    read = read_trace([str(trace)], clean=True) if trace else synthesize(days=3, rate_per_s=0.5, seed=0)
    found = {}
    for model in models:
        wql = {}
        for precision in ("fp32", "bf16"):
            settings = {"series": "load", "bin_s": 60.0, "epochs": epochs, "device": "cpu", "precision": precision}
            run = build_runs([model], settings)[0]
            with tempfile.TemporaryDirectory() as folder:
                scores = train_model(prepare(read, run.data), run, Path(folder)).meta["scores"]
            wql[precision] = {part: scores[part]["wql"]["mean"] for part in ("validation", "test")}
        ratios = {part: wql["bf16"][part] / wql["fp32"][part] for part in wql["fp32"]}
        found[model] = {"wql": wql, "ratios": ratios}
        if not as_json:
            parts = ", ".join(
                f"{part} {wql['fp32'][part]:.4f} -> {wql['bf16'][part]:.4f} ({ratio - 1:+.2%})"
                for part, ratio in ratios.items()
            )
            verdict = "within" if all(abs(ratio - 1) <= BOUND for ratio in ratios.values()) else "NOT within"
            click.echo(f"{model:<12} {parts}: {verdict} {BOUND:.0%}")
    if as_json:
        click.echo(json.dumps({"machine": describe_machine(), "models": found}, indent=1))


if __name__ == "__main__":
    main()
