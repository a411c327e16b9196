"""How long each stage of an export took, and what is shown of it on a terminal meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

OnStage = Callable[[str], None]


class Stages:
    """Seconds by stage, in order; what runs twice is added up."""

    def __init__(self, on_stage: OnStage | None) -> None:
        """Set up.

        Args:
            on_stage: called with a few words when a stage begins.
        """
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        """Measure a stage.

        Args:
            name: the key in `seconds`.
            doing: what `on_stage` is told.
        """
        if self._on_stage is not None:
            self._on_stage(doing)
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started


@contextmanager
def shown_on_terminal() -> Iterator[OnStage | None]:
    """Show the stage under way on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    # The stream itself: an exporter's own output is caught by putting another one in its place.
    with Console(file=sys.stderr).status("loading the checkpoint") as status:
        yield status.update
