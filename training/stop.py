"""A polite end: SIGTERM and Ctrl-C let the step that runs end and be saved.

Schedulers send SIGTERM before they kill. While a model is trained the signal waits for the end of the step; elsewhere
it ends the program at once. A second one always does.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM; the exit code of the program is 143."""


class _State:
    waiting = False  # a step is being made
    asked: int = 0  # the signal that came meanwhile


_state = _State()


@contextmanager
def handled_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGINT inside this context; for programs, not for libraries."""

    def handle(number: int, frame: FrameType | None) -> None:
        if _state.waiting and not _state.asked:
            _state.asked = number
        else:
            raise _error(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.asked = 0


@contextmanager
def waiting_for_steps() -> Iterator[None]:
    """Inside this context a signal waits: until `asked` is looked at, or for its end."""
    _state.waiting = True
    try:
        yield
    finally:
        _state.waiting = False
    if _state.asked:
        stop(_state.asked)


def asked() -> int:
    """The signal that waits; 0 for none."""
    return _state.asked


def stop(number: int) -> None:
    """End for a signal.

    Raises:
        KeyboardInterrupt: `Terminated` for SIGTERM.
    """
    raise _error(number)


def _error(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
