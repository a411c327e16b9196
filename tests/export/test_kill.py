"""Kill -9 at random moments of publishing: the repository always holds whole versions only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.verify import verify

KILLS = 60
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_sixty_kills_leave_only_whole_versions_and_no_number_used_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.export.killed_publishing", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kills"] == KILLS
    assert said["interrupted"] >= KILLS // 2  # kills that fell into a publication, not between two
    assert len(said["versions"]) >= KILLS // 6  # on a busy machine most kills come too early
    problems = {version: verify(tmp_path / version, device="cpu").problems for version in said["versions"]}
    assert {version: found for version, found in problems.items() if found} == {}
