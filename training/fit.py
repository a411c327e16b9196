"""The one training loop: pinball loss, AdamW, gradient clipping, early stopping, resumable to the bit.

Each epoch reseeds from (seed, epoch), so a run that was interrupted and resumed ends with the same weights as one
that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from training.backtest import rolling_forecasts
from training.checkpoint import LAST, WEIGHTS, save_weights
from training.config import RunConfig
from training.device import amp_dtype
from training.economy import economical
from training.errors import TrainingError
from training.forecaster import Forecaster
from training.loss import pinball_loss
from training.metrics import wql
from training.metrics_log import METRICS, MetricsLog
from training.quantile_model import QuantileModel
from training.resume import Progress, load_progress, save_progress
from training.windows import Split, WindowSource

_WARM_UP = 0.05

OnBatch = Callable[[int, torch.Tensor], None]
"""Called after every step with the number of windows and the step's loss, still on the device."""
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
    """Train a forecaster; the best weights end up in the model and in the folder.

    Where `config.fit.start` says that it begins with the weights of an earlier run, they count as epoch 0.

    Args:
        model: the forecaster, scaling fitted.
        source: windows of the series, on the device to train on.
        split: origins; only train and validation are read. Without validation the training loss chooses the best epoch,
            and no line has a `validation_wql`.
        config: its `fit` part drives the loop, all of it is saved.
        folder: run folder, exists.
        fingerprint: of the trace; a run is resumed on the same one only.
        resume: go on from the folder's last whole epoch, where there is one.
        on_batch: see `OnBatch`.
        on_epoch: see `OnEpoch`.

    Raises:
        TrainingError: the loss is no longer finite.
        CheckpointError: the saved state can't be resumed.
    """
    fabric = Fabric(accelerator=source.device.type, devices=[source.device.index or 0] if source.device.index else 1)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.fit.learning_rate, weight_decay=config.fit.weight_decay)
    progress = Progress(history=[])
    if resume and (folder / LAST).exists():
        progress = load_progress(
            folder / LAST, model=model, optimizer=optimizer, config=config, fingerprint=fingerprint
        )
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    half = amp_dtype(source.device) if config.fit.precision == "amp" else None
    scaler = torch.amp.GradScaler(source.device.type, enabled=half == torch.float16)  # else it passes through
    wrapped.mark_forward_method("scaled_quantiles")
    levels = torch.tensor(model.levels, device=source.device)
    by_size = config.fit.by_size and config.data.series == "load"
    origins = torch.from_numpy(split.train)
    batches = math.ceil(len(origins) / config.fit.batch_size)
    if not progress.epoch and (config.fit.start or model.anchored) and len(split.validation):
        progress.best_wql = validation_wql(model, source, split.validation)  # training may add nothing to what is there
        save_weights(folder / WEIGHTS, model)
    metrics = MetricsLog(
        folder / METRICS, history=progress.history, step=progress.epoch * batches, device=source.device
    )
    while progress.epoch < config.fit.epochs and not stopped_early(progress, patience=config.fit.patience):
        started = time.perf_counter()
        torch.manual_seed(config.fit.seed * 1_000_003 + progress.epoch)
        order = origins[torch.randperm(len(origins))].to(source.device)
        total = torch.zeros((), device=source.device)
        model.train()
        for index, picks in enumerate(order.split(config.fit.batch_size)):
            rate = config.fit.learning_rate * _schedule(
                (progress.epoch * batches + index + 1) / (config.fit.epochs * batches)
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            context, time_s, target = source.gather(picks)
            with economical(model.network, dtype=half, recompute=config.fit.gradient_checkpointing):
                quantiles = wrapped.scaled_quantiles(context, time_s)
            spread = model.spread
            weight = model.importance(context) if by_size else None
            loss = pinball_loss(quantiles / spread[:, None], model.targets(target) / spread, levels, weight)
            wrapped_optimizer.zero_grad()
            fabric.backward(scaler.scale(loss))
            scaler.unscale_(wrapped_optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.fit.clip_norm, foreach=True)
            scaler.step(wrapped_optimizer)
            scaler.update()
            total += loss.detach()
            step = progress.epoch * batches + index + 1
            metrics.on_step(progress.epoch + 1, step, windows=len(picks), loss=loss.detach(), learning_rate=rate)
            on_batch(len(picks), loss.detach())
        seconds = time.perf_counter() - started
        line = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * batches,
            "train_loss": float(total) / batches,
            "learning_rate": rate,
            "windows_per_s": len(origins) / seconds,
            "seconds": seconds,
        }
        if len(split.validation):
            line["validation_wql"] = validation_wql(model, source, split.validation)
        score = line.get("validation_wql", line["train_loss"])
        if not math.isfinite(line["train_loss"]) or not math.isfinite(score):
            raise TrainingError(
                f"{folder.name}: expected a finite loss, got {line['train_loss']} in epoch {progress.epoch + 1}; "
                "lower --set learning_rate, or look at the trace with fcast-trace describe"
            )
        progress.epoch += 1
        progress.history.append(metrics.stamped(line))
        if score < progress.best_wql:
            progress.best_wql, progress.best_epoch = score, progress.epoch
            save_weights(folder / WEIGHTS, model)
        save_progress(folder / LAST, progress, model=model, optimizer=optimizer, config=config, fingerprint=fingerprint)
        metrics.on_epoch(progress.history[-1])
        on_epoch(progress.history[-1])
    return progress


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
