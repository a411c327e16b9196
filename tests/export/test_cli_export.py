"""`fcast-export` as a user meets it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export import artifact
from export.cli_export import _as_text, main
from export.exporters import AUTO, DEFAULT_OPSET
from export.parity import ATOL, RTOL
from runtime.verify import verify
from tests.export.conftest import train


def export(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_result_says_what_was_published_how_well_it_matches_and_what_next(load_run: Path, tmp_path: Path) -> None:
    result = export(load_run, "--out", tmp_path, "--format", "onnx", "--format", "torchscript")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Published {tmp_path}/dlinear/1\n")
    for text in ("model.onnx", "model.pt", "parity onnx: ", "parity torchscript: ", "of edge windows", "fcast-verify"):
        assert text in result.stdout
    assert re.search(r"opset 20, exporter legacy, .* s: export .* s, gate .* s, publish .* s", result.stdout)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_text_names_the_reference_that_was_there(requests_run: Path, tmp_path: Path, precision: str) -> None:
    published = artifact.export_checkpoint(requests_run, out=tmp_path)
    text = _as_text(replace(published, checks=[replace(check, reference=precision) for check in published.checks]))
    assert f"differ from {precision} torch by at most" in text
    assert ("where float32 torch does by" in text) == (precision == "float64")


def test_json_is_one_object_on_stdout(requests_run: Path, tmp_path: Path) -> None:
    result = export(requests_run, "--out", tmp_path, "--name", "chat", "--json")
    found = json.loads(result.stdout)
    assert (found["path"], found["name"], found["version"]) == (f"{tmp_path}/chat/1", "chat", 1)
    assert found["parity"]["onnx"]["used"] <= 1.0
    assert found["files"]["model.onnx"] == (tmp_path / "chat/1/model.onnx").stat().st_size
    assert (found["exporter"], found["rejected"]) == ("legacy", {})
    assert list(found["stages"]) == ["export", "gate", "publish"]
    assert sum(found["stages"].values()) <= found["seconds"]


def test_what_was_published_with_a_wider_tolerance_verifies_with_it(requests_run: Path, tmp_path: Path) -> None:
    folder = Path(json.loads(export(requests_run, "--out", tmp_path, "--rtol", 0.5, "--json").stdout)["path"])
    result = verify(folder, device="cpu")
    assert (result.problems, result.rtol, result.atol) == ([], 0.5, ATOL)
    assert {check.name for check in result.files} == {"model.onnx", "parity.json", "golden.npz", "config.pbtxt"}


def test_a_failed_proof_is_one_line_and_exit_code_one(requests_run: Path, tmp_path: Path) -> None:
    result = export(requests_run, "--out", tmp_path, "--rtol", 0, "--atol", 0, "--exporter", "legacy")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: parity: expected ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_exit_code_one(
    requests_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = export(requests_run, "--out", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--name", "../x"], 2, "Error: --name: expected letters"),
        (["--name", ""], 2, "Error: --name: expected letters"),
        (["--opset", "26"], 2, "Error: --opset: expected 17 to 20 (legacy) or 18 to 21 (dynamo), got 26"),
        (["--opset", "17", "--exporter", "dynamo"], 2, "Error: --opset: expected 18 to 21 (dynamo), got 17"),
        (["--static-batch", "0"], 2, "Error: --static-batch: expected 1 to 256, got 0"),
        (["--exporter", "onnx"], 2, "'onnx' is not one of 'auto', 'legacy', 'dynamo'"),
        (["--rtol", "nan"], 2, "Error: --rtol: expected a finite number"),
        (["--format", "tflite"], 2, "'tflite' is not one of 'onnx', 'torchscript'"),
    ],
)
def test_an_impossible_option_is_a_usage_error(
    requests_run: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    result = export(requests_run, "--out", tmp_path / "artifacts", *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "artifacts").exists()


def test_a_failure_after_publishing_is_a_line_on_stderr(
    requests_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if (tmp_path / "gru").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(warnings, "filters", [])  # as a user has it: pytest makes errors of warnings
    result = export(requests_run, "--out", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Published {tmp_path}/gru/1\n")
    assert result.stderr.splitlines()[-1].startswith(f"Warning: {tmp_path}/gru/1: published, but the disk has not conf")


WITHOUT_EXTRAS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "rich", "onnx", "pandas", "lightning_fabric", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from export.cli_export import _as_text, main
main()
"""


def test_without_its_extra_it_helps_and_says_what_to_install(tmp_path: Path) -> None:
    run = [sys.executable, "-c", WITHOUT_EXTRAS]
    helped = subprocess.run([*run, "--help"], capture_output=True, text=True, check=False)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "Examples:" in helped.stdout
    failed = subprocess.run([*run, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.endswith("pip install 'fcast[export]'\n")


def test_an_output_folder_under_a_file_is_exit_code_one(requests_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = export(requests_run, "--out", tmp_path / "file/artifacts")
    assert result.exit_code == 1
    assert "expected a writable folder with free space, got Not a directory" in result.stderr


def test_a_missing_checkpoint_says_what_is_expected(tmp_path: Path) -> None:
    result = export(tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path}/nothing: expected a run folder of fcast-train, got No such file or directory; "
        "correct the path\n"
    )


def test_best_exports_the_run_that_is_best_on_validation_and_says_why(load_run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(load_run, runs / "one")
    train(runs / "two", series="load", model="dlinear", calendar="day+week", seed=1)
    (runs / "cut").mkdir()
    (runs / "cut" / "checkpoint.json").write_text("{")
    scores = {
        name: json.loads((runs / name / "checkpoint.json").read_text())["scores"]["validation"]["wql"]["mean"]
        for name in ("one", "two")
    }
    best = min(scores, key=scores.__getitem__)
    result = export(runs, "--best", "--out", tmp_path / "artifacts", "--json")
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"{runs / best}: wQL {scores[best]:.4f} on validation, the lowest of 2 finished runs (")
    assert lines[1].startswith(f"{runs / 'cut'}: left out, damaged: ")
    manifest = json.loads((Path(json.loads(result.stdout)["path"]) / "manifest.json").read_text())
    weights = hashlib.sha256((runs / best / "model.safetensors").read_bytes()).hexdigest()
    assert manifest["checkpoint_sha256"] == weights


def test_best_of_no_finished_run_is_one_clear_line(tmp_path: Path) -> None:
    result = export(tmp_path, "--best")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "expected a finished run, got 0 others; see fcast-train --list" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_defaults_that_help_shows_are_those_of_the_library() -> None:
    defaults = {option.name: option.default for option in main.params}
    assert (defaults["opset"], defaults["atol"], defaults["rtol"]) == (DEFAULT_OPSET, ATOL, RTOL)
    assert defaults["exporter"] == AUTO
    assert tuple(defaults["formats"]) == ("onnx",)
    formats = next(option.type.choices for option in main.params if option.name == "formats")
    assert tuple(formats) == artifact.FORMATS
