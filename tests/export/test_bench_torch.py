"""fcast-bench times the TorchScript file of an artifact that has one, and the trained model when it is given."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from export.artifact import export_checkpoint
from runtime.cli_bench import main


def test_torchscript_stands_beside_the_runtime(load_run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(load_run, formats=("onnx", "torchscript"), out=tmp_path)
    done = CliRunner().invoke(main, [str(published.path), "--calls", "50", "--batch", "1,3", "--json"])
    assert done.exit_code == 0, done.stderr
    for run in json.loads(done.stdout)["runs"]:
        assert [row["subject"] for row in run["rows"]][3] == "torchscript"


def test_eager_torch_stands_beside_them_when_the_checkpoint_is_given(
    load_run: Path, requests_run: Path, tmp_path: Path
) -> None:
    published = export_checkpoint(load_run, out=tmp_path)
    asked = [str(published.path), "--calls", "50", "--batch", "1,3", "--json", "--checkpoint"]
    done = CliRunner().invoke(main, [*asked, str(load_run)])
    assert done.exit_code == 0, done.stderr
    for run in json.loads(done.stdout)["runs"]:
        assert [row["subject"] for row in run["rows"]][3] == "torch, eager"
    other = CliRunner().invoke(main, [*asked, str(requests_run)])
    assert (other.exit_code, other.stdout) == (1, "")
    assert "--checkpoint: expected the one that" in other.stderr
