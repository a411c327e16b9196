"""One step of training on one batch, in as many parts and processes as memory and machines ask for.

The gradient is that of the mean loss over the whole batch, however it is divided: parts of a batch are accumulated,
processes add theirs up. Where memory runs out, the same step is made again in parts of half the size.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from training.config import RunConfig
from training.device import free_cached_memory, half_dtype, is_out_of_memory, seed_device
from training.economy import Economy
from training.forecaster import Forecaster
from training.loss import pinball_loss
from training.windows import WindowSource
from training.world import World, agree, join

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """What one process does of a step: `counted` of its `own` windows, of a batch of so many; `seed` is of dropout."""

    own: torch.Tensor
    counted: int
    batch: int
    seed: int


class Stepper:
    """A forecaster with its optimizer.

    Attributes:
        model: the forecaster.
        optimizer: AdamW.
        scaler: of float16 gradients; passes others through.
        half: 16-bit type of the products; None for 32 bits.
        fabric: Lightning Fabric, which connects the processes.
        micro_batch: windows of a part; 0 for the whole batch.
        whole: False while weights and optimizer are between two steps.
    """

    def __init__(self, model: Forecaster, source: WindowSource, world: World, *, config: RunConfig) -> None:
        """Set up the optimizer, and the connection to the other processes.

        Args:
            model: on the source's device.
            source: windows of the series.
            world: the processes.
            config: its `fit` part drives the steps.
        """
        fit = config.fit
        self.model, self._source, self._world, self._fit = model, source, world, fit
        self.fabric = join(world, source.device)
        decayed = [p for p in model.parameters() if p.dim() > 1]
        plain = [p for p in model.parameters() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=fit.learning_rate, weight_decay=fit.weight_decay)
        self.half = half_dtype(fit.precision, source.device)
        self.scaler = torch.amp.GradScaler(source.device.type, enabled=self.half == torch.float16)
        self._economy = Economy(
            model.network, dtype=self.half, recompute=fit.gradient_checkpointing, compiled=fit.compile
        )
        self._wrapped, self._wrapped_optimizer = self.fabric.setup(model, self.optimizer)
        self._wrapped.mark_forward_method("scaled_quantiles")
        self._levels = torch.tensor(model.levels, device=source.device)
        self._by_size = fit.by_size and config.data.series == "load"
        self.micro_batch = fit.micro_batch
        self.whole = True

    def settle(self, picks: torch.Tensor) -> None:
        """Find the largest parts that fit in every process; once, before the first step.

        A single process finds out while it trains. Several have to agree before any of them waits for the others.

        Args:
            picks: (B,) origins of the first batch.
        """
        if self._world.size == 1:
            return
        self.model.train()
        self._in_parts(self._share(picks, seed=0), connected=False)
        self.optimizer.zero_grad()
        smallest = -agree(self._world, self.fabric, -(self.micro_batch or len(picks)))
        if smallest < len(picks) and smallest != self.micro_batch:
            self.micro_batch = smallest
            _log.warning("parts of %d windows at a time, the most that fits in every process", smallest)

    def take(self, picks: torch.Tensor, *, rate: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one step; `whole` is False afterwards, until the caller has counted the step.

        Args:
            picks: (B,) origins of the whole batch, the same in every process.
            rate: learning rate.
            seed: of dropout in this step.

        Returns:
            The mean loss of the batch, and the norm of the gradient before clipping; both on the device and the same
            in every process. With float16, 0 stands for a norm that is not finite: such a step is left out.

        Raises:
            torch.OutOfMemoryError: one window is too much, or there are other processes, which can't begin again.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._in_parts(self._share(picks, seed=seed), connected=True)
        if self._world.size > 1:
            loss = self._sum(loss)
        self.scaler.unscale_(self._wrapped_optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._fit.clip_norm, foreach=True)
        if self.scaler.is_enabled():
            norm = norm.nan_to_num(0.0, 0.0, 0.0)
        self.whole = False
        self.scaler.step(self._wrapped_optimizer)
        self.scaler.update()
        return loss, norm

    def _share(self, picks: torch.Tensor, *, seed: int) -> _Share:
        own, counted = self._world.share(picks)
        return _Share(own=own, counted=counted, batch=len(picks), seed=seed * 1_009 + self._world.rank)

    def _in_parts(self, share: _Share, *, connected: bool) -> torch.Tensor:
        """Gradients of a share; `connected` with those of the other processes, which then can't begin again."""
        while True:
            try:
                return self._accumulate(share, connected=connected)
            except (RuntimeError, MemoryError) as error:
                if connected and self._world.size > 1:
                    raise
                windows = len(share.own)
                part = min(self.micro_batch or windows, windows)
                if self._economy.give_up_compiling(error):
                    continue
                if not is_out_of_memory(error) or part == 1:
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            # Out of the except block, whose error holds the tensors of the failed step.
            self.micro_batch = (part + 1) // 2
            self.optimizer.zero_grad()
            free_cached_memory(self._source.device)
            _log.warning(
                "out of memory with %d windows at a time (%s); the same batches in parts of %d from here on, the "
                "result is the same; --set micro_batch=%d begins so",
                part,
                reason,
                self.micro_batch,
                self.micro_batch,
            )

    def _accumulate(self, share: _Share, *, connected: bool) -> torch.Tensor:
        """Add up the gradients of the parts; gives this process's part of the batch's mean loss."""
        model, world, own = self.model, self._world, share.own
        seed_device(self._source.device, share.seed)
        self._wrapped_optimizer.zero_grad()
        parts = own.split(self.micro_batch or len(own))
        divided = len(parts) > 1 or world.size > 1
        size = self._mean_size(parts, share, connected=connected) if self._by_size and divided else None
        total = torch.zeros((), device=self._source.device)
        for index, part in enumerate(parts):
            context, time_s, target = self._source.gather(part)
            alone = not connected or index < len(parts) - 1
            with self.fabric.no_backward_sync(self._wrapped, enabled=alone) if world.size > 1 else nullcontext():
                with self._economy:
                    quantiles = self._wrapped.scaled_quantiles(context, time_s)
                spread = model.spread
                weight = model.importance(context, size) if self._by_size else None
                loss = pinball_loss(quantiles / spread[:, None], model.targets(target) / spread, self._levels, weight)
                if divided:
                    loss = loss * (len(part) * share.counted / (len(own) * share.batch))
                # Between processes the mean of the gradients is taken, where the sum is wanted.
                self.fabric.backward(self.scaler.scale(loss * world.size if world.size > 1 else loss))
            total += loss.detach()
        return total

    @torch.no_grad()
    def _mean_size(self, parts: tuple[torch.Tensor, ...], share: _Share, *, connected: bool) -> torch.Tensor:
        """The mean size of the windows of the whole batch, (1, C), to which each one's importance refers."""
        sums = torch.stack([self.model.scaling.size(self._source.gather(part)[0]).sum(0) for part in parts])
        found = sums.sum(0) * (share.counted / (len(share.own) * share.batch))
        return self._sum(found) if connected and self._world.size > 1 else found

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over the processes."""
        found = self.fabric.all_reduce(value, reduce_op="sum")
        assert isinstance(found, torch.Tensor)
        return found
