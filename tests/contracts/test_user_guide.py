"""Every Python block of the user guides runs as it stands: ours in both languages, and the user's own where it is."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from click.testing import CliRunner

from examples.inference_service import main as serve
from examples.offline_gpu_training import main as train
from tests.contracts.run_blocks import python_blocks
from training.synth import synthesize
from training.trace_write import write_trace

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("user-guide.md", "user-guide.zh.md")]
THEIRS = ROOT.parent / "shared" / "user-guide.md"


def run(module: str, page: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = [{str(page)!r}]; "
    code += f"runpy.run_module({module!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_our_guide_runs(page: Path, tmp_path: Path) -> None:
    done = run("tests.contracts.run_blocks", page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"block {len(python_blocks(page))} ran" in done.stderr
    assert done.stdout.count("quantile median of") >= 2


def without_comments(block: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(block).readline)
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    return [token.string for token in tokens if token.type not in skipped]


def test_both_languages_show_the_same_code() -> None:
    english, chinese = ([without_comments(block) for block in python_blocks(page)] for page in PAGES)
    assert english == chinese


@pytest.mark.slow
@pytest.mark.skipif(not THEIRS.is_file(), reason="the user's guide is not beside this checkout")
def test_every_block_of_the_users_guide_runs(tmp_path: Path) -> None:
    done = run("tests.contracts.run_users_guide", THEIRS, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all blocks ran\n")


def test_the_two_scripts_train_and_then_serve(tmp_path: Path) -> None:
    trace, models = tmp_path / "trace.csv", tmp_path / "models"
    write_trace(synthesize(days=0.007, rate_per_s=0.5, seed=3), trace, format="burstgpt")
    options = ["--trace", str(trace), "--device", "cpu"]
    refused = CliRunner().invoke(serve, [*options, "--models", str(models)])
    assert refused.exit_code == 1
    assert "expected saved models, got none; run examples.offline_gpu_training first" in refused.stderr
    trained = CliRunner().invoke(train, [*options, "--epochs", "1", "--out", str(models)])
    assert trained.exit_code == 0, trained.output
    assert f"Saved transformer to {models / 'transformer.pth'}" in trained.stdout
    served = CliRunner().invoke(serve, [*options, "--models", str(models), "--rows", "200"])
    assert served.exit_code == 0, served.output
    assert '"method": "quantile median of lstm"' in served.stdout
    short = CliRunner().invoke(train, [*options, "--rows", "50", "--out", str(models)])
    assert short.exit_code == 1
    assert "expected at least one window of 100 + 20 steps" in short.stderr
