"""Forecasts of many streams at once: those that need the model go through it side by side.

What a batch saves is the way into ONNX Runtime and out, not the arithmetic: docs/runtime.md has the figures.

Axes: B windows, L context, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .carried import answers
from .forecast import Forecast
from .live import Asked, LiveStream
from .model import Model

PIECE = 64
"""Windows in one run at most: on a CPU more gain nothing, as they outgrow its caches, and every caller waits longer."""
_MAX_NUMBERS = 1 << 22
"""In the windows of one run: of very long contexts it takes fewer."""


def forecast_together(model: Model, streams: Sequence[LiveStream], now_s: float | None) -> list[Forecast]:
    """One forecast for each stream, in their order.

    One lock is held at a time, and none while the model runs.

    Args:
        model: in service before the streams; it answers all of them, whatever comes into service meanwhile.
        streams: each once.
        now_s: as `Predictor.forecast`.

    Raises:
        InputError: `now_s` is no time; every stream is as before.
    """
    piece = max(1, min(PIECE, _MAX_NUMBERS // model.window_numbers))
    found: dict[LiveStream, Forecast] = {}
    due: list[tuple[LiveStream, Asked]] = []
    for stream in streams:
        asked = stream.ask(model.manifest, now_s)
        if isinstance(asked, Forecast):
            found[stream] = asked
        elif not asked[2]:
            found[stream] = stream.settle(asked, None)
        else:
            due.append((stream, asked))
            if len(due) == piece:
                found.update(_settle(model, due))
                due.clear()
    if due:
        found.update(_settle(model, due))
    return [found[stream] for stream in streams]


def _settle(model: Model, due: Sequence[tuple[LiveStream, Asked]]) -> Iterator[tuple[LiveStream, Forecast]]:
    for (stream, asked), answer in zip(due, answers(model, [asked for _, asked in due]), strict=True):
        yield stream, stream.settle(asked, answer)
