"""SIGKILL at random moments: the repeated command ends where a run left alone does."""

from __future__ import annotations

import pytest

from benchmarks.kill_resume import kill_and_repeat


@pytest.mark.slow
def test_a_command_killed_at_random_moments_and_repeated_ends_with_the_same_weights(tmp_path):
    settings = ["--context", "20", "--epochs", "20", "--set", "checkpoint_s=0.05", "--set", "patience=20"]
    found = kill_and_repeat(tmp_path, model="multiscale", kills=3, seed=1, most_s=4.0, settings=settings)
    assert found["same_weights"]
    assert found["same_losses"]
    assert found["epochs"] == 20
