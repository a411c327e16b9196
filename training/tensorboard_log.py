"""`--tensorboard`: the numbers of `metrics.jsonl` as event files too, in the run folder's `tensorboard/`."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from training.compare import OnModel
from training.errors import TrainingError
from training.fit import OnBatch, OnEpoch
from training.metrics_log import EVERY_S, METRICS, read_metrics

FOLDER = "tensorboard"
_SHOWN = ("train_loss", "validation_wql", "learning_rate", "windows_per_s", "memory_bytes")


def check_installed() -> None:
    """Refuse a missing extra before any work.

    Raises:
        TrainingError: the package tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "--tensorboard: expected the package tensorboard, got none; pip install 'fcast[tensorboard]'"
        )


def with_tensorboard(on_model: OnModel, out: Path) -> OnModel:
    """The same callbacks, which also keep the event files of each run in `out` up to date."""

    def begin(name: str) -> tuple[OnBatch, OnEpoch]:
        on_batch, on_epoch = on_model(name)
        board = _Board(out / name)

        def after_batch(windows: int, loss: torch.Tensor) -> None:
            on_batch(windows, loss)
            board.catch_up(every_s=EVERY_S)

        def after_epoch(line: dict[str, Any]) -> None:
            on_epoch(line)
            board.catch_up()

        return after_batch, after_epoch

    return begin


class _Board:
    """Event files that follow a run's `metrics.jsonl`, also over an interruption: they are written anew then."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._written, self._since_s = folder, 0, time.perf_counter()
        self._writer: Any = None

    def catch_up(self, *, every_s: float = 0.0) -> None:
        now_s = time.perf_counter()
        if now_s - self._since_s < every_s:
            return
        self._since_s = now_s
        lines = read_metrics(self._folder / METRICS)
        if self._writer is None or len(lines) < self._written:
            self._begin()
        for line in lines[self._written :]:
            for name in _SHOWN:
                if name in line and "step" in line:
                    self._writer.add_scalar(name, line[name], line["step"], walltime=line["time_s"])
        self._written = len(lines)
        self._writer.flush()

    def _begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds

        if self._writer is not None:
            self._writer.close()
        shutil.rmtree(self._folder / FOLDER, ignore_errors=True)
        self._writer, self._written = SummaryWriter(self._folder / FOLDER), 0
