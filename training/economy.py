"""Training in less memory and time: 16-bit products and recomputed activations, around the architecture alone.

Scaling, head and loss stay in 32 bits: a raw context or a time of day in 16 bits would be another number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def economical(network: nn.Module, *, dtype: torch.dtype | None, recompute: bool) -> Iterator[None]:
    """Run a network's forward passes inside this context economically.

    Args:
        network: the architecture.
        dtype: 16-bit type of its matrix products (autocast); None for 32 bits.
        recompute: forget activations and compute them again in the backward pass (Chen et al. 2016, "Training Deep
            Nets with Sublinear Memory Cost", arXiv:1604.06174), layer by layer where the network lists its layers in an
            `nn.ModuleList`, otherwise the network as a whole. Dropout draws the same numbers again.
    """
    with ExitStack() as stack:
        if recompute and torch.is_grad_enabled():
            for segment in _segments(network):
                stack.enter_context(_forward(segment, partial(checkpoint, segment.forward, use_reentrant=False)))
        if dtype is not None:
            stack.enter_context(_forward(network, partial(_in_half, network.forward, dtype)))
        yield


def _segments(network: nn.Module) -> list[nn.Module]:
    layers = [layer for part in network.modules() if isinstance(part, nn.ModuleList) for layer in part]
    inner = {id(below) for layer in layers for below in layer.modules() if below is not layer}
    return [layer for layer in layers if id(layer) not in inner] or [network]


def _in_half(forward: Callable[..., torch.Tensor], dtype: torch.dtype, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, dtype):
        return forward(x).float()


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Stand in for a module's forward; weights and their names stay as they are."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
