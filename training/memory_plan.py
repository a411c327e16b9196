"""How much memory a training will need, said before it starts.

What a step keeps for the backward pass is counted on a few windows, for any architecture; what it needs besides was
measured on a CPU (`python -m benchmarks.memory_plan --calibrate`) and is a factor per model. The factors of GPUs have
not been measured.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from training.config import RunConfig
from training.device import free_cached_memory, half_dtype, in_units, peak_bytes, usable_bytes, used_bytes
from training.economy import Economy, segments
from training.forecaster import Forecaster
from training.loss import pinball_loss
from training.windows import Split, WindowSource
from training.world import World

_FACTORS = {"lstm": 1.0, "gru": 1.75, "transformer": 1.15, "dlinear": 1.0, "multiscale": 1.6}
"""Most bytes in use during a step on a CPU, by those kept for the backward pass."""
_OTHER_FACTOR = 1.5
_PER_INPUT = 4.0
"""Bytes in use during a step by those of the architecture's input: scaling, anchor and loss."""
_PER_FORECAST = 3.0
"""Bytes in use when a part is scored, by those of its forecasts."""
_FEW = 4
_SHARE = 0.9  # of what can be used, that is used

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What a training needs and what there is.

    Attributes:
        device: where.
        needed_bytes: peak of this process, what it has already used included.
        usable_bytes: what it may use.
        micro_batch: windows at a time, so that it fits; 0 for a whole batch.
    """

    device: torch.device
    needed_bytes: int
    usable_bytes: int
    micro_batch: int

    def say(self, name: str) -> None:
        """One line to the log."""
        less = f"; {self.micro_batch} windows of a batch at a time, with the same result" if self.micro_batch else ""
        if self.needed_bytes > self.usable_bytes:
            less = "; end other programs, or give a smaller --context, --set batch_size or micro_batch"
        _log.info(
            "%s: training needs about %s of the %s that this process can use on %s%s",
            name,
            in_units(self.needed_bytes),
            in_units(self.usable_bytes),
            self.device,
            less,
        )


def plan_memory(
    model: Forecaster, source: WindowSource, split: Split, *, config: RunConfig, world: World
) -> MemoryPlan:
    """Foresee the memory of a training; the model is as before afterwards.

    Args:
        model: on the source's device.
        source: windows of the series, already where they will be.
        split: origins.
        config: of the run.
        world: the processes that share a batch.
    """
    device, fit = source.device, config.fit
    window_bytes = _window_bytes(model, source, torch.from_numpy(split.train), config)
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    order_bytes = 3 * split.train.nbytes
    forecasts = max(len(split.validation), len(split.test)) * model.horizon * model.values * len(model.levels)
    scored_bytes = _PER_FORECAST * 4 * forecasts if device.type == "cpu" else 0
    batch = -(-min(fit.batch_size, len(split.train)) // world.size)
    free_cached_memory(device)
    fixed = used_bytes(device) + 3 * weights_bytes
    usable = usable_bytes(device) // (world.local_size if device.type == "cpu" else 1)

    def needed(windows: int) -> int:
        during = max(order_bytes + window_bytes * windows, scored_bytes)
        return max(int(fixed + during), peak_bytes(device))

    whole = part = min(fit.micro_batch or batch, batch)
    while part > 1 and needed(part) > _SHARE * usable:
        part = (part + 1) // 2
    if needed(part) > _SHARE * usable:  # parts are no help
        part = whole
    return MemoryPlan(
        device=device,
        needed_bytes=needed(part),
        usable_bytes=usable,
        micro_batch=part if part < batch else fit.micro_batch,
    )


def _window_bytes(model: Forecaster, source: WindowSource, origins: torch.Tensor, config: RunConfig) -> float:
    """Bytes that every window of a step needs."""
    name, fit = config.model.model, config.fit
    half = half_dtype(fit.precision, source.device)
    kept, inputs = _kept_bytes(model, source, origins, Economy(model.network, dtype=half, recompute=False))
    if fit.gradient_checkpointing:
        layers = segments(model.network)
        less, _ = _kept_bytes(model, source, origins, Economy(model.network, dtype=half, recompute=True))
        kept = less + (kept - less) / len(layers)
    return kept * _FACTORS.get(name, _OTHER_FACTOR) + inputs * _PER_INPUT


def _kept_bytes(
    model: Forecaster, source: WindowSource, origins: torch.Tensor, economy: Economy
) -> tuple[float, float]:
    """Bytes a window that the backward pass of a step will read, and those of the architecture's input."""
    inputs: list[int] = []
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    hook = model.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0].nbytes))
    found = []
    training = model.training
    model.train()
    for windows in (_FEW, 2 * _FEW):
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        context, time_s, target = source.gather(origins[torch.arange(windows) % len(origins)])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with economy:
                quantiles = model.scaled_quantiles(context, time_s)
            levels = torch.tensor(model.levels, device=source.device)
            pinball_loss(quantiles / model.spread[:, None], model.targets(target) / model.spread, levels)
        found.append(sum(kept.values()))
    hook.remove()
    model.train(training)
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    return max(found[1] - found[0], 0) / _FEW, inputs[-1] / (2 * _FEW)
