"""`fcast-export`: a run folder becomes a proven artifact."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.stages import shown_on_terminal
from training.cli import Command

if TYPE_CHECKING:
    from export.artifact import Published

_EPILOG = """\b
Examples:
  fcast-export runs/gru
  fcast-export runs --best
  fcast-export runs/gru --format onnx --format torchscript --name chat-load
  fcast-export runs/gru --out /srv/models --json
  fcast-export runs/my_model --exporter dynamo --opset 21
  fcast-export runs/lstm --static-batch 1
  fcast-export runs/lstm --precision int8

\b
Exit code: 0 published, 1 refused or failed (nothing is published), 2 wrong usage.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("checkpoint", type=click.Path())
@click.option(
    "--format",
    "formats",
    type=click.Choice(["onnx", "torchscript"]),
    multiple=True,
    default=("onnx",),
    show_default=True,
    help="What to write; may be repeated. model.onnx, which the runtime serves, is always written; "
    "torchscript adds model.pt beside it.",
)
@click.option("--best", is_flag=True, help="CHECKPOINT is a folder of runs: export the one that is best on validation.")
@click.option(
    "--out",
    type=click.Path(),
    default="artifacts",
    show_default=True,
    help="Repository of artifacts; can be served by Triton as it is.",
)
@click.option("--name", help="Name of the artifact.  [default: the model's name]")
@click.option(
    "--opset",
    type=int,
    default=20,
    show_default=True,
    help="ONNX operator set: 17 to 20 with the exporter legacy, 18 to 21 with dynamo.",
)
@click.option(
    "--exporter",
    type=click.Choice(["auto", "legacy", "dynamo"]),
    default="auto",
    show_default=True,
    help="Which of torch's exporters makes the graph. legacy takes a second, dynamo half a minute, and knows other "
    "operators. auto takes legacy, and dynamo where that fails or its graph does not match; a warning says so.",
)
@click.option(
    "--static-batch",
    type=int,
    metavar="N",
    help="Also write model.batchN.onnx, the graph for batches of N alone, proven like the other: for engines that want "
    "every shape known.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Convert the weights of model.onnx. Without --name the artifact is then called after the model with -fp16 or "
    "-int8 behind: hosts take the newest version of a name, and should not change precision by accident.",
)
@click.option(
    "--max-skill-loss",
    type=float,
    default=0.01,
    show_default=True,
    help="Refuse a conversion that raises wQL on validation windows by more than this share.",
)
@click.option(
    "--atol",
    type=float,
    default=1e-5,
    show_default=True,
    help="Absolute tolerance of the proof, in units of each channel's mean.",
)
@click.option("--rtol", type=float, default=1e-4, show_default=True, help="Relative tolerance of the proof.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    checkpoint: str,
    formats: tuple[str, ...],
    best: bool,
    out: str,
    name: str | None,
    opset: int,
    exporter: str,
    static_batch: int | None,
    precision: str,
    max_skill_loss: float,
    atol: float,
    rtol: float,
    as_json: bool,
) -> None:
    """Export CHECKPOINT, a run folder of fcast-train or a .pth of the Python API, as an artifact.

    The exported model is run in every way a host may run it beside the trained one in float64, on real windows of the
    trace and on edge windows, in batches of 1 to 256. Only when every number matches does it appear, whole, as
    OUT/NAME/VERSION with the next free version.
    """
    if best:
        checkpoint = _best(Path(checkpoint))
    with shown_on_terminal() as on_stage, warnings.catch_warnings():
        from export.artifact import export_checkpoint  # torch takes seconds to import; --help does not need it

        warnings.showwarning = lambda message, *_, **__: click.echo(f"Warning: {message}", err=True)
        published = export_checkpoint(
            checkpoint,
            formats=formats,
            out=out,
            name=name,
            opset=opset,
            exporter=exporter,
            static_batch=static_batch,
            precision=precision,
            max_skill_loss=max_skill_loss,
            atol=atol,
            rtol=rtol,
            on_stage=on_stage,
        )
    click.echo(json.dumps(_as_json(published)) if as_json else _as_text(published))


