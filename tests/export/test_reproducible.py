"""The same checkpoint exported twice with the same versions is the same artifact."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # two fresh processes

DECLARED = ("created", "self_sha256")
"""Manifest keys that may differ; docs/artifact.md declares them."""


@pytest.fixture(scope="module")
def twice(load_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One checkpoint, exported by two processes that share neither hash seed nor folder."""
    outs = [tmp_path_factory.mktemp(f"out{i}") for i in range(2)]
    options = ["--format", "onnx", "--format", "torchscript", "--static-batch", "1"]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from export.cli_export import main; main()",
                str(load_run),
                "--out",
                str(out),
                *options,
            ],
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": str(i), "OMP_NUM_THREADS": "1"},
            cwd=out,
            stdout=subprocess.DEVNULL,
        )
        for i, out in enumerate(outs)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    return [out / "dlinear/1" for out in outs]


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_bytes()))


def test_every_file_but_the_manifest_is_the_same_byte_for_byte(twice: list[Path]) -> None:
    first, second = twice
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    assert {"model.onnx", "model.batch1.onnx", "model.pt", "golden.npz", "parity.json"} < set(names)
    differing = [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]
    assert differing in ([], ["manifest.json"])


def test_manifests_differ_in_declared_fields_alone(twice: list[Path]) -> None:
    first, second = ({key: value for key, value in manifest(folder).items() if key not in DECLARED} for folder in twice)
    assert first == second


def test_no_file_names_the_host(twice: list[Path]) -> None:
    for file in twice[0].iterdir():
        assert socket.gethostname().encode() not in file.read_bytes(), file.name
