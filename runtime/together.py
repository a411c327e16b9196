"""Forecasts of many streams at once: those that need the model go through it side by side.

What a batch saves is the way into ONNX Runtime and out, not the arithmetic: docs/runtime.md has the figures.

Axes: B windows, L context, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .forecast import Forecast
from .live import LiveStream
from .model import Model

PIECE = 64
"""Windows in one run at most: on a CPU more gain nothing, as they outgrow its caches, and every caller waits longer."""
_MAX_NUMBERS = 1 << 22
"""In the windows of one run: of very long contexts it takes fewer."""


def forecast_together(model: Model, streams: Sequence[LiveStream], now_s: float | None) -> list[Forecast]:
    """One forecast for each stream, in their order, of what each had seen when the call came.

    One lock is held at a time, and none while the model runs.

    Args:
        model: that of the streams.
        streams: each once.
        now_s: as `Predictor.forecast`.

    Raises:
        InputError: `now_s` is no time; every stream is as before.
    """
    found: dict[LiveStream, Forecast] = {}
    due = []
    for stream in streams:
        asked = stream.ask(now_s)
        if isinstance(asked, Forecast):
            found[stream] = asked
        elif asked[2]:
            due.append((stream, asked))
        else:
            found[stream] = stream.settle(asked, None)
    piece = max(1, min(PIECE, _MAX_NUMBERS // model.window_numbers))
    for begin in range(0, len(due), piece):
        part = due[begin : begin + piece]
        windows = np.stack([asked[0] for _, asked in part])
        answers = model.answers(windows, [asked[1] for _, asked in part])
        for (stream, asked), answer in zip(part, answers, strict=True):
            found[stream] = stream.settle(asked, answer)
    return [found[stream] for stream in streams]
