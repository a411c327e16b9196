"""`metrics.jsonl` of a run folder: how training goes, one JSON object a line, written while it goes.

Every line has `kind`, `time_s` (since 1970), `epoch` (from 1), `step` (of the optimizer, from 1), `train_loss`,
`learning_rate`, `windows_per_s` and `memory_bytes`. After each epoch comes one of kind "epoch", with `validation_wql`
and `seconds` (of training); inside long epochs one of kind "step" every half minute, with the mean loss since the last.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import write_atomically
from training.usage import memory_bytes

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
EVERY_S = 30.0
"""Seconds between the lines inside an epoch."""


class MetricsLog:
    """Appends to the file; a run that goes on keeps the lines up to where it goes on, and no other."""

    def __init__(self, path: Path, *, history: Sequence[dict[str, Any]], step: int, device: torch.device) -> None:
        """Set up.

        Args:
            path: of the file.
            history: lines of the epochs done, as an interrupted run saved them.
            step: steps of the optimizer done.
            device: that training runs on.
        """
        self._path, self._device = path, device
        self.keep(history, step=step)

    def keep(self, history: Sequence[dict[str, Any]], *, step: int) -> None:
        """Leave the lines of these epochs, and inside them and the next up to a step: later ones are trained again."""
        inside = [line for line in read_metrics(self._path) if line["kind"] == "step" and line["step"] <= step]
        lines = sorted([*inside, *history], key=lambda line: (line["epoch"], line["kind"] == "epoch"))
        if lines:
            write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        else:
            self._path.unlink(missing_ok=True)
        self._start()

    def on_step(self, epoch: int, step: int, *, windows: int, loss: torch.Tensor, learning_rate: float) -> None:
        """Take a step of the optimizer in; writes a line when the last one is old.

        Args:
            epoch, step: from 1.
            windows: that the step saw.
            loss: of the step, still on the device.
            learning_rate: of the step.
        """
        self._loss += loss
        self._steps += 1
        self._windows += windows
        seconds = time.perf_counter() - self._since
        if seconds < EVERY_S:
            return
        line = {
            "epoch": epoch,
            "step": step,
            "train_loss": float(self._loss) / self._steps,
            "learning_rate": learning_rate,
            "windows_per_s": self._windows / seconds,
        }
        try:
            self._append({"kind": "step", **self._now(), **line})
        except OSError as error:  # no reason to end a run; where the disk is full, its checkpoint will say so
            _log.warning("%s: expected to write a line, got '%s'; training goes on", self._path, error.strerror)
        self._start()

    def stamped(self, line: dict[str, Any]) -> dict[str, Any]:
        """The line of an epoch with what every line has; for the history that is saved, and then for `on_epoch`."""
        return {"kind": "epoch", **self._now(), **line}

    def on_epoch(self, line: dict[str, Any]) -> None:
        """Write the line of an epoch."""
        self._append(line)
        self._start()

    def _now(self) -> dict[str, Any]:
        return {"time_s": round(time.time(), 3), "memory_bytes": memory_bytes(self._device)}

    def _start(self) -> None:
        self._loss = torch.zeros((), device=self._device)
        self._steps = self._windows = 0
        self._since = time.perf_counter()

    def _append(self, line: dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, also of a run that is still going; none without a file, and not one that a kill has cut."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = []
    for row in text.splitlines():
        try:
            line = json.loads(row)
            lines.append({"kind": "epoch", **line})  # runs before 0.2 had lines of epochs alone
        except (ValueError, TypeError):
            continue
    return lines
