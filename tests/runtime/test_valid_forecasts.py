"""Whatever the graph gives, a forecast is finite, not negative and ordered; what is none of these is never served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime import Predictor
from runtime.binding import Binding
from runtime.device import Session

BAD = {
    "falls": lambda o: o.__setitem__((..., 3), o[..., 2] - 1e-3),
    "falls at the end": lambda o: o.__setitem__((-1, -1, -1), o[-1, -1, -2] / 2),
    "falls at the start": lambda o: o.__setitem__((0, 0, 1), 0.0),
    "is negative": lambda o: o.__setitem__((0, 0, 0), -1.0),
    "is all negative": lambda o: np.negative(o, out=o),
    "is NaN": lambda o: o.__setitem__((1, 0, -1), np.nan),
    "is NaN within": lambda o: o.__setitem__((1, 0, 2), np.nan),
    "is infinite": lambda o: o.__setitem__((1, 0, -1), np.inf),
    "is minus infinite": lambda o: o.__setitem__((0, 0, 0), -np.inf),
}


def spoil(monkeypatch: pytest.MonkeyPatch, output: str, change: Any) -> None:
    """Let the graph give something else."""
    run_one, run_many = Binding.run, Session.run

    def one(self: Binding) -> None:
        run_one(self)
        change(dict(self._views)[output])

    def many(self: Session, *arrays: Any) -> Any:
        found = {k: v.copy() for k, v in run_many(self, *arrays).items()}
        change(found[output][0])
        return found

    monkeypatch.setattr(Binding, "run", one)
    monkeypatch.setattr(Session, "run", many)


def feed(p: Any) -> None:
    for i in range(20):
        p.observe_bin(10.0 * i, 5 + i % 3, 100, 50)


@pytest.mark.parametrize("output", ["forecast", "demand"])
@pytest.mark.parametrize("bad", BAD)
def test_an_invalid_answer_is_replaced(
    demand: Predictor, monkeypatch: pytest.MonkeyPatch, bad: str, output: str
) -> None:
    feed(demand)
    spoil(monkeypatch, output, BAD[bad])
    with pytest.warns(RuntimeWarning, match="gave numbers that are negative, not finite, or not in the order"):
        assert demand.forecast().source == "fallback:empirical"
    assert demand.stats()["failures"] == {"invalid": 1}


@pytest.mark.parametrize("bad", BAD)
def test_an_invalid_answer_takes_no_other_of_its_batch_along(
    demand: Predictor, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    for key in range(3):
        feed(demand.stream(key))
    spoil(monkeypatch, "forecast", BAD[bad])
    with pytest.warns(RuntimeWarning, match="not in the order of the levels"):
        found = demand.forecast_many(range(3))
    assert [f.source for f in found.values()] == ["fallback:empirical", "model", "model"]


GOOD = {
    "zero": lambda o: o.fill(0.0),
    "minus zero": lambda o: o.fill(-0.0),
    "both zeros": lambda o: (o.fill(0.0), o.__setitem__((..., 1), -0.0)),
    "equal": lambda o: o.fill(7.0),
    "the largest": lambda o: o.fill(np.finfo(np.float32).max),
    "lower in the next step": lambda o: o.__setitem__(-1, 0.0),
    "tiny": lambda o: o.fill(np.float32(1e-45)),
}


@pytest.mark.parametrize("good", GOOD)
def test_a_valid_answer_is_served(demand: Predictor, monkeypatch: pytest.MonkeyPatch, good: str) -> None:
    feed(demand)
    spoil(monkeypatch, "forecast", GOOD[good])
    assert demand.forecast().source == "model"
    feed(demand.stream(1))
    assert demand.forecast_many([1])[1].source == "model"
