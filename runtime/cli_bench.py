"""`fcast-bench`: how long do this artifact's forecasts take on this machine, and how far is that from the floor?"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from .bench import ROUNDS
from .bench_artifact import bench_artifact
from .cli import Command, stdout_to_stderr, warn
from .errors import MissingDependencyError
from .extras import extra

_HEAD = (
    f"{'µs a call':<24}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'vs raw':>9}{'more':>9}{'CPU':>9}{'windows/s':>11}"
)


def _numbers(_: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """`1,16` as numbers, in that order, each once."""
    words = value.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= 65536 for word in words):
        raise click.BadParameter(f"expected whole numbers from 1 to 65536 with commas between, got {value!r}")
    return list(dict.fromkeys(map(int, words)))


@click.command(cls=Command)
@click.argument("artifact", type=click.Path())
@click.option("--device", help="cpu, cuda or cuda:N.  [default: the CPU, and CUDA where it works]")
@click.option(
    "--threads", default="1", show_default=True, metavar="N,...", callback=_numbers, help="Threads inside one operator."
)
@click.option(
    "--batch",
    "batches",
    default="1,16,256",
    show_default=True,
    metavar="N,...",
    callback=_numbers,
    help="Windows in a call.",
)
@click.option(
    "--calls", type=click.IntRange(min=ROUNDS), default=10_000, show_default=True, help="Of each subject at batch 1."
)
@click.option(
    "--paced",
    "paced_ms",
    type=click.FloatRange(min=0.1, max=10_000),
    metavar="MS",
    help="Also time a tenth as many calls at batch 1, after a sleep of MS milliseconds each.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=1, max=1_000_000),
    metavar="N",
    help="Also forecast for N streams, one by one and together.",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True),
    metavar="RUN",
    help="The run it was exported from: time eager torch too.",
)
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw the percentiles into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    artifact: str,
    device: str | None,
    threads: list[int],
    batches: list[int],
    calls: int,
    paced_ms: float | None,
    streams: int | None,
    checkpoint: str | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Time the forecasts of an ARTIFACT: artifacts/NAME (its newest version) or artifacts/NAME/VERSION.

    Its own golden windows are forecast by the Predictor, by ONNX Runtime alone on the same graph, which is the floor,
    and by the artifact's TorchScript file where torch is installed. A DLinear also stands beside the one matrix product
    that it comes down to, in numpy. The subjects take turns in 50 short rounds, so a busy neighbour hits all alike;
    p50, p90 and p99 are medians over the rounds (over all calls where a round has fewer than ten), p99.9 is over all
    calls. `vs raw` is the ratio of two medians of the same round, `more` their difference: read these two on a machine
    that is not quiet. A batch of B gets CALLS / B calls, at least 200.

    `predict` checks the window and copies the answer out; `observe + forecast` takes in one step and makes the
    forecast that follows from it; `an empty call` is what the timing itself costs. A scheduler that decides every few
    milliseconds finds caches cold and a processor asleep: --paced 5 shows what a call costs then. --streams 1000 gives
    each of 1,000 streams a step and times the forecasts of all of them together.

    \b
    Examples:
      fcast-bench artifacts/gru
      fcast-bench artifacts/gru --batch 1 --paced 5
      fcast-bench artifacts/gru --batch 1 --streams 1000
      fcast-bench artifacts/gru --batch 1 --checkpoint runs/gru
      taskset -c 0 fcast-bench artifacts/gru --threads 1,2 --plot latency.png --json > latency.json
    """
    drawing = None if picture is None else extra("fcast.bench", "plot")
    if drawing is not None:
        drawing.require(picture)
    elif picture is not None:
        raise MissingDependencyError("--plot: expected the distribution fcast, got a copied folder; pip install fcast")
    with stdout_to_stderr():
        result = bench_artifact(
            artifact,
            device=device,
            threads=threads,
            batches=batches,
            calls=calls,
            paced_ms=paced_ms,
            streams=streams,
            checkpoint=checkpoint,
            progress=_bar,
            warn=warn,
        )
    click.echo(json.dumps(result, indent=1) if as_json else "\n".join(table(result)))
    if drawing is not None:
        drawing.plot(_title(result), result["runs"], picture)
        click.echo(f"Wrote {picture}", err=True)


@contextlib.contextmanager
def _bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=length, label=f"{label:<34}", file=sys.stderr) as bar:
        yield bar.update


def table(result: dict[str, Any]) -> list[str]:
    """The lines of what `bench_artifact` gave."""
    lines = [_title(result)]
    for run in result["runs"]:
        lines += ["", f"{run['setting']} ({run['rows'][0]['calls']:,} calls each)", _HEAD]
        for row in run["rows"]:
            cells = [_us(row[key]) for key in ("p50_us", "p90_us", "p99_us", "p999_us")]
            cells += [f"{row['ratio']:>8.2f}x", _us(row["more_us"]), _us(row["cpu_us"])]
            if row["windows_per_s"] is not None and not run["paced_ms"]:
                cells.append(f"{row['windows_per_s']:>11,.0f}")
            lines.append(f"{row['subject']:<24}{''.join(cells)}")
    lines += ["", f"{'cold start':<24}{'ms':>9}{'RSS MB':>9}{'peak MB':>9}"]
    for name, row in result["cold_start"].items():
        what = "first forecast" if name == "runtime" else "the same, bare script"
        lines.append(f"{what:<24}{row['wall_ms']:>9.0f}{row['rss_mb']:>9.0f}{row['peak_rss_mb']:>9.0f}")
    return lines


def _us(value: float | None) -> str:
    return " " * 9 if value is None else f"{value:>9.{1 if abs(value) < 1000 else 0}f}"


def _title(result: dict[str, Any]) -> str:
    a, v = result["artifact"], result["machine"]["versions"]
    shape = f"context {a['context']} x {a['channels']}, horizon {a['horizon']} x {a['channels']} x {a['levels']} levels"
    ort = v.get("onnxruntime") or v.get("onnxruntime-gpu")
    return f"{a['name']} version {a['version']}: {a['kind']}, {shape}; onnxruntime {ort}, {result['date']}"
