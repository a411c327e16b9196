"""`fcast-verify`: is this artifact whole, and does it forecast here what it forecast where it was made?"""

from __future__ import annotations

import json
import sys

import click

from .cli import Command, stdout_to_stderr
from .verify import EVERY, Verification, verify


@click.command(cls=Command)
@click.argument("artifact", type=click.Path())
@click.option(
    "--device",
    default=EVERY,
    show_default=True,
    help="every (the CPU, and CUDA where it works), or one of auto, cpu, cuda, cuda:N.",
)
@click.option(
    "--rtol", type=click.FloatRange(min=0), help="Relative tolerance.  [default: that of the export, in parity.json]"
)
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    help="Absolute tolerance, in units of each channel's scale in parity.json.  [default: that of the export]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(artifact: str, device: str, rtol: float | None, atol: float | None, as_json: bool) -> None:
    """Check an ARTIFACT: artifacts/NAME (its newest version) or artifacts/NAME/VERSION.

    Every file, config.pbtxt too, is hashed against the manifest, and files that it does not list are reported. Then
    the golden windows, real ones kept inside the artifact, run again on each device, all in one batch and one by one,
    and are compared with the forecasts that left the exporter, within the tolerance of its proof. Units, levels and
    the like are compared with what the graph says about itself.

    Exit code 0: the artifact is good here. 1: it is damaged, or forecasts something else; stderr says where.

    \b
    Examples:
      fcast-verify artifacts/gru
      fcast-verify artifacts/gru/3 --device cuda --json
    """
    with stdout_to_stderr():
        result = verify(artifact, device=device, rtol=rtol, atol=atol)
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(_table(result)))
    for problem in result.problems:
        click.echo(f"Error: {problem}", err=True)
    if result.problems:
        sys.exit(1)


def _table(result: Verification) -> list[str]:
    lines = [f"{result.name} version {result.version} in {result.artifact}", ""]
    lines += [f"{'file':<24}{'bytes':>12}  sha256"]
    for file in result.files:
        lines.append(f"{file.name:<24}{file.bytes:>12}  {'DIFFERS' if file.problem else 'ok'}")
    if result.device is None:
        return [*lines, "", "The golden windows were not run: the artifact is damaged."]
    lines += ["", f"{result.windows} golden windows on {result.device} ({', '.join(result.providers)})"]
    lines += [f"Not run on {device}: {reason}" for device, reason in result.not_run.items()]
    lines += [
        f"{'channel':<26}{'graph':<11}{'device':>7}{'batch':>6}{'max abs':>12}{'max rel':>12}{'tolerance used':>16}"
    ]
    for row in result.forecasts:
        numbers = f"{row.max_abs:>12.3g}{row.max_rel:>12.3g}{_percent(row.used):>16}"
        verdict = "DIFFERS" if row.problem else "ok"
        lines.append(f"{row.channel:<26}{row.graph:<11}{row.device:>7}{row.batch:>6}{numbers}  {verdict}")
    return lines


def _percent(share: float) -> str:
    return f"{share:.1%}" if share <= 10 else "> 1000 %"
