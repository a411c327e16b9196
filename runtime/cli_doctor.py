"""`fcast-doctor`: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from .cli import Command, stdout_to_stderr
from .doctor import FAILED, Check, Examined, examine, table, worst
from .errors import InputError
from .extras import extra


@click.command(cls=Command)
@click.option("--selftest", is_flag=True, help="Also train, export, verify and measure, and write a report.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the self-test's report goes.  [default: fcast-doctor.json]",
)
@click.option(
    "--artifact",
    "artifacts",
    type=click.Path(path_type=Path),
    multiple=True,
    help="An artifact for the self-test; may be repeated. Needed where training is not installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(selftest: bool, out: Path | None, artifacts: tuple[Path, ...], as_json: bool) -> None:
    """Look at Python, the system, the driver, the GPUs, the installed wheels and what a session really runs on.

    Each line is ok, a warning, or failed, and says what to do. No network is used, nothing is changed. With --selftest
    a model of each kind is trained on a little synthetic traffic, exported, verified and timed on every device, and
    what only a GPU can show (mixed precision, CUDA graphs, a memory limit, several GPUs) is tried where there is one.
    All of it goes into one file, readable as text and as JSON: send that home.

    Exit code 0: nothing failed. 1: something did.

    \b
    Examples:
      fcast-doctor
      fcast-doctor --json | jq '.checks[] | select(.status != "ok")'
      fcast-doctor --selftest --out report.json
      fcast-doctor --selftest --artifact artifacts/gru
    """
    if not selftest and (out or artifacts):
        raise click.UsageError("--out and --artifact belong to --selftest")
    report = _place(out or Path("fcast-doctor.json")) if selftest else None
    examined = examine()
    checks = examined.checks
    if not as_json:
        click.echo("\n".join(table(checks)))
    tested: list[Check] = []
    if selftest:
        with stdout_to_stderr():
            tested = _selftest(examined, artifacts)
        if not as_json:
            click.echo("\n".join(["", *table(tested)]))
    result = _result(checks, tested)
    if as_json:
        click.echo(json.dumps(result, indent=1, ensure_ascii=False))
    if report is not None:
        _write(report, {"text": [*table(checks), "", *table(tested)]} | result)
        click.echo(f"Wrote {report}", err=True)
    if result["status"] == FAILED:
        sys.exit(1)


def _place(out: Path) -> Path:
    if not out.parent.is_dir():
        raise InputError(f"--out: expected a file in a folder that is there, got {out}; make the folder")
    return out


def _write(out: Path, report: dict[str, Any]) -> None:
    from .selftest import write_report

    try:
        write_report(out, report)
    except OSError as error:
        raise InputError(f"--out: expected a place to write to, got {out} ({error}); choose another") from None


def _selftest(examined: Examined, artifacts: tuple[Path, ...]) -> list[Check]:
    from .selftest import selftest

    begun = time.perf_counter()

    def progress(name: str) -> None:
        click.echo(f"{time.perf_counter() - begun:6.1f} s  {name}", err=True)

    train, no_train = None, "training is not installed; pip install 'fcast[export]', or give --artifact"
    try:
        train = extra("fcast.doctor", "train")
    except ImportError:
        pass
    except Exception as error:  # of a broken library of torch's
        no_train = f"training cannot be loaded ({type(error).__name__}: {str(error)[:200]})"
    with tempfile.TemporaryDirectory(prefix="fcast-doctor-") as folder:
        return selftest(
            Path(folder),
            gpus=examined.gpus,
            no_gpu=examined.no_gpu,
            artifacts=artifacts,
            train=train,
            no_train=no_train,
            progress=progress,
        )


def _result(checks: list[Check], tested: list[Check]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": worst([*checks, *tested]),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "checks": [check.to_dict() for check in checks],
    }
    return found | ({"selftest": [check.to_dict() for check in tested]} if tested else {})
