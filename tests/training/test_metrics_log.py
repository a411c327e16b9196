"""`metrics.jsonl`: a line per epoch and inside long ones, and over kills and resumes each epoch once."""

from __future__ import annotations

import json
import time

import pytest
import torch

from tests.training.test_fit import run_of, train
from training import metrics_log
from training.metrics_log import MetricsLog, read_metrics

EVERY_LINE = {"kind", "time_s", "epoch", "step", "train_loss", "learning_rate", "windows_per_s", "memory_bytes"}
CPU = torch.device("cpu")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_epoch_is_one_line_with_what_a_reader_needs(tmp_path):
    before = time.time()
    train(tmp_path, run_of())
    lines = lines_of(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.keys() == EVERY_LINE | {"validation_wql", "seconds"}
        assert before <= line["time_s"] <= time.time()
        assert line["memory_bytes"] > 1 << 20
    assert [line["step"] for line in lines] == [5, 10, 15]  # 281 windows in batches of 64


def test_long_epochs_have_lines_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "EVERY_S", 0.0)
    train(tmp_path, run_of())
    lines = lines_of(tmp_path)
    assert [line["kind"] for line in lines] == 3 * [*5 * ["step"], "epoch"]
    inside = [line for line in lines if line["kind"] == "step"]
    assert all(line.keys() == EVERY_LINE for line in inside)
    assert [line["step"] for line in inside] == list(range(1, 16))
    for number in (1, 2, 3):
        losses = [line["train_loss"] for line in inside if line["epoch"] == number]
        (whole,) = (line["train_loss"] for line in lines if line["kind"] == "epoch" and line["epoch"] == number)
        assert sum(losses) / 5 == pytest.approx(whole, rel=1e-5)


def test_an_interrupted_and_resumed_run_has_each_epoch_and_step_once(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "EVERY_S", 0.0)
    steps = 0

    def interrupt(windows, loss):
        nonlocal steps
        steps += 1
        if steps == 8:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, run_of(), on_batch=interrupt)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "epo')  # as a kill leaves it
    train(tmp_path, run_of(), resume=True)
    assert [line["step"] for line in lines_of(tmp_path)] == [*range(1, 6), 5, *range(6, 11), 10, *range(11, 16), 15]


def test_an_epoch_that_only_the_checkpoint_knows_is_written_again(tmp_path):
    history = [{"kind": "epoch", "epoch": 1, "step": 5}, {"kind": "epoch", "epoch": 2, "step": 10}]
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(history[0]) + "\n")
    MetricsLog(path, history=history, step=10, device=CPU)
    assert read_metrics(path) == history
    MetricsLog(path, history=history[:1], step=5, device=CPU)  # and one that it does not know goes
    assert read_metrics(path) == history[:1]


def test_a_run_that_goes_on_inside_an_epoch_keeps_what_came_before(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"kind": "step", "epoch": 1, "step": step} for step in (2, 4)]
    lines += [{"kind": "epoch", "epoch": 1, "step": 5}]
    lines += [{"kind": "step", "epoch": 2, "step": step} for step in (7, 9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = MetricsLog(path, history=[lines[2]], step=8, device=CPU)
    assert read_metrics(path) == lines[:4]
    log.keep([], step=3)  # back to the first epoch
    assert read_metrics(path) == lines[:1]


def test_a_run_from_the_beginning_forgets_the_lines_of_an_earlier_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 7}\n')
    train(tmp_path, run_of(epochs=1))
    assert [line["epoch"] for line in lines_of(tmp_path)] == [1]


def test_a_line_inside_an_epoch_that_can_not_be_written_ends_no_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(metrics_log, "EVERY_S", 0.0)
    log = MetricsLog(tmp_path / "none" / "metrics.jsonl", history=[], step=0, device=CPU)
    log.on_step(1, 1, windows=64, loss=torch.tensor(0.5), learning_rate=0.1)
    assert "expected to write a line, got 'No such file or directory'; training goes on" in caplog.text


def test_lines_of_earlier_versions_and_cut_ones_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"epoch": 1, "train_loss": 0.5}\n[3]\n{"kind": "step", "ep')
    assert read_metrics(path) == [{"kind": "epoch", "epoch": 1, "train_loss": 0.5}]
