"""`--tensorboard`: the lines of `metrics.jsonl` as events, each once."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from tests.training.test_fit import run_of, train
from training import metrics_log, tensorboard_log
from training.errors import TrainingError
from training.tensorboard_log import check_installed, with_tensorboard

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the extra fcast[tensorboard] is not installed"
)


def nothing(name):
    return (lambda windows, loss: None), (lambda line: None)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(e.step, e.value, e.wall_time) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@needs_tensorboard
def test_events_are_the_lines_also_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "EVERY_S", 0.0)
    monkeypatch.setattr(tensorboard_log, "EVERY_S", 0.0)
    steps = 0

    def interrupt(windows, loss):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt

    for interrupted in (interrupt, lambda windows, loss: None):
        on_batch, on_epoch = with_tensorboard(lambda name, each=interrupted: (each, lambda line: None), tmp_path)("run")
        try:
            train(tmp_path / "run", run_of(), resume=True, on_batch=on_batch, on_epoch=on_epoch)
        except KeyboardInterrupt:
            assert steps == 8
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = events(tmp_path / "run")
    for name in ("train_loss", "validation_wql", "learning_rate", "windows_per_s", "memory_bytes"):
        expected = [(line["step"], line[name], line["time_s"]) for line in lines if name in line]
        assert [event[0] for event in found[name]] == [line[0] for line in expected]
        assert [event[1] for event in found[name]] == pytest.approx([line[1] for line in expected], rel=1e-6)
        assert [event[2] for event in found[name]] == pytest.approx([line[2] for line in expected], abs=0.01)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tensorboard_log, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"expected the package tensorboard, got none; pip install 'fcast\["):
        check_installed()


def test_a_run_that_has_nothing_to_train_writes_nothing(tmp_path):
    begin = with_tensorboard(nothing, tmp_path)
    on_batch, _ = begin("run")
    on_batch(1, torch.zeros(()))
    assert not (tmp_path / "run").exists()
