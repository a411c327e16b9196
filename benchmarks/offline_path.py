"""The whole path of docs/offline.md: build a bundle, then follow its README where there is no network at all.

python -m benchmarks.offline_path [--work FOLDER]

`fcast-bundle --cuda none` builds the role train. In a network namespace of its own, with an empty home and no setting
of pip, the blocks of the bundle's README run as they stand: install, train, export, verify, predict. What was exported
then travels in a bundle of the role runtime, whose README runs the same way. Takes minutes and 3 GB; everything is
removed, but what lies in --work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NO_NETWORK = ["unshare", "--map-root-user", "--net"]


@click.command()
@click.option(
    "--work", type=click.Path(path_type=Path), help="Keep bundles and environments here.  [default: a folder that goes]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(work: Path | None, as_json: bool) -> None:
    """Walk the offline path."""
    if not can_leave_the_network():
        click.echo("Skipped: this machine does not permit `unshare --net`, so that nothing would be shown", err=True)
        return
    with tempfile.TemporaryDirectory(prefix="fcast-offline-") as folder:
        at = (work or Path(folder)).absolute()
        found = {"train": walk(at, role="train")}
        found["runtime"] = walk(at, role="runtime", artifact=at / "train" / "artifacts" / "gru")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo("| role | packages | bundle | disk, said / used | build | again | README, without a network |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    for role, row in found.items():
        mb = {key: f"{row[f'{key}_bytes'] / 1e6:.0f}" for key in ("size", "needs", "used")}
        seconds = " | ".join(f"{row[f'{key}_s']:.0f} s" for key in ("build", "again", "readme"))
        click.echo(f"| {role} | {row['packages']} | {mb['size']} MB | {mb['needs']} / {mb['used']} MB | {seconds} |")


def can_leave_the_network() -> bool:
    """Whether this user may make a network namespace here, and finds nothing but a loopback in it."""
    try:
        done = subprocess.run(
            [*NO_NETWORK, "cat", "/proc/net/dev"], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError:
        return False
    return done.returncode == 0 and re.findall(r"(\S+):", done.stdout) == ["lo"]


def walk(work: Path, *, role: str, artifact: Path | None = None) -> dict[str, float]:
    """Build a bundle twice and follow its README.

    Returns:
        Sizes and seconds, and `packages`.
    """
    bundle, place = work / f"bundle-{role}", work / role
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    command = [sys.executable, "-m", "export.cli_bundle", "--cuda", "none", "--python", python, "--role", role]
    command += ["--platform", f"linux_{os.uname().machine}", "--out", str(bundle), "--json"]
    if artifact is not None:
        command += ["--artifact", str(artifact)]
    took: list[float] = []
    for _ in range(2):
        begun = time.perf_counter()
        built = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        took.append(time.perf_counter() - begun)
    assert built["fetched"] == 0, built
    begun = time.perf_counter()
    follow_readme(bundle, place)
    forecast = json.loads((place / "forecast.json").read_text())
    assert forecast["values"], forecast
    return {
        "packages": len(built["packages"]),
        "size_bytes": built["size_bytes"],
        "needs_bytes": built["needs_bytes"],
        "used_bytes": float(
            subprocess.run(["du", "-sB1", place / "fcast-env"], capture_output=True, check=True).stdout.split()[0]
        ),
        "build_s": took[0],
        "again_s": took[1],
        "readme_s": time.perf_counter() - begun,
    }


def follow_readme(bundle: Path, place: Path) -> None:
    """Run the shell blocks of a bundle's README in order, in `place`, without a network."""
    blocks = _BLOCK.findall((bundle / "README.md").read_text(encoding="utf-8"))
    shutil.rmtree(place, ignore_errors=True)
    home = place / "home"
    home.mkdir(parents=True)
    environment = {"PATH": _path_of_the_system(), "HOME": str(home), "BUNDLE": str(bundle), "OMP_NUM_THREADS": "1"}
    script = "set -eux\n" + "".join(blocks)
    # What a bundle's commands print is for the person who watches; stdout belongs to the result.
    subprocess.run([*NO_NETWORK, "sh", "-c", script], cwd=place, env=environment, stdout=sys.stderr, check=True)


def _path_of_the_system() -> str:
    """PATH without the environment that runs this, and with its interpreter's own folder."""
    ours = Path(sys.prefix) / "bin"
    kept = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(part) != ours]
    return os.pathsep.join([str(Path(sys.executable).resolve().parent), *kept])


if __name__ == "__main__":
    main()
