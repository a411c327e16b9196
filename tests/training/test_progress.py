"""Progress of training: bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import io
import sys

import pytest
import torch

from training import progress
from training.progress import TrainingProgress, duration

LINE = {"epoch": 1, "train_loss": 0.25, "windows_per_s": 12_345.6, "seconds": 100.0, "validation_wql": 0.4321}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stream, **environment) -> str:
    """What one model's two epochs print."""
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingProgress(windows=1000, epochs=2) as shows:
        on_batch, on_epoch = shows.on_model("gru")
        for epoch in (1, 2):
            for _ in range(10):
                on_batch(100, torch.tensor(0.5))
            on_epoch({**LINE, "epoch": epoch})
    return stream.getvalue()


def test_a_terminal_has_a_bar_with_loss_score_speed_memory_and_time_left(monkeypatch):
    text = shown(monkeypatch, Terminal())
    assert "\x1b[" in text
    last = text.rstrip().rpartition("\r")[2]
    for part in ("gru", "2/2", "0.2500", "0.4321", "12,346", "w/s", "GB"):
        assert part in last


def test_without_colour_a_bar_has_none(monkeypatch):
    text = shown(monkeypatch, Terminal(), NO_COLOR="1")
    assert "\x1b[3" not in text  # no code that sets a colour; the cursor still moves
    assert "12,346" in text


@pytest.mark.parametrize(
    ("stream", "environment"),
    [(io.StringIO, {}), (io.StringIO, {"FORCE_COLOR": "1"}), (Terminal, {"TERM": "dumb"}), (Terminal, {"TERM": ""})],
    ids=["file", "file, colour forced", "dumb terminal", "no TERM"],
)
def test_elsewhere_there_are_plain_lines_without_control_characters(monkeypatch, stream, environment):
    text = shown(monkeypatch, stream(), **environment)
    assert all(char == "\n" or char.isprintable() for char in text)
    lines = text.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("gru: epoch 1/2  loss 0.2500  val wQL 0.4321  12,346 windows/s  ")
    assert lines[0].endswith(" GB  at most 2 min left")
    assert lines[1].endswith("at most 0 s left")


def test_long_epochs_have_plain_lines_inside(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.0)
    lines = shown(monkeypatch, io.StringIO()).splitlines()
    assert len(lines) == 22
    assert lines[4].startswith("gru: epoch 1/2, 50% of it  loss 0.5000  ")
    assert lines[10].startswith("gru: epoch 1/2  loss")
    assert lines[11].startswith("gru: epoch 2/2, 10% of it")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (-1, "0 s"), (59.6, "60 s"), (150, "2 min"), (5990, "100 min"), (12_000, "3 h 20 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text.replace("100 min", "1 h 40 min")
