"""`fcast-predict --snapshot FILE`: go on from the file, and write it again however the pipe ends, between two lines."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import InputError
from .predictor import Predictor

_SIGNALS = signal.SIGTERM, signal.SIGINT


class SnapshotFile:
    """What a predictor remembers, in a file: read on the way into the block, written on the way out.

    In the block SIGTERM and SIGINT wait until the line at hand is done: half a change must not be written. The main
    thread alone can use it.

    Args:
        path: of the file, which need not be there yet; None to keep nothing.
        predictor: new.
    """

    def __init__(self, path: str | None, predictor: Predictor) -> None:
        self._path, self._predictor = None if path is None else Path(path), predictor
        self._busy = False
        self._signal: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> SnapshotFile:
        """Raises InputError: the file cannot be read, or holds no snapshot for this predictor."""
        if self._path is not None:
            try:
                self._predictor.restore(self._path.read_bytes())
            except FileNotFoundError:
                pass
            except (OSError, InputError) as error:
                raise InputError(f"{self._path}: {error}; remove the file to begin anew") from None
            self._before = [signal.signal(number, self._stop) for number in _SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Raises InputError: the file cannot be written."""
        if self._path is not None:
            self._busy = True
            self._write(self._path)
            for number, before in zip(_SIGNALS, self._before, strict=True):
                signal.signal(number, before)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let a signal wait until the block is done."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._signal is not None:
            sys.exit(128 + self._signal)

    def _stop(self, number: int, _: Any) -> None:
        self._signal = number
        if not self._busy:
            sys.exit(128 + number)

    def _write(self, path: Path) -> None:
        """Put the file in its place whole, or leave the one before."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file:
                file.write(self._predictor.snapshot())
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise InputError(f"{path}: expected room for a snapshot, got {error.strerror or error}") from None
