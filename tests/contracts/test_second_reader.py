"""docs/artifact.md is complete: a reader written from it alone opens, checks and runs every artifact there is."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.contracts import second_reader

TESTS = Path(__file__).parents[1]
NAMES = sorted([*TESTS.glob("runtime/artifacts/*/"), *TESTS.glob("data/artifacts/*/*/")])
NAMES = [name for name in NAMES if (name / "1").is_dir()]


def test_the_second_reader_knows_nothing_of_this_project() -> None:
    tree = ast.parse(Path(second_reader.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: "-".join(name.parts[-2:]))
def test_it_opens_checks_and_runs_what_is_kept(name: Path) -> None:
    assert second_reader.verify(second_reader.newest(name)) == []


@pytest.mark.parametrize("series", ["requests", "load"])
def test_it_opens_checks_and_runs_a_fresh_export(series: str, tmp_path: Path) -> None:
    from export.artifact import export_checkpoint
    from tests.export.conftest import train

    calendar = {"requests": "none", "load": "day+week"}[series]
    run = train(tmp_path / "run", series=series, model="dlinear", calendar=calendar)
    published = export_checkpoint(run, formats=("torchscript",), out=tmp_path / "artifacts")
    assert second_reader.verify(second_reader.newest(published.path.parent)) == []


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "parity.json", "golden.npz", "../config.pbtxt"])
def test_it_finds_a_changed_byte_in(file: str, tmp_path: Path) -> None:
    name = Path(shutil.copytree(TESTS / "runtime/artifacts/demand", tmp_path / "demand"))
    content = bytearray((name / "1" / file).read_bytes())
    at = content.index(b"requests") if file.endswith(("json", "pbtxt")) else len(content) // 2
    content[at] ^= 1
    (name / "1" / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file.removeprefix('../')} was altered"):
        second_reader.verify(name / "1")


def test_it_finds_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = second_reader.read_golden

    def changed(version: Path, manifest: dict[str, object]) -> dict[str, np.ndarray]:
        arrays = golden(version, manifest)
        arrays["demand"][2, 1, 3, 4] *= np.float32(1.001)
        return arrays

    monkeypatch.setattr(second_reader, "read_golden", changed)
    problems = second_reader.verify(TESTS / "runtime/artifacts/demand/1")
    assert [problem.partition(" differs")[0] for problem in problems] == ["demand"]