def _best(folder: Path) -> str:
    """The best run of a folder; which and why goes to stderr."""
    from training.run_list import FINISHED, best_run, list_runs

    rows = list_runs(folder)
    row = best_run(rows, folder)
    others = [one for one in rows if one is not row and one["state"] == FINISHED and one["baseline"] == row["baseline"]]
    beside = ", ".join(f"{one['name']} {one['validation']:.4f}" for one in others)
    click.echo(
        f"{row['folder']}: wQL {row['validation']:.4f} on validation, the lowest of {len(others) + 1} finished runs"
        + (f" ({beside})" if beside else ""),
        err=True,
    )
    for one in rows:
        if one["state"] != FINISHED:
            click.echo(f"{one['folder']}: left out, {one['state']}: {one['problem']}", err=True)
    if (row.get("versus") or 0.0) > 0:
        bar = row["best_baseline"]["name"]
        click.echo(f"Warning: on test it is worse than the best baseline, {bar}, by {row['versus']:.1%}", err=True)
    return str(row["folder"])


def _parity(published: Published) -> dict[str, dict[str, Any]]:
    """Per format: the largest differences and how many forecasts were compared."""
    summary: dict[str, dict[str, Any]] = {}
    for form in dict.fromkeys(check.format for check in published.checks):
        checks = [check for check in published.checks if check.format == form]
        largest = max(checks, key=lambda check: check.max_abs)
        summary[form] = {
            "max_rel": max(check.max_rel for check in checks),
            "max_abs": largest.max_abs,
            "max_abs_channel": largest.max_abs_channel,
            "reference": largest.reference,
            "scaled": max(check.scaled for check in checks),
            "float32": max(check.float32 for check in checks),
            "used": max(check.used for check in checks),
            "forecasts": sum(check.windows for check in checks),
            "edge_forecasts": sum(check.edges for check in checks),
        }
    return summary


def _as_json(published: Published) -> dict[str, object]:
    return {
        "path": str(published.path),
        "name": published.name,
        "version": published.version,
        "files": published.files,
        "opset": published.opset,
        "exporter": published.exporter,
        "rejected": published.rejected,
        "parity": _parity(published),
        "precision": published.precision,
        "carried": published.carried,
        "stages": {stage: round(seconds, 3) for stage, seconds in published.stages.items()},
        "seconds": round(published.seconds, 3),
    }


def _as_text(published: Published) -> str:
    lines = [f"Published {published.path}"]
    for file, size in published.files.items():
        lines.append(f"  {file:<16} {size / 1000:9.1f} kB")
    of = "" if published.precision is None else " in fp32"
    for form, row in _parity(published).items():
        # A model that cannot run in float64 has itself as reference.
        noise = f", where float32 torch does by {row['float32']:.1e}" if row["reference"] == "float64" else ""
        lines.append(
            f"  parity {form}{of}: {row['forecasts']} forecasts ({row['edge_forecasts']} of edge windows) differ from "
            f"{row['reference']} torch by at most {row['scaled']:.1e} on the working scale{noise}; "
            f"{row['max_abs']:.1e} absolute ({row['max_abs_channel']}); {row['used']:.0%} of the tolerance"
        )
    if published.precision is not None:
        lines += _precision_lines(published.precision)
    for part, found in (published.carried or {}).items():
        lines.append(
            f"  state: wQL {found['carried']:.4f} carried, {found['windowed']:.4f} by windows "
            f"({found['windows']} of {part})"
        )
    lines += [
        f"  opset {published.opset}, exporter {published.exporter}, {published.seconds:.1f} s: "
        + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in published.stages.items()),
        "Next:",
        f"  fcast-verify {published.path}",
        f"  python -c 'from runtime import Predictor; print(Predictor(\"{published.path.parent}\").device)'",
    ]
    return "\n".join(lines)


def _precision_lines(cost: dict[str, Any]) -> list[str]:
    """What a conversion cost, for people."""
    skill, latency = cost["skill_loss"]["validation"], cost["latency_ratio"]
    shares = [row["p99_of_iqr"] for row in cost["difference"]["forecast"].values() if row["p99_of_iqr"] is not None]
    times = ", ".join(f"{ratio:.2f} at batch {batch}" for batch, ratio in latency.items())
    kind, size, weights = cost["precision"], cost["size_ratio"], cost["weights_converted"]
    lines = [
        f"  {kind}: {weights:.0%} of the weights; of fp32, size {size:.2f}, time {times}",
        f"  {kind}: wQL {skill['loss']:+.3%} on {skill['windows']} validation windows, at most "
        f"{cost['max_skill_loss']:.2%} allowed",
    ]
    if shares:
        lines.append(
            f"  {cost['precision']}: 99% of forecasts differ by at most {max(shares):.1%} of the quartile range"
        )
    return lines
