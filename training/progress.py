"""Live progress of training on stderr: epoch, loss, validation wQL, windows per second (w/s), time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training.fit import OnBatch, OnEpoch

_REFRESH_S = 0.2  # reading a loss waits for the device, so it is not done every step


def live_bars(*texts: str) -> Progress:
    """Bars on a terminal's stderr, with these columns of text and the time left; nothing elsewhere."""
    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=10),
        *map(TextColumn, texts),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


class TrainingProgress:
    """A bar per model on a terminal; one line per epoch elsewhere."""

    def __init__(self, *, windows: int, epochs: int) -> None:
        """Set up.

        Args:
            windows: training windows per epoch.
            epochs: most epochs.
        """
        self._windows, self._epochs = windows, epochs
        self._bars = live_bars(
            "{task.fields[epoch]}/" + str(epochs),  # 80 columns in all
            "loss {task.fields[loss]} wQL {task.fields[validation]}",
            "{task.fields[speed]} w/s",
        )

    def __enter__(self) -> TrainingProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def on_model(self, name: str) -> tuple[OnBatch, OnEpoch]:
        """Begin a model; gives the callbacks of `training.fit.fit`."""
        task = self._bars.add_task(
            name, total=self._windows * self._epochs, epoch=0, loss="-", validation="-", speed="-"
        )
        pending = [0, time.perf_counter()]

        def on_batch(windows: int, loss: torch.Tensor) -> None:
            pending[0] += windows
            now = time.perf_counter()
            if now - pending[1] >= _REFRESH_S:
                speed = f"{pending[0] / (now - pending[1]):,.0f}"
                self._bars.update(task, advance=pending[0], loss=f"{float(loss):.4f}", speed=speed)
                pending[:] = [0, now]

        def on_epoch(line: dict[str, float]) -> None:
            self._end_epoch(task, name, line)
            pending[:] = [0, time.perf_counter()]

        return on_batch, on_epoch

    def _end_epoch(self, task: TaskID, name: str, line: dict[str, float]) -> None:
        epoch = int(line["epoch"])
        validation = f"{line['validation_wql']:.4f}" if "validation_wql" in line else "-"
        if self._bars.disable:
            left = (self._epochs - epoch) * line["seconds"]
            again = "" if "validation_wql" in line else " again, with validation data"
            text = (
                f"{name}{again}: epoch {epoch}/{self._epochs}  loss {line['train_loss']:.4f}  val wQL {validation}  "
                f"{line['windows_per_s']:,.0f} windows/s  at most {left:.0f} s left"
            )
            print(text, file=sys.stderr, flush=True)
        self._bars.update(
            task,
            completed=epoch * self._windows,
            epoch=epoch,
            loss=f"{line['train_loss']:.4f}",
            validation=validation,
            speed=f"{line['windows_per_s']:,.0f}",
        )
