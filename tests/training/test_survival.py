"""Long runs survive: kills, signals, full disks, bad samples and losses that are not finite."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal

import pytest
import torch
from click.testing import CliRunner

from tests.training.test_cli_train import SMALL, one_line, write
from tests.training.test_fit import run_of, train
from tests.training.traces import request_trace
from training import registry
from training.checkpoint import LAST, META, WEIGHTS
from training.cli_train import main
from training.errors import CheckpointError, TrainingError
from training.models.gru import GRU
from training.resume import only_process
from training.run import prepare, train_model

STEPS = 5  # of an epoch of the runs below


class Bomb(GRU):
    """Does something in one of its training steps; the memory plan's two passes do not count."""

    calls = 0
    at, action = 0, staticmethod(lambda x: x)

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            Bomb.calls += 1
            if Bomb.calls == Bomb.at + 2:
                x = Bomb.action(x)
        return super().forward(x)


@pytest.fixture
def bomb(monkeypatch):
    monkeypatch.setitem(registry._models, "bomb", Bomb)

    def arm(at, action) -> None:
        Bomb.calls, Bomb.at, Bomb.action = 0, at, staticmethod(action)

    arm(0, lambda x: x)
    return arm


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "made.csv", request_trace(500))


def terminated(x):
    os.kill(os.getpid(), signal.SIGTERM)
    return x


