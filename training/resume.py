"""How far a training run has come: saved after every epoch and within long ones, restored to the bit."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from training.checkpoint import SCHEMA, parse_tensors, set_weights, write_atomically
from training.config import RunConfig
from training.errors import CheckpointError
from training.steps import Stepper
from training.world import World, from_first

HOW = ("device", "compile", "micro_batch", "checkpoint_s")
"""Settings that change how a result is reached, not the result: a run may be resumed with others."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a training run has come.

    Attributes:
        epoch: whole epochs done.
        step: steps done in the epoch that runs.
        loss_sum: of these steps.
        seconds: spent on these steps.
        slower: factor of the learning rate; below 1 once the loss was not finite.
        best_epoch: the epoch, from 1, of the best validation score; 0 before any.
        best_wql: that score.
        history: one dict per epoch, the lines of `metrics.jsonl`.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    slower: float = 1.0
    best_epoch: int = 0
    best_wql: float = float("inf")
    history: list[dict[str, Any]]

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.step:
            return f"epoch {self.epoch + 1}, step {self.step}"
        return f"the end of epoch {self.epoch}" if self.epoch else "the start"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastState:
    """The file from which a run goes on; the first process alone reads and writes it.

    Attributes:
        path: of the file.
        stepper: whose weights and optimizer it holds.
        world: the processes.
        config: of the run.
        fingerprint: of the trace.
    """

    path: Path
    stepper: Stepper
    world: World
    config: RunConfig
    fingerprint: str

    def save(self, progress: Progress) -> None:
        """Save everything needed to go on from here, as one file.

        Raises:
            OSError: it can't be written; the file of before is still there, and the message says what to do.
        """
        if not self.world.is_first:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.stepper.model.state_dict().items()}
        for index, slots in self.stepper.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        facts = {
            "schema": SCHEMA,
            "config": self.config.to_dict(),
            "trace": self.fingerprint,
            "scaler": self.stepper.scaler.state_dict(),
            **{item.name: getattr(progress, item.name) for item in fields(progress)},
        }
        write_atomically(self.path, save_tensors(tensors, metadata={"progress": json.dumps(facts)}))

    def load(self, *, wanted: bool = True) -> Progress | None:
        """Restore weights, optimizer and progress, in every process.

        Args:
            wanted: of the first process: whether to look at the file at all.

        Returns:
            None where there is no file.

        Raises:
            CheckpointError: the file is damaged, of another schema, or of a run with other settings or another trace.
        """
        data = None
        if self.world.is_first and wanted and self.path.exists():
            data = self.path.read_bytes()
        data = from_first(self.world, self.stepper.fabric, data)
        return None if data is None else self._restore(data)

    def _restore(self, data: bytes) -> Progress:
        tensors = parse_tensors(data, where=self.path)
        length = int.from_bytes(data[:8], "little")
        try:
            facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["progress"])
            schema, saved, trace = facts["schema"], RunConfig.from_dict(facts["config"]), facts["trace"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path}: expected a saved run, got other tensors; start over with --overwrite"
            ) from error
        if schema != SCHEMA:
            raise CheckpointError(f"{self.path}: expected schema {SCHEMA}, got {schema}; start over with --overwrite")
        check_same_run(self.path, saved=saved, wanted=self.config, saved_trace=trace, trace=self.fingerprint)
        weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".")
                state.setdefault(int(index), {})[slot] = tensor
        set_weights(self.stepper.model, weights, where=str(self.path))
        optimizer = self.stepper.optimizer
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if facts.get("scaler"):
            self.stepper.scaler.load_state_dict(facts["scaler"])
        known = {item.name for item in fields(Progress)}
        return Progress(**{name: value for name, value in facts.items() if name in known})


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process; a lock that ends with it, however it ends.

    Raises:
        CheckpointError: another process trains in it.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise CheckpointError(
            f"{folder}: expected no other process that trains here, got one; wait for it, or choose another --out"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        for left in (*folder.glob(".*.part"), *folder.glob("*/.*.part")):  # of a killed process
            left.unlink()
        yield
    finally:
        os.close(held)


def check_same_run(path: Path, *, saved: RunConfig, wanted: RunConfig, saved_trace: str, trace: str) -> None:
    """Check that a saved run has the settings and the trace asked for; what is in `HOW` may differ.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    if saved_trace != trace:
        raise CheckpointError(
            f"{path}: expected a run on this trace ({trace[:12]}), got one on another ({saved_trace[:12]}); "
            "give the same files and --clean, or start over with --overwrite"
        )
    ours, theirs = wanted.to_dict(), saved.to_dict()
    for part in ours:
        for key, value in ours[part].items():
            if key not in HOW and value != theirs[part][key]:
                raise CheckpointError(
                    f"{path}: expected {key} = {value}, got {theirs[part][key]} in the saved run; "
                    "repeat its settings, or start over with --overwrite"
                )
