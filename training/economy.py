"""Training in less memory and time: 16-bit products, recomputed activations, compiled code; the architecture alone.

Scaling, head and loss stay in 32 bits: a raw context or a time of day in 16 bits would be another number. Fabric's own
precision would take the whole forecaster, and make the float64 times float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_log = logging.getLogger(__name__)
Forward = Callable[..., Any]


class Economy:
    """A context manager, to be entered as often as needed: a network's forward passes inside it are economical."""

    def __init__(
        self, network: nn.Module, *, dtype: torch.dtype | None, recompute: bool, compiled: bool = False
    ) -> None:
        """Prepare; the network is as before outside of the context.

        Args:
            network: the architecture.
            dtype: 16-bit type of its matrix products (autocast); None for 32 bits.
            recompute: forget activations and compute them again in the backward pass (Chen et al. 2016, "Training Deep
                Nets with Sublinear Memory Cost", arXiv:1604.06174), layer by layer where the network lists its layers
                in an `nn.ModuleList`, otherwise the network as a whole. Dropout draws the same numbers again.
            compiled: let `torch.compile` make the code; see `give_up_compiling`.
        """
        self._forwards: dict[nn.Module, Forward] = {}
        self._compiled: list[_Compiled] = []
        for part in segments(network) if recompute else [network]:
            forward: Forward = part.forward
            if compiled:
                self._compiled.append(forward := _Compiled(forward))
            self._forwards[part] = partial(_again, forward) if recompute else forward
        if dtype is not None:
            self._forwards[network] = partial(_in_half, self._forwards.get(network, network.forward), dtype)
        self._before: list[tuple[nn.Module, Forward | None]] = []

    def give_up_compiling(self, error: BaseException) -> bool:
        """Go on without `torch.compile`, and say so, where an error of a pass is the compiler's; whether it is."""
        if not any(one.works for one in self._compiled):
            return False
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            return False
        for one in self._compiled:
            one.works = False
        inner = getattr(error, "inner_exception", None) or error.__cause__ or error
        lines = [line.strip() for line in str(inner).splitlines() if line.strip()] or [type(inner).__name__]
        _log.warning("compile: expected torch.compile to work here, got: %s; training goes on without it", lines[0])
        return True

    def __enter__(self) -> None:
        for module, forward in self._forwards.items():
            self._before.append((module, module.__dict__.get("forward")))
            module.forward = forward

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            module, before = self._before.pop()
            del module.forward
            if before is not None:
                module.forward = before


class _Compiled:
    """`torch.compile` of a forward pass; the pass as it is once `works` is False."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._compiled: Forward | None = None
        self.works = True

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.works:
            return self._forward(*args, **options)
        if self._compiled is None:  # for each shape by itself: there are two, a whole batch and the rest of an epoch
            self._compiled = torch.compile(self._forward, dynamic=False)
        return self._compiled(*args, **options)


def segments(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are recomputed one by one: its outermost listed layers, or the whole of it."""
    layers = [layer for part in network.modules() if isinstance(part, nn.ModuleList) for layer in part]
    inner = {id(below) for layer in layers for below in layer.modules() if below is not layer}
    return [layer for layer in layers if id(layer) not in inner] or [network]


def _again(forward: Forward, *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **options)
    return checkpoint(forward, *args, use_reentrant=False, **options)


def _in_half(forward: Forward, dtype: torch.dtype, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, dtype):
        return forward(x).float()
