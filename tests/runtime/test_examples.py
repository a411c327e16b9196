"""The examples of hosts run, on a tiny artifact."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import Predictor

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="the examples are not here")


def test_an_asyncio_loop_forecasts_while_a_version_comes_in(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.asyncio_scheduler import run

    root = tmp_path / "requests"
    shutil.copytree(artifacts / "requests/1", root / "1")
    shutil.copytree(artifacts / "requests/2", tmp_path / "staged")
    said = ""

    async def until(task: asyncio.Task[None], text: str) -> None:
        nonlocal said
        while text not in said:
            assert not task.done()
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out

    async def swapped() -> None:
        predictor = Predictor(root, device="cpu")
        task = asyncio.create_task(run(predictor, seconds=30.0, plan_every_s=0.05, look_every_s=0.1))
        await until(task, "version 1, ")
        (tmp_path / "staged").rename(root / "2")
        await until(task, "version 2, model: ")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(swapped())
    plans = re.findall(r"version (\d), (\S+): a prompt of up to \d+ tokens \(\d+ µs\)", said)
    assert [version for version, _ in plans] == sorted(version for version, _ in plans)
    assert said.count("version 2 is in service") == 1


def test_threads_observe_and_one_plans(artifacts: Path) -> None:
    command = [sys.executable, "-m", "examples.threaded_scheduler", artifacts / "requests", "--seconds", "0.5"]
    done = subprocess.run([*command, "--every", "0.2"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines
    assert all(re.fullmatch(r"a: up to \d+ tokens, b: up to \d+ tokens, c: up to \d+ tokens", line) for line in lines)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_shell_asks_through_a_pipe(artifacts: Path, tmp_path: Path) -> None:
    script = tmp_path / "fcast-predict"  # the checkout's, installed or not
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'from runtime.cli_predict import main; main()' \"$@\"\n")
    script.chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "examples/pipe.sh", artifacts / "requests", "20"],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert all(re.match(rf"request {i}: the next prompt has about [\d.e+]+ tokens \(", s) for i, s in enumerate(lines))
    assert (lines[0].endswith("(fallback:prior)"), lines[-1].endswith("(model)")) == (True, True)
