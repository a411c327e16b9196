"""`fcast-bundle`: everything that a machine without a network needs, in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from export.bundle import Built, Plan, build_bundle, plan_bundle, project_wheel
from export.bundle_artifacts import open_artifacts
from export.bundle_lock import PLATFORMS
from export.bundle_sets import WheelSet, choose_set, dotted
from export.bundle_wheels import as_size
from training.cli import Command

_EPILOG = """\b
Examples:
  fcast-bundle --cuda 13 --dry-run
  fcast-bundle --driver 535 --python 3.10 --out /media/disk/fcast-bundle
  fcast-bundle --cuda none --role runtime --artifact artifacts/gru

\b
Where wheels come from is pip's business: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_CONSTRAINT.
CPU builds of torch, and those for CUDA 11, are on PyTorch's own indexes alone.

\b
Exit code: 0 built, 1 refused or failed (the folder does not look finished), 2 wrong usage. Next: docs/offline.md
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("fcast-bundle"),
    show_default=True,
    help="Folder of the bundle. What it holds already is used again.",
)
@click.option("--python", default="3.11", show_default=True, help="Version of Python on that machine.")
@click.option(
    "--platform", type=click.Choice(sorted(PLATFORMS)), default="linux_x86_64", show_default=True, help="Its kind."
)
@click.option(
    "--cuda", type=click.Choice(["none", "11", "12", "13"]), help="CUDA that its driver runs, or none for the CPU."
)
@click.option("--driver", metavar="VERSION", help="Instead of --cuda: version of its NVIDIA driver, from nvidia-smi.")
@click.option(
    "--compute-capability",
    type=float,
    metavar="X.Y",
    help="Of its oldest GPU, should that be below 7.5: nvidia-smi --query-gpu=compute_cap --format=csv.",
)
@click.option(
    "--role",
    type=click.Choice(["train", "runtime"]),
    default="train",
    show_default=True,
    help="train: everything. runtime: what serves artifacts.",
)
@click.option(
    "--artifact",
    "artifacts",
    multiple=True,
    type=click.Path(),
    help="An artifact to take along, artifacts/NAME or artifacts/NAME/VERSION; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="List packages and sizes; download and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    out: Path,
    python: str,
    platform: str,
    cuda: str | None,
    driver: str | None,
    compute_capability: float | None,
    role: str,
    artifacts: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a folder from which a machine without a network installs fcast: on this one, which has a network.

    The newest wheels of torch and onnxruntime-gpu that the other machine's driver can run are locked by hash, with one
    set of CUDA libraries for both, and downloaded. Copy the folder over and follow its README.
    """
    chosen = choose_set(cuda=cuda, driver=driver, python=python, capability=compute_capability)
    open_artifacts(artifacts, chosen)  # a misfit is told before anything is downloaded
    for loss in chosen.loses:
        click.echo(f"Note: {loss}", err=True)
    with project_wheel() as project:
        plan = plan_bundle(chosen, role=role, python=python, platform=platform, project=project)
        built = None
        if not dry_run:
            tell = lambda line: click.echo(line, err=True)  # noqa: E731
            built = build_bundle(plan, out, project=project, artifacts=artifacts, on_wheel=tell)
    click.echo(json.dumps(_as_json(plan, built), indent=2) if as_json else _as_text(plan, built))


def _as_json(plan: Plan, built: Built | None) -> dict[str, Any]:
    listed = [
        {"name": w.name, "version": w.version, "size_bytes": w.size_bytes, "sha256": w.sha256} for w in plan.wheels
    ]
    found: dict[str, Any] = _target(plan.chosen) | {"packages": listed, "download_bytes": plan.download_bytes}
    if built is not None:
        found |= {
            "path": str(built.path),
            "fingerprint": built.fingerprint,
            "size_bytes": built.size_bytes,
            "needs_bytes": built.needs_bytes,
            "fetched": built.fetched,
            "reused": built.reused,
        }
    return found


def _target(chosen: WheelSet) -> dict[str, Any]:
    return {
        "cuda": chosen.cuda,
        "driver": dotted(chosen.driver) or None,
        "opset": chosen.opset,
        "loses": list(chosen.loses),
    }


def _as_text(plan: Plan, built: Built | None) -> str:
    if built is None:
        lines = [
            f"{wheel.name:<28}{wheel.version:<20}{as_size(wheel.size_bytes) if wheel.size_bytes else '?':>10}"
            for wheel in plan.wheels
        ]
        return "\n".join([*lines, f"{len(lines)} packages beside fcast, {as_size(plan.download_bytes)} to download"])
    return "\n".join(
        [
            f"Built {built.path}: {as_size(built.size_bytes)}; {built.fetched} wheels fetched, {built.reused} kept",
            f"  fingerprint {built.fingerprint[:16]}: install.sh prints the same",
            f"  the other machine needs {as_size(built.needs_bytes)} of disk and Python {plan.python}"
            + (f", driver {dotted(plan.chosen.driver)} or newer" if plan.chosen.driver else ""),
            "Next: copy the folder over, then follow its README.md (README.zh.md)",
        ]
    )


if __name__ == "__main__":
    main()
