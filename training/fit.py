"""The one training loop: pinball loss, AdamW, gradient clipping, early stopping, resumable to the bit.

Each epoch reseeds from (seed, epoch) and each step from (seed, epoch, step), so a run that was interrupted and resumed
ends with the same weights as one that was not. Its state is saved after every epoch, within long ones, and when
anything ends it, unless a step is half made.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import stop
from training.backtest import rolling_forecasts
from training.checkpoint import LAST, WEIGHTS, save_weights
from training.config import RunConfig
from training.device import is_out_of_memory
from training.divergence import SLOWER, NotFinite, Watch, bad_window_s, likely_cause
from training.errors import TrainingError
from training.forecaster import Forecaster
from training.metrics import wql
from training.metrics_log import METRICS, MetricsLog
from training.quantile_model import QuantileModel
from training.resume import LastState, Progress
from training.steps import Stepper
from training.windows import Split, WindowSource
from training.world import agree, from_first, this_world

_WARM_UP = 0.05
_LOOK_EVERY = 16  # steps between two looks at the losses: a look waits for the GPU and the other processes

_log = logging.getLogger(__name__)

OnBatch = Callable[[int, torch.Tensor], None]
"""Called after every step with the number of windows and the step's loss, still on the device. What it raises ends the
training, its state saved."""
OnEpoch = Callable[[dict[str, Any]], None]
"""Called after every epoch with its line of `metrics.jsonl`."""


def fit(
    model: Forecaster,
    source: WindowSource,
    split: Split,
    *,
    config: RunConfig,
    folder: Path,
    fingerprint: str = "",
    resume: bool = False,
    on_batch: OnBatch = lambda windows, loss: None,
    on_epoch: OnEpoch = lambda line: None,
) -> Progress:
    """Train a forecaster; the best weights end up in the folder.

    Where `config.fit.start` says that it begins with the weights of an earlier run, they count as epoch 0. Processes
    of `torchrun` share every batch; the first one alone touches the folder and validates.

    Args:
        model: the forecaster, scaling fitted.
        source: windows of the series, on the device to train on.
        split: origins; only train and validation are read. Without validation the training loss chooses the best epoch,
            and no line has a `validation_wql`.
        config: its `fit` part drives the loop, all of it is saved.
        folder: run folder, exists.
        fingerprint: of the trace; a run is resumed on the same one only.
        resume: go on from the folder's last state, where there is one.
        on_batch: see `OnBatch`.
        on_epoch: see `OnEpoch`.

    Raises:
        TrainingError: a step failed, another process has gone, or the loss was not finite, again at a tenth of the
            learning rate.
        CheckpointError: the saved state can't be resumed.
        OSError: a file can't be written; the last checkpoint is kept.
    """
    loop = _Loop(model, source, split, config, folder, fingerprint)
    loop.begin(resume)
    while not loop.done:
        try:
            with stop.waiting_for_steps():
                loop.make_steps(on_batch)
            line = loop.judge()
        except NotFinite as found:
            loop.go_back(found)
            continue
        except BaseException as error:
            loop.save_at_the_end(error)
            raise
        with stop.waiting_for_steps():
            line = loop.end_epoch(line)
        on_epoch(line)
    return loop.progress


class _Loop:
    """One training: the steps, and how far they have come."""

    def __init__(
        self,
        model: Forecaster,
        source: WindowSource,
        split: Split,
        config: RunConfig,
        folder: Path,
        fingerprint: str,
    ) -> None:
        self.world = this_world()
        self.progress = Progress(history=[])
        self._model, self._source, self._split, self._folder, self._fit = model, source, split, folder, config.fit
        self._stepper = Stepper(model, source, self.world, config=config)
        self._last = LastState(
            path=folder / LAST, stepper=self._stepper, world=self.world, config=config, fingerprint=fingerprint
        )
        self._origins = torch.from_numpy(split.train)
        self._batches = math.ceil(len(self._origins) / self._fit.batch_size)
        self._watch = Watch()
        self._metrics: MetricsLog | None = None  # of the first process
        self._total = torch.zeros((), device=source.device)
        self._began = self._saved_at = time.perf_counter()
        self._kept = "Nothing was saved before"

    @property
    def _steps(self) -> int:
        """Steps of the optimizer done, from the first epoch on."""
        return self.progress.epoch * self._batches + self.progress.step

    @property
    def done(self) -> bool:
        return self.progress.epoch >= self._fit.epochs or stopped_early(self.progress, patience=self._fit.patience)

    def begin(self, resume: bool) -> None:
        """From the last state, or from the start."""
        saved = self._last.load(wanted=resume)
        if saved is not None:
            self.progress = saved
            self._kept = f"The checkpoint of {saved.place} is kept"
            _log.info("%s: goes on from %s", self._folder.name, saved.place)
        else:
            judged = self._fit.start or self._model.anchored  # training may add nothing to what is there
            if judged and len(self._split.validation):
                self.progress.best_wql = self._validate()
                self._save_weights()
            self._save()
        if self.world.is_first:
            path, device = self._folder / METRICS, self._source.device
            self._metrics = MetricsLog(path, history=self.progress.history, step=self._steps, device=device)
        self._stepper.settle(self._origins[: self._fit.batch_size])

    def make_steps(self, on_batch: OnBatch) -> None:
        """The steps of the epoch that are left."""
        progress, size = self.progress, self._fit.batch_size
        seed = self._fit.seed * 1_000_003 + progress.epoch
        torch.manual_seed(seed)
        order = self._origins[torch.randperm(len(self._origins))].to(self._source.home).split(size)
        self._watch = Watch()
        self._total.fill_(progress.loss_sum)
        self._began = time.perf_counter() - progress.seconds
        self._model.train()
        for index in range(progress.step, self._batches):
            picks, rate = order[index], self._rate(index)
            try:
                loss, norm = self._stepper.take(picks, rate=rate, seed=seed * 1_000_003 + index)
            except Exception as error:
                raise self._failure(error, index + 1) from error
            self._total += loss
            progress.step = index + 1
            self._watch.add(progress.step, loss, norm)
            self._stepper.whole = True
            if self._metrics:
                self._metrics.on_step(
                    progress.epoch + 1, self._steps, windows=len(picks), loss=loss, learning_rate=rate
                )
            on_batch(len(picks), loss)
            due = time.perf_counter() - self._saved_at >= self._fit.checkpoint_s
            at_once = self.world.size == 1 and (due or stop.asked())
            if at_once or progress.step % _LOOK_EVERY == 0 or progress.step == self._batches:
                self._look(order)
                if due:
                    self._save()

    def judge(self) -> dict[str, Any]:
        """The line of `metrics.jsonl` of an epoch whose steps are made."""
        progress, seconds = self.progress, time.perf_counter() - self._began
        rate = self._rate(self._batches - 1)
        line = {
            "epoch": progress.epoch + 1,
            "step": self._steps,
            "train_loss": float(self._total) / self._batches,
            "learning_rate": rate,
            "windows_per_s": len(self._origins) / seconds,
            "seconds": seconds,
        }
        if len(self._split.validation):
            line["validation_wql"] = self._validate()
            if not math.isfinite(line["validation_wql"]):
                place = {"epoch": progress.epoch + 1, "step": self._batches}
                raise NotFinite(line["validation_wql"], self._origins[:0], **place, rate=rate)
        return line

    def end_epoch(self, line: dict[str, Any]) -> dict[str, Any]:
        """Count an epoch, and save it; gives its line of `metrics.jsonl` as it stands there."""
        progress = self.progress
        if self._metrics:
            line = self._metrics.stamped(line)
        self._stepper.whole = False
        progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
        self._total.zero_()
        progress.history.append(line)
        score = line.get("validation_wql", line["train_loss"])
        if score < progress.best_wql:
            progress.best_wql, progress.best_epoch = score, progress.epoch
            self._save_weights()
        self._save()
        if self._metrics:
            self._metrics.on_epoch(line)
        self._stepper.whole = True
        return line

    def go_back(self, found: NotFinite) -> None:
        """To the last state, once, with a lower learning rate.

        Raises:
            TrainingError: that would not help, or did not.
        """
        name, bad_s = self._folder.name, bad_window_s(found, self._source)
        if bad_s is not None:
            raise TrainingError(
                f"{name}: expected finite losses, got {found}: the window that ends at {bad_s:.3f} s holds a value "
                f"that is not finite; mend the trace, see fcast-trace describe. {self._kept}"
            )
        cause = likely_cause(self._fit, half=self._stepper.half)
        if self.progress.slower < 1:
            raise TrainingError(
                f"{name}: expected finite losses, got {found}, a second time; likely {cause}, and start over with "
                f"--overwrite. {self._kept}"
            )
        saved = self._last.load()
        assert saved is not None
        self.progress = saved
        self.progress.slower = SLOWER
        if self._metrics:
            self._metrics.keep(saved.history, step=self._steps)
        _log.warning(
            "%s: expected finite losses, got %s; likely %s. Back to %s, once, with a tenth of the learning rate",
            name,
            found,
            cause,
            saved.place,
        )

    def save_at_the_end(self, error: BaseException) -> None:
        """Save what there is when anything ends the training, but nothing half made or not finite."""
        if isinstance(error, OSError) or not self._stepper.whole:
            return
        try:
            if self._watch.look() is None:
                self._save()
        except RuntimeError as broken:  # a GPU that is lost gives nothing back
            _log.error("%s: the last steps can't be saved: %s. %s", self._folder.name, broken, self._kept)

    def _look(self, order: tuple[torch.Tensor, ...]) -> None:
        """End or go back where a signal or a loss asks for it; the same in every process."""
        bad = self._watch.look()
        if bad is not None:  # the loss is that of all processes, and so is the gradient
            step, loss = bad
            place = {"epoch": self.progress.epoch + 1, "step": step}
            raise NotFinite(loss, order[step - 1], **place, rate=self._rate(step - 1))
        number = agree(self.world, self._stepper.fabric, stop.asked())
        if number:
            stop.stop(number)

    def _failure(self, error: Exception, step: int) -> Exception:
        """What to raise for an error in a step."""
        if stop.asked():  # the others have gone for the same reason
            stop.stop(stop.asked())
        if isinstance(error, TrainingError):
            return error
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        where = f"{self._folder.name}: expected a training step, got {reason} in epoch {self.progress.epoch + 1}, "
        where += f"step {step}"
        if is_out_of_memory(error):
            remedy = "give --set micro_batch=N, --set gradient_checkpointing=true or a smaller --context"
        elif self.world.size > 1:
            remedy = f"this is process {self.world.rank} of {self.world.size}, see what the others say"
        else:
            remedy = "mend the cause"
        return TrainingError(f"{where}; {remedy}, then repeat the command: it goes on from that step")

    def _rate(self, index: int) -> float:
        done = (self.progress.epoch * self._batches + index + 1) / (self._fit.epochs * self._batches)
        return self._fit.learning_rate * self.progress.slower * _schedule(done)

    def _validate(self) -> float:
        first = self.world.is_first
        found = validation_wql(self._model, self._source, self._split.validation) if first else 0.0
        return from_first(self.world, self._stepper.fabric, found)

    def _save(self) -> None:
        progress = self.progress
        progress.loss_sum = float(self._total)
        if progress.step:
            progress.seconds = time.perf_counter() - self._began
        try:
            self._last.save(progress)
        except OSError as error:
            what = f"{error.strerror}. {self._kept}: make room and repeat the command"
            raise OSError(error.errno, what, error.filename) from error
        self._saved_at = time.perf_counter()
        self._kept = f"The checkpoint of {progress.place} is kept"

    def _save_weights(self) -> None:
        if self.world.is_first:
            save_weights(self._folder / WEIGHTS, self._model)


def stopped_early(progress: Progress, *, patience: int) -> bool:
    """Whether the last `patience` epochs brought no better validation score."""
    return progress.epoch - progress.best_epoch >= patience


def validation_wql(model: QuantileModel, source: WindowSource, origins: np.ndarray) -> float:
    """Mean wQL over the channels, raw units."""
    forecast, target = rolling_forecasts(model, source, origins)
    return float(wql(forecast, target, model.levels).mean())


def _schedule(done: float) -> float:
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
