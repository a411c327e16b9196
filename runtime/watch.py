"""A thread that looks for newer versions of an artifact now and then."""

from __future__ import annotations

import atexit
import threading
import weakref

from .errors import InputError
from .fields import show
from .inputs import number
from .reload import Reload


class Watch:
    """Looks at once and then every so often, until `close`, the end of the process, or that of the predictor.

    A fork leaves threads behind: the child has none, and may begin one of its own.

    Args:
        reload: what looks.
        every_s: seconds between two looks.

    Raises:
        InputError: `every_s` is no number above 0.
    """

    def __init__(self, reload: Reload, every_s: float) -> None:
        if not 0 < number("every_s", every_s) <= threading.TIMEOUT_MAX:
            raise InputError(f"every_s: expected seconds above 0, got {show(every_s)}")
        self._stop = threading.Event()
        # Weak: a predictor that nobody holds goes, and its thread with the next look.
        args = (weakref.ref(reload), self._stop, float(every_s))
        self._thread = threading.Thread(target=_look, args=args, name="fcast-watch", daemon=True)
        self._thread.start()
        # A thread inside ONNX Runtime while the process takes it down would crash.
        atexit.register(self.close)

    def close(self) -> None:
        """Stop, after a look under way."""
        if self._thread.is_alive():  # not in a forked child, where nobody would let go of what the thread held
            self._stop.set()
            self._thread.join()
        atexit.unregister(self.close)


def _look(reload: weakref.ref[Reload], stop: threading.Event, every_s: float) -> None:
    while (found := reload()) is not None:
        found.look()
        del found
        if stop.wait(every_s):
            return
