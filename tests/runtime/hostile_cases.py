"""The corpus of hostile artifacts, each by its name: what is cut, flipped, linked, or built to mislead.

    cut:<artifact>:<file>:<sixteenths>[:sealed]     flip:<artifact>:<file>:<bit>[:sealed]     any key of HANDMADE

`sealed` means that the manifest's hashes are made right again, so that what lies behind them must hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.artifact import open_artifact
from runtime.golden import Golden, read_golden
from tests.runtime import hostile_files, hostile_golden, hostile_graphs, hostile_manifests
from tests.runtime.conftest import ARTIFACTS, seal

FILES = ("manifest.json", "model.onnx", "golden.npz", "parity.json", "config.pbtxt")
HANDMADE: dict[str, Callable[[Path], None]] = (
    hostile_manifests.CASES | hostile_files.CASES | hostile_golden.CASES | hostile_graphs.CASES
)

CONTROLS: dict[str, Callable[[Path], None]] = {
    "control: crash": lambda _: os.abort(),
    "control: hang": lambda _: re.fullmatch("(a|a)*b", "a" * 60) and None,
}
"""What no artifact may do, to see that it would be noticed."""


def cuts(artifact: str) -> list[str]:
    """Every file cut at every 1/16th, as it is and with the seal made right."""
    return [f"cut:{artifact}:{file}:{part}{seal}" for file in FILES for part in range(16) for seal in ("", ":sealed")]


def flips(artifact: str, *, seed: int, count: int) -> list[str]:
    """Random bits, each file as likely as another, half of them with the seal made right."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        file = FILES[rng.integers(len(FILES))]
        bit = rng.integers(8 * len(place(ARTIFACTS / artifact / "1", file).read_bytes()))
        found.append(f"flip:{artifact}:{file}:{bit}{':sealed' if i % 2 else ''}")
    return found


def make(case: str, scratch: Path) -> tuple[Path, Golden]:
    """Build a case in an empty folder; returns the version's folder, and what its model must forecast."""
    kind, *parts = case.split(":")
    name = parts[0] if kind in ("cut", "flip", "swap") else "counts"
    original = ARTIFACTS / name
    folder = scratch / "artifacts" / name / "1"
    shutil.copytree(original / "1", folder)
    shutil.copy(original / "config.pbtxt", folder.parent)
    if kind in ("cut", "flip"):
        spoil(folder, parts[1], kind, int(parts[2]), sealed=parts[3:] == ["sealed"])
    elif kind != "swap":
        (HANDMADE | CONTROLS)[case](folder)
    return folder, hostile_graphs.golden() if kind == "graph" else read_golden(open_artifact(original / "1"))


def place(folder: Path, file: str) -> Path:
    return (folder.parent if file == "config.pbtxt" else folder) / file


def spoil(folder: Path, file: str, kind: str, number: int, *, sealed: bool) -> None:
    path = place(folder, file)
    data = bytearray(path.read_bytes())
    if kind == "cut":
        del data[len(data) * number // 16 :]
    else:
        data[number // 8] ^= 1 << number % 8
    path.write_bytes(bytes(data))
    if sealed:
        reseal(folder, file, bytes(data))


def reseal(folder: Path, file: str, data: bytes) -> None:
    """Make the manifest agree with a changed file; a changed manifest that is no JSON any more has no seal."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        sha256 = hashlib.sha256(data).hexdigest()
        if file == "config.pbtxt":
            manifest["config_sha256"] = sha256
        elif file != "manifest.json":
            manifest["files"][file] = {"sha256": sha256, "bytes": len(data)}
        seal(folder, manifest)
    except ValueError:
        assert file == "manifest.json"
