"""The processes that train one model together: one, or as many as `torchrun` started, on one node or on several.

Every process sees the same batches in the same order and takes its share of each, so that the weights are those of one
process with the same batches. The first process alone reads and writes files and prints.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from training.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which of how many processes this one is.

    Attributes:
        rank: 0 for the first.
        size: how many there are.
        local_rank: the same among those on this node.
        local_size: how many on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that reads and writes files and prints."""
        return self.rank == 0

    def share(self, picks: torch.Tensor) -> tuple[torch.Tensor, int]:
        """This process's part of a batch and how many of its windows count.

        A batch with fewer windows than there are processes leaves some without: they take one that does not count, as
        every process has to come to the same sums.
        """
        if self.size == 1:
            return picks, len(picks)
        own = picks.tensor_split(self.size)[self.rank]
        return (own, len(own)) if len(own) else (picks[:1], 0)

    def require_one(self, what: str) -> None:
        """Refuse to work in several processes.

        Raises:
            ConfigError: there are several.
        """
        if self.size > 1:
            raise ConfigError(f"{what}: expected one process, got {self.size} of torchrun; run it without torchrun")


def this_world() -> World:
    """The world as `torchrun` describes it in the environment; one process without it.

    Raises:
        ConfigError: the description is not complete.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, size, local_rank, local_size = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"environment: expected {', '.join(names)} of torchrun, got {error}; use torchrun") from error
    if size % local_size:
        raise ConfigError(
            f"torchrun: expected as many processes on every node, got {local_size} of {size} on this one; "
            "give the same --nproc_per_node everywhere"
        )
    return World(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


def join(world: World, device: torch.device) -> Fabric:
    """Lightning Fabric for a device, connected with the other processes where there are any."""
    if world.size == 1:
        return Fabric(accelerator=device.type, devices=[device.index or 0] if device.index else 1)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it greets in every process
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device.type,
        devices=world.local_size,
        num_nodes=world.size // world.local_size,
        strategy="ddp",
    )
    fabric.launch()
    return fabric


def agree(world: World, fabric: Fabric, value: int) -> int:
    """The largest of a number that every process has."""
    if world.size == 1:
        return value
    found = fabric.all_reduce(torch.tensor(float(value), dtype=torch.float64, device=fabric.device), reduce_op="max")
    assert isinstance(found, torch.Tensor)
    return int(found)


def from_first(world: World, fabric: Fabric, value: T) -> T:
    """What the first process has, in every process."""
    return value if world.size == 1 else fabric.broadcast(value)
