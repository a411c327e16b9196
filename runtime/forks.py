"""What a forked child may not use: threads of ONNX Runtime and CUDA contexts do not come along.

A session with one thread on the CPU has none of either and works on. Of the others a run would hang for ever, or fail
somewhere in a driver; so in a child every one of them refuses. One hook for the process, set with the first of them.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn
from weakref import WeakSet

from .errors import DeviceError

_bound_to_this_process: WeakSet[Any] = WeakSet()
_hooked = False


def refuse_after_fork(session: Any) -> None:
    """Have a session's `take_binding` and `run` raise a DeviceError in children forked from now on."""
    global _hooked
    if not _hooked:
        _hooked = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_refuse_all)
    _bound_to_this_process.add(session)


def _refuse_all() -> None:
    for session in _bound_to_this_process:
        session.take_binding = session.run = _refuse
    _bound_to_this_process.clear()


def _refuse(*_: Any) -> NoReturn:
    raise DeviceError(
        "fork: expected the process that loaded the model, or device='cpu' and threads=1, got a forked child of it, "
        "where neither the threads of onnxruntime nor CUDA work; make the Predictor in the child, or spawn"
    )
