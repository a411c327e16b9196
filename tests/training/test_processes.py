"""Several processes under torchrun train what one does, and one that is killed ends the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.training.test_cli_train import write
from tests.training.traces import request_trace
from training.checkpoint import load_checkpoint

OPTIONS = ["--series", "load", "--bin", "2", "--context", "16", "--horizon", "3", "--device", "cpu"]
PROGRAM = "from training.cli_train import main\nmain()\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write(folder / "made.csv", request_trace(2000))
    (folder / "train.py").write_text(PROGRAM)
    return folder


def start(place, out, *more, processes: int = 0) -> subprocess.Popen[str]:
    under = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes] if processes else []
    words = [sys.executable, *under, place / "train.py", "--trace", place / "made.csv", *OPTIONS, "--out", out, *more]
    return subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_two_processes_end_with_the_weights_of_one(place, tmp_path):
    """285 training windows in batches of 284: the last batch has one window for two processes."""
    models = ["--model", "gru,last_value,dlinear", "--epochs", "2", "--set", "batch_size=284"]
    one, two = start(place, tmp_path / "one", *models), start(place, tmp_path / "two", *models, processes=2)
    found = [process.communicate(timeout=120) for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), found
    out, err = found[1]
    assert out.splitlines()[:-2] == found[0][0].splitlines()[:-2]  # but for the names of the folders
    assert "training windows, on cpu in 2 processes" in err
    assert len([line for line in err.splitlines() if line.startswith("gru: epoch")]) == 2
    assert not [line for line in err.splitlines() if "Initializing" in line or "Warning" in line]
    for model in ("gru", "dlinear"):
        a, b = (load_checkpoint(tmp_path / name / model) for name in ("one", "two"))
        assert a.meta["split"]["train"] % 284 == 1
        for part in ("final_train_loss", "best_validation_wql"):
            assert b.meta["training"][part] == pytest.approx(a.meta["training"][part], rel=1e-5)
        for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no /proc here")
def test_a_killed_process_ends_the_job_with_a_clear_message_and_the_repeated_command_goes_on(place, tmp_path):
    command = ["--model", "gru", "--epochs", "6", "--set", "batch_size=4"]
    job = start(place, tmp_path / "parts", *command, processes=2)
    assert job.stderr is not None
    lines = []
    while "epoch 1/6" not in (lines or [""])[-1]:
        lines.append(job.stderr.readline())
        assert job.poll() is None, lines
    workers = children(job.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    began = time.monotonic()
    _, err = job.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert job.returncode == 1
    assert "Traceback" not in err.split("elastic")[0]  # then torchrun has its say
    said = [line for line in err.splitlines() if line.startswith("Error: gru: expected a training step")]
    assert said or "Stopped." in err, err
    if said:
        assert "this is process 0 of 2, see what the others say, then repeat the command" in said[0]
    again = start(place, tmp_path / "parts", *command, processes=2)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "gru: goes on from epoch" in err
    whole = start(place, tmp_path / "whole", *command)
    whole.communicate(timeout=120)
    history = [(tmp_path / name / "gru" / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[json.loads(line)["validation_wql"] for line in lines] for lines in history]
    np.testing.assert_allclose(*losses, rtol=1e-4)
