"""A model that is right about its stream, and ways to spoil it, for tests of the circuit breaker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from runtime import Forecast, Predictor
from tests.runtime.conftest import ARTIFACTS

Change = Callable[[np.ndarray], np.ndarray]
CENTRE, SIGMA = 6.0, 0.5
"""Of the logarithm of each number of each step: all independent."""
NUMBERS = np.exp(CENTRE + SIGMA * np.random.default_rng(11).standard_normal((20_000, 3))).astype(np.float32)
SPOILT: dict[str, Change] = {
    "100x off": lambda values: values * 100,
    "halved": lambda values: values / 2,
    "constant": lambda values: np.full_like(values, 1e6),
    "silent": np.zeros_like,
    "narrow": lambda values: np.repeat(values[..., 3:4], values.shape[-1], axis=-1),
}


class Host:
    """A predictor fed with `NUMBERS`, whose model says what is true of them, unless it is spoilt.

    Args:
        name: of a stand-in artifact, or a folder.
        options: for `Predictor`.

    Attributes:
        p: the predictor.
        spoil: what is made of the model's values; None while it is right.
        asked: how often the model was.
        fed: steps so far.
    """

    def __init__(self, name: str | Path = "requests", **options: Any) -> None:
        self.p = Predictor(ARTIFACTS / name, device="cpu", **options)
        self.spoil: Change | None = None
        self.asked = self.fed = 0
        self.stand_in()

    def stand_in(self) -> None:
        """Have the model in service say what is true, in place of its graph."""
        model = self.p._model
        m = model.manifest
        normal = NormalDist()
        z = np.array([normal.inv_cdf(level) for level in m.levels])
        ratio = m.steps_per_forecast_step
        # A sum of many is close to normal; of one it is what it is.
        mean, deviation = np.exp(CENTRE + SIGMA**2 / 2), np.exp(CENTRE + SIGMA**2 / 2) * np.sqrt(np.expm1(SIGMA**2))
        row = np.exp(CENTRE + SIGMA * z) if ratio == 1 else ratio * mean + np.sqrt(ratio) * deviation * z
        truth = np.broadcast_to(row, (m.horizon, len(m.channels), len(z))).astype(np.float32)

        def answer(window: np.ndarray, time_s: float | None) -> dict[str, np.ndarray]:
            self.asked += 1
            return {"forecast": truth.copy() if self.spoil is None else self.spoil(truth).astype(np.float32)}

        model.answer = answer  # type: ignore[method-assign, assignment]
        model.answers = lambda windows, times: [answer(w, t) for w, t in zip(windows, times, strict=True)]  # type: ignore[method-assign, assignment, misc]

    def observe(self, stream: Any = None) -> np.ndarray:
        """Give the next step; the row of it."""
        stream = self.p if stream is None else stream
        m, row = self.p._model.manifest, NUMBERS[self.fed]
        if m.bin_s is not None:
            stream.observe_bin(self.fed * m.bin_s, *row[: len(m.channels)].tolist())
        else:
            at_s = float(NUMBERS[: self.fed + 1, 0].astype(np.float64).sum())
            if self.fed == 0:
                stream.observe(0.0, 1, 1)
            stream.observe(at_s, *row[1:].tolist())
        self.fed += 1
        return row

    def run(self, steps: int) -> list[Forecast]:
        """Steps, and the forecast after each."""
        found = []
        for _ in range(steps):
            self.observe()
            found.append(self.p.forecast())
        return found

    def window(self) -> np.ndarray:
        """What the next forecast is made from."""
        return self.p._live._stream.steps.last(self.p._model.manifest.context).copy()
