"""A polite end: SIGTERM and Ctrl-C let the step that runs end and be saved.

Schedulers send SIGTERM before they kill. While a model is trained the signal waits for the end of the step; elsewhere
it ends the program at once. A second one always does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM; the exit code of the program is 143."""


class _State:
    waiting = False  # a step is being made
    asked: int = 0  # the signal that came meanwhile
    between_steps: bool = True  # handled there too


_state = _State()
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handled_signals(*, between_steps: bool = True) -> Iterator[None]:
    """Handle SIGTERM and SIGINT inside this context; for programs, not for libraries.

    Args:
        between_steps: also where no steps are made. A process that waits for others there, in native code, can't: it
            had better be ended by the system.
    """
    _state.between_steps = between_steps
    try:
        with _handlers(_handle) if between_steps else _handlers(signal.SIG_DFL):
            yield
    finally:
        _state.between_steps, _state.asked = True, 0


@contextmanager
def waiting_for_steps() -> Iterator[None]:
    """Inside this context a signal waits: until `asked` is looked at, or for its end."""
    _state.waiting = True
    try:
        with nullcontext() if _state.between_steps else _handlers(_handle):
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


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.waiting and not _state.asked:
        _state.asked = number
    else:
        raise _error(number)


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _error(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
