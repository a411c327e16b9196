"""What a stream carries from one forecast to the next before a stateful model, and how it is asked with it.

The state after the steps that were forecast from last stays with the stream; a forecast takes in only the steps since
then. It begins cold, from zeros and the last L steps, where there is no state to go on from: at the first L steps,
after a gap, before another version of the model, and when more than L steps came since. A state is never changed, only
replaced, and only by one that came with a valid answer.

Axes: L context, C channels, T steps, S numbers of a state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .device import first_line
from .manifest import Manifest
from .model import INVALID, Model, rows_are_valid
from .step import is_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .live import Asked

STATE = "state"
"""Where an answer has the state after it, beside the outputs of the graph."""


class Carried(NamedTuple):
    """A state, and what it is the state of."""

    manifest: Manifest
    """Of the model that it belongs to."""
    clears: int
    """`Ring.clears` of the stream then."""
    seen: int
    """`Ring.seen` of the stream then."""
    state: NDArray[np.float32]
    """(S,)."""

    def steps_since(self, manifest: Manifest, *, clears: int, seen: int) -> int | None:
        """Steps that it has not taken in; None where it is of another model, or from before a gap."""
        return seen - self.seen if self.manifest is manifest and self.clears == clears else None

    @staticmethod
    def newer(one: Carried | None, other: Carried) -> Carried:
        """That of the later steps: a slower thread must not take a state back."""
        if one is not None and one.manifest is other.manifest:
            return max(one, other, key=lambda carried: (carried.clears, carried.seen))
        return other


def answer(model: Model, asked: Asked) -> dict[str, NDArray[np.float32]] | None:
    """What the model gives for a stream, or None when it fails or is no forecast: see `Model.answer`.

    Of a stateful model with the state after it, under `STATE`.
    """
    step = model.step
    if step is None:
        return model.answer(asked[0], asked[1])
    rows, state = _question(asked)
    time_s = asked[1] if step.takes_time else None
    try:
        if len(rows) == 1:
            found, after, valid = step.run_one(rows, time_s, state)
        else:
            before = np.zeros(step.size, dtype=np.float32) if state is None else state
            outputs, states = step.run(rows[None], None if time_s is None else np.array([time_s]), before[None])
            found, after, valid = {name: output[0] for name, output in outputs.items()}, states[0], False
    except Exception as error:  # onnxruntime's classes stand under Exception alone
        model.fail("error", f"failed with {first_line(error)}")
        return None
    # A look at the bits takes -0.0 for less than 0.
    valid = valid or all(rows_are_valid(output[None])[0] for output in found.values())
    if not (valid and is_finite(after)):
        model.fail("invalid", INVALID)
        return None
    found[STATE] = after
    return found


def answers(model: Model, asked: Sequence[Asked]) -> list[dict[str, NDArray[np.float32]] | None]:
    """As `answer`, for several streams: those with equally many new steps in one run."""
    step = model.step
    if step is None:
        return model.answers(np.stack([one[0] for one in asked]), [one[1] for one in asked])
    alike: defaultdict[int, list[tuple[int, NDArray[np.float32], NDArray[np.float32] | None]]] = defaultdict(list)
    for at, one in enumerate(asked):
        rows, state = _question(one)
        alike[len(rows)].append((at, rows, state))
    found: list[dict[str, NDArray[np.float32]] | None] = [None] * len(asked)
    for group in alike.values():
        times = np.array([asked[at][1] for at, _, _ in group]) if step.takes_time else None
        states = np.zeros((len(group), step.size), dtype=np.float32)
        for i, (_, _, state) in enumerate(group):
            if state is not None:
                states[i] = state
        try:
            outputs, after = step.run(np.stack([rows for _, rows, _ in group]), times, states)
        except Exception as error:  # as above
            model.fail("error", f"failed with {first_line(error)}")
            continue
        good = np.logical_and.reduce([np.isfinite(after).all(1), *map(rows_are_valid, outputs.values())])
        if not good.all():
            model.fail("invalid", INVALID)
        for i, (at, _, _) in enumerate(group):
            if good[i]:  # copies: a view would keep all of them alive
                found[at] = {name: output[i].copy() for name, output in outputs.items()} | {STATE: after[i].copy()}
    return found


def _question(asked: Asked) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The steps to take in (T, C), and the state before them; None for a cold one."""
    history, _, _, _, _, seen, clears, _, manifest, _, carried = asked
    if carried is not None:
        steps = carried.steps_since(manifest, clears=clears, seen=seen)
        if steps is not None and 0 < steps <= len(history):
            return history[len(history) - steps :], carried.state
    return history, None
