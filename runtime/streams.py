"""The streams of one predictor by key: made at the first use, let go when there are too many.

The one asked for the longest ago goes first. A caller may hold a stream and feed it without asking for it again, which
that order does not see: to count in `observe` would cost every observation. So letting go is no more than that:
while a caller holds a stream, it is still found under its key, and two histories of one key cannot arise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from .errors import InputError
from .fields import is_integer, show
from .live import LiveStream
from .manifest import Manifest
from .memory import Memory
from .serving import Serving
from .snapshot import Numbers

_MAX_KEY = 1 << 63


class Streams:
    """Streams of one predictor by key; every call is O(1) and may come from any thread.

    Args:
        serving: who is asked.
        adapt: as `Predictor`.
        breaker: as `Predictor`.
        max_streams: as `Predictor`.

    Raises:
        InputError: `max_streams` is no whole number from 1.
    """

    def __init__(self, serving: Serving, *, adapt: bool, breaker: bool, max_streams: int) -> None:
        if not is_integer(max_streams) or max_streams < 1:
            raise InputError(f"max_streams: expected a whole number from 1, got {show(max_streams)}")
        self._serving, self._adapt, self._breaker, self._max = serving, adapt, breaker, max_streams
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, LiveStream] = OrderedDict()  # the longest unused first
        self._let_go: WeakValueDictionary[Hashable, LiveStream] = WeakValueDictionary()

    def get(self, key: Hashable) -> LiveStream:
        """See `Predictor.stream`."""
        _check_hashable(key)
        with self._lock:
            stream = self._kept.get(key)
            if stream is None:
                stream = self._let_go.pop(key, None) or self._open()
                self._keep(key, stream)
            else:
                self._kept.move_to_end(key)
        return stream

    def forget(self, key: Hashable) -> bool:
        """See `Predictor.forget`."""
        _check_hashable(key)
        with self._lock:
            kept, let_go = self._kept.pop(key, None), self._let_go.pop(key, None)
        return kept is not None or let_go is not None

    def items(self) -> list[tuple[Hashable, LiveStream]]:
        """Every stream that is found under a key, the longest unused first."""
        with self._lock:
            return self._items()

    def write(self, manifest: Manifest, numbers: Numbers) -> list[dict[str, Any]]:
        """Of each stream its key and what it remembers, for a snapshot.

        Raises:
            InputError: a key cannot be written.
        """
        found = self.items()
        for key, _ in found:
            _check_writable(key, "give streams such keys where snapshots are to be taken")
        return [{"key": key, **stream.write(manifest, numbers)} for key, stream in found]

    def resume(self, keys: Sequence[Any], memories: Sequence[Memory]) -> None:
        """Have streams of these keys that remember this, and no others; the first go when there are too many.

        Raises:
            InputError: `write` gives no such keys; nothing has changed.
        """
        for key in keys:
            _check_writable(key, "take another snapshot")
        with self._lock:
            known = dict(self._items())
            self._kept.clear()
            self._let_go.clear()
            for key, remembered in zip(keys, memories, strict=True):
                stream = known.get(key) or self._open()
                stream.resume(remembered)
                self._keep(key, stream)

    def _open(self) -> LiveStream:
        return LiveStream(self._serving, adapt=self._adapt, breaker=self._breaker)

    def _items(self) -> list[tuple[Hashable, LiveStream]]:
        return [*self._let_go.items(), *self._kept.items()]

    def _keep(self, key: Hashable, stream: LiveStream) -> None:
        self._kept[key] = stream
        if len(self._kept) > self._max:
            oldest, gone = self._kept.popitem(last=False)
            self._let_go[oldest] = gone


def _check_hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError:
        raise InputError(f"key: expected something hashable, such as a text or a number, got {show(key)}") from None


def _check_writable(key: object, remedy: str) -> None:
    if type(key) is not str and not (type(key) is int and -_MAX_KEY <= key < _MAX_KEY):
        raise InputError(
            f"snapshot: expected keys that are texts or whole numbers of 64 bits, got {show(key)}; {remedy}"
        )