def history(folder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def command(trace_file, out, *more):
    arguments = ["--trace", trace_file, "--model", "bomb", "--out", out, *SMALL, "--set", "batch_size=64"]
    return CliRunner().invoke(main, [str(a) for a in [*arguments, *more]])


@pytest.mark.parametrize("kept_at", [1, STEPS, 2 * STEPS + 3])
def test_a_run_goes_on_to_the_bit_from_any_checkpoint_that_a_kill_left(tmp_path, kept_at):
    run = run_of("transformer", epochs=4, checkpoint_s=0)  # with dropout
    whole = train(tmp_path / "whole", run)
    done, files = 0, {}

    def killed(windows, loss):
        nonlocal done
        done += 1
        if done == kept_at + 1:  # the one before this step is on the disk
            files.update({file.name: file.read_bytes() for file in (tmp_path / "parts").iterdir()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", run, on_batch=killed)
    for file in (tmp_path / "parts").iterdir():
        file.unlink()
    for name, data in files.items():
        (tmp_path / "parts" / name).write_bytes(data)
    resumed = train(tmp_path / "parts", run, resume=True)
    assert resumed.sha256 == whole.sha256
    ours, theirs = (history(tmp_path / name) for name in ("whole", "parts"))
    for key in ("train_loss", "validation_wql", "learning_rate"):
        assert [line[key] for line in ours] == [line[key] for line in theirs]


def test_sigterm_ends_after_the_step_and_the_repeated_command_goes_on_with_the_next(trace_file, tmp_path, bomb):
    assert command(trace_file, tmp_path / "whole").exit_code == 0
    bomb(STEPS + 2, terminated)
    stopped = command(trace_file, tmp_path / "parts")
    assert stopped.exit_code == 143, stopped.output
    assert "Stopped. Repeat the command to go on." in stopped.stderr
    assert not (tmp_path / "parts" / "bomb" / META).exists()
    again = command(trace_file, tmp_path / "parts")
    assert again.exit_code == 0, again.output
    assert "bomb: goes on from epoch 2, step 2" in again.stderr
    assert "epoch 1/2" not in again.stderr
    weights = [(tmp_path / out / "bomb" / WEIGHTS).read_bytes() for out in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_sigterm_outside_of_a_step_ends_at_once(trace_file, tmp_path, bomb, monkeypatch):
    monkeypatch.setattr("training.fit.validation_wql", lambda *args: terminated(0.0))
    before = signal.getsignal(signal.SIGTERM)
    assert command(trace_file, tmp_path).exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_finished_command_is_not_repeated_and_an_unfinished_one_takes_what_is_finished(trace_file, tmp_path, bomb):
    assert command(trace_file, tmp_path).exit_code == 0
    refused = one_line(command(trace_file, tmp_path), 2)
    assert "expected no earlier run, got checkpoint.json; give --resume to take it as it is, --overwrite" in refused
    weights = (tmp_path / "bomb" / WEIGHTS).stat()
    both = command(trace_file, tmp_path, "--model", "bomb,dlinear")
    assert both.exit_code == 0, both.output
    assert "bomb: finished already, stays as it is" in both.stderr
    assert (tmp_path / "bomb" / WEIGHTS).stat().st_mtime_ns == weights.st_mtime_ns
    (tmp_path / "report.json").unlink()  # killed before the report
    again = command(trace_file, tmp_path, "--model", "bomb,dlinear")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "report.json").exists()


def test_a_repeated_command_with_other_settings_is_refused(trace_file, tmp_path, bomb):
    bomb(2, terminated)
    assert command(trace_file, tmp_path).exit_code == 143
    line = one_line(command(trace_file, tmp_path, "--set", "learning_rate=0.5"), 1)
    assert "expected learning_rate = 0.5, got 0.002 in the saved run; repeat its settings, or start over with" in line
    assert command(trace_file, tmp_path, "--set", "micro_batch=16", "--set", "checkpoint_s=1").exit_code == 0


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_disk_that_is_full_at_any_time_keeps_the_last_checkpoint(trace_file, tmp_path, bomb, monkeypatch, after):
    assert command(trace_file, tmp_path / "whole").exit_code == 0
    calls, real = 0, os.fsync

    def full(fd):
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    settings = ("--set", "checkpoint_s=0")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        line = one_line(command(trace_file, tmp_path / "parts", *settings), 1)
    assert "No space left on device" in line
    assert not list((tmp_path / "parts" / "bomb").glob(".*"))
    again = command(trace_file, tmp_path / "parts", *settings)
    assert again.exit_code == 0, again.output
    weights = [(tmp_path / out / "bomb" / WEIGHTS).read_bytes() for out in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_a_full_disk_says_what_is_kept(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(windows, loss):
        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=r"The checkpoint of the start is kept: make room and repeat the command"):
        train(tmp_path, run_of(checkpoint_s=0), on_batch=fill)


def test_a_bad_sample_is_named_and_the_run_before_it_kept(tmp_path):
    run = run_of("gru", hidden_size=8)
    data = prepare(request_trace(500), run.data)
    steps = 0

    def spoil(windows, loss):  # at hour five
        nonlocal steps
        steps += 1
        if steps == STEPS + 2:
            data.series.values[120, 1] = float("nan")

    with pytest.raises(
        TrainingError, match=r"gru.* a window|the window that ends at \d+\.\d+ s holds a value"
    ) as raised:
        train_model(data, run, tmp_path, on_batch=spoil)
    assert "The checkpoint of the end of epoch 1 is kept" in str(raised.value)
    data.series.values[120, 1] = 100.0
    train_model(data, run, tmp_path, resume=True)
    assert len(history(tmp_path)) == 3


def test_a_loss_that_is_not_finite_once_goes_back_and_on_with_a_tenth_of_the_learning_rate(tmp_path, bomb, caplog):
    plain = train(tmp_path / "plain", run_of("bomb"))
    bomb(STEPS + 3, lambda x: x * float("nan"))
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "nan", run_of("bomb"))
    (line,) = [text for text in caplog.messages if "not finite" in text]
    assert "got a loss that is not finite in epoch 2, step 3 (learning rate" in line
    assert "likely a learning rate too high for this trace" in line
    assert "Back to the end of epoch 1, once, with a tenth of the learning rate" in line
    rates = [[row["learning_rate"] for row in history(tmp_path / name)] for name in ("plain", "nan")]
    assert rates[0][0] == rates[1][0]
    assert rates[1][1] == pytest.approx(rates[0][1] / 10)
    assert plain.meta["training"]["epochs_trained"] == 3


def test_an_error_in_a_step_keeps_the_steps_before_it(tmp_path, bomb):
    def fail(x):
        raise ValueError("no such sample")

    whole = train(tmp_path / "whole", run_of("bomb"))
    bomb(STEPS + 3, fail)
    with pytest.raises(TrainingError, match=r"got ValueError: no such sample in epoch 2, step 3; mend the cause, then"):
        train(tmp_path / "parts", run_of("bomb"))
    seen = []
    resumed = train(tmp_path / "parts", run_of("bomb"), resume=True, on_batch=lambda windows, loss: seen.append(loss))
    assert len(seen) == 2 * STEPS - 2
    assert resumed.sha256 == whole.sha256


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with only_process(tmp_path):
        other = only_process(tmp_path)
        with pytest.raises(CheckpointError, match="expected no other process that trains here"):
            other.__enter__()
    with only_process(tmp_path):
        pass


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / f".{LAST}.123.part").write_bytes(b"half")
    with only_process(tmp_path):
        assert not list(tmp_path.iterdir())
