"""Live progress of training on stderr: epoch, loss, validation wQL, windows per second (w/s), memory, time left.

Bars on a terminal; where stderr is a file, a pipe or a terminal that can't move its cursor, plain lines: one per epoch,
and in long epochs one every half minute.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training.fit import OnBatch, OnEpoch
from training.usage import usage_text

_REFRESH_S = 0.2  # reading a loss waits for the device, so it is not done every step
_USAGE_S = 2.0
_LINE_S = 30.0
_ROOMY = 100


def live() -> bool:
    """Whether stderr is a terminal where lines can be drawn over."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def live_bars(*texts: str) -> Progress:
    """Bars on a terminal's stderr, with these columns of text and the time left; nothing elsewhere."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=10 if console.width >= _ROOMY else 4),
        *map(TextColumn, texts),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        disable=not live(),
    )


class TrainingProgress:
    """A bar per model on a terminal; lines elsewhere."""

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
            "{task.fields[speed]} w/s {task.fields[usage]}",
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
        model = _Model(self._bars, name, windows=self._windows, epochs=self._epochs)
        return model.on_batch, model.on_epoch


class _Model:
    """One model's bar, or lines."""

    def __init__(self, bars: Progress, name: str, *, windows: int, epochs: int) -> None:
        self._bars, self._name, self._device = bars, name, torch.device("cpu")
        self._windows, self._epochs = windows, epochs
        self._task: TaskID = bars.add_task(
            name, total=windows * epochs, epoch=0, loss="-", validation="-", speed="-", usage=""
        )
        self._epoch = self._done = 0  # whole epochs, and windows of the one that runs
        self._shown_s = self._usage_s = self._line_s = time.perf_counter()
        self._shown_windows = 0

    def on_batch(self, windows: int, loss: torch.Tensor) -> None:
        """Show a step, if it is time."""
        self._done += windows
        self._device = loss.device
        now_s = time.perf_counter()
        if self._bars.disable:
            if now_s - self._line_s >= _LINE_S:
                self._say_inside(float(loss), self._speed(now_s))
                self._line_s = now_s
            return
        if now_s - self._shown_s < _REFRESH_S:
            return
        if now_s - self._usage_s >= _USAGE_S:
            self._bars.update(self._task, usage=usage_text(self._device))
            self._usage_s = now_s
        self._bars.update(
            self._task,
            completed=self._epoch * self._windows + self._done,
            loss=f"{float(loss):.4f}",
            speed=f"{self._speed(now_s):,.0f}",
        )

    def on_epoch(self, line: dict[str, float]) -> None:
        """Show an epoch."""
        self._epoch, self._done, self._shown_windows = int(line["epoch"]), 0, 0
        self._shown_s = self._line_s = time.perf_counter()
        validation = f"{line['validation_wql']:.4f}" if "validation_wql" in line else "-"
        loss, speed = f"{line['train_loss']:.4f}", f"{line['windows_per_s']:,.0f}"
        if self._bars.disable:
            left_s = (self._epochs - self._epoch) * line["seconds"]
            again = "" if "validation_wql" in line else " again, with validation data"
            self._say(
                f"{self._name}{again}: epoch {self._epoch}/{self._epochs}  loss {loss}  val wQL {validation}  "
                f"{speed} windows/s  {usage_text(self._device)}  at most {duration(left_s)} left"
            )
            return
        self._bars.update(
            self._task,
            completed=self._epoch * self._windows,
            epoch=self._epoch,
            loss=loss,
            validation=validation,
            speed=speed,
            usage=usage_text(self._device),
        )

    def _say_inside(self, loss: float, speed: float) -> None:
        left_s = ((self._epochs - self._epoch) * self._windows - self._done) / speed
        self._say(
            f"{self._name}: epoch {self._epoch + 1}/{self._epochs}, {min(1.0, self._done / self._windows):.0%} of it  "
            f"loss {loss:.4f}  {speed:,.0f} windows/s  {usage_text(self._device)}  at most {duration(left_s)} left"
        )

    def _speed(self, now_s: float) -> float:
        """Windows per second since the last call."""
        speed = (self._done - self._shown_windows) / max(now_s - self._shown_s, 1e-9)
        self._shown_s, self._shown_windows = now_s, self._done
        return speed

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time as a person says it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 99.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
