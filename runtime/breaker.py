"""The circuit breaker of one stream: model -> recent quantiles -> last value, switched by how forecasts turned out.

A rival speaks from when the model is measurably worse, by wQL or because its highest level fails. Meanwhile the model
is asked now and then, and judged, in the shadow; it speaks again when it is no worse. docs/runtime.md has the rule in
words, and what it did on real traces.

"Measurably" is a paired test: over forecasts that do not overlap, the mean of the differences is above 0 by so many of
its standard errors that chance alone gives it once in a thousand, were it normal. Traffic is not, and the test is made
again and again; so the ratio must be beyond a factor too, and how often both together go wrong is counted on traces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError
from .fields import is_integer, is_number, show
from .judge import WINDOW, Judge, Score
from .manifest import Manifest
from .ring import Ring
from .rivals import NAMES
from .snapshot import Numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW, MANY = 8, 16
"""Judged forecasts since the last switch: from so few on a model that fails all at once is left, from so many on any
that is worse; the last so many tell whether to go back to it."""
FACTOR, FACTOR_OF_FEW = 1.1, 1.5
"""What is worse is so by a tenth at least, over few by a half."""
_ERRORS_OF_RIVALS = 2.0
"""Between two simple forecasts less is enough: a wrong choice costs little."""
_FAILS, _FAILS_AT_MOST = 10.0, 0.5
"""The highest level fails when it is missed ten times as often as it says, or every other time."""


class Why(NamedTuple):
    """What the model was left for: `about` is `wQL`, or the highest level as text."""

    about: str
    model: float
    rival: float
    over: int


class Instead(NamedTuple):
    """Who speaks in the model's place."""

    rival: int
    """Where it stands in `NAMES`."""
    source: str
    """Its name, and why."""


class Breaker:
    """Decides for one stream who speaks. Not thread-safe.

    Attributes:
        judge: what it goes by.
        instead: who speaks in the model's place; None while the model does.

    Args:
        manifest: of the model.
    """

    __slots__ = "_since", "_why", "instead", "judge"

    def __init__(self, manifest: Manifest) -> None:
        self.judge = Judge(manifest)
        self.instead: Instead | None = None
        self._why: Why | None = None
        self._since = 0  # judged before the last switch

    def look(self, steps: Ring) -> Instead | None:
        """Who speaks now, after judging what is over; see `Judge.look`."""
        if self.judge.look(steps):
            self._decide()
        return self.instead

    def _decide(self) -> None:
        judge = self.judge
        recent = judge.judged - self._since
        if self.instead is None:
            for least, count, factor in ((FEW, FEW, FACTOR_OF_FEW), (MANY, recent, FACTOR)):
                if recent >= least and (found := self._failed(Score(judge.rows(count), judge.manifest), factor)):
                    self._say(*found, since=judge.judged)
                    break
            return
        rival = self.instead.rival
        if recent >= MANY:
            score = Score(judge.rows(MANY), judge.manifest)
            if score.wql[0] <= score.wql[1 + rival] and not self._fails(score):
                self.instead, self._why, self._since = None, None, judge.judged
                return
        score = Score(judge.rows(WINDOW), judge.manifest)
        better = 1 - rival
        if _worse(score, 1 + rival, than=1 + better, by=FACTOR, errors=_ERRORS_OF_RIVALS):
            assert self._why is not None
            self._say(better, self._why, since=self._since)

    def _failed(self, score: Score, factor: float) -> tuple[int, Why] | None:
        """The rival that the model is to be left for, and why; None when it is not."""
        better = (0, 1) if score.wql[1] <= score.wql[2] else (1, 0)
        for rival in better:
            if _worse(score, 0, than=1 + rival, by=factor):
                return rival, Why("wQL", float(score.wql[0]), float(score.wql[1 + rival]), score.count)
        if not self._fails(score):
            return None
        top = score.top
        missed = top.mean(axis=0)
        for rival in better:
            if _above_zero(top[:, 0] - top[:, 1 + rival]):
                return rival, Why(self._highest, float(1 - missed[0]), float(1 - missed[1 + rival]), score.count)
        return None

    def _fails(self, score: Score) -> bool:
        promised = 1.0 - self.judge.manifest.levels[-1]
        return bool(score.missed[-1] > min(_FAILS * promised, _FAILS_AT_MOST))

    @property
    def _highest(self) -> str:
        return f"{self.judge.manifest.levels[-1]:g}"

    def _say(self, rival: int, why: Why, *, since: int) -> None:
        self._why, self._since = why, since
        if why.about == "wQL":
            text = f"model wQL {why.model:.3g} > {why.rival:.3g} over {why.over}"
        else:
            text = f"{why.about} of the model covers {why.model:.3g}, not {why.rival:.3g}, over {why.over}"
        self.instead = Instead(rival, f"fallback:{NAMES[rival]} ({text})")

    def state(self, steps: Ring, numbers: Numbers) -> dict[str, Any]:
        """All that decides who speaks: single values for JSON, arrays into `numbers`."""
        instead = None if self.instead is None or self._why is None else [self.instead.rival, *self._why]
        return {"judge": self.judge.state(steps, numbers), "since": self._since, "instead": instead}

    def resume(self, state: Mapping[str, Any], numbers: Numbers) -> None:
        """Go on, new, from what `state` gave, beside a ring that was never cleared.

        Raises:
            InputError, KeyError, TypeError, ValueError: it gives no such thing.
        """
        self.judge.resume(state["judge"], numbers)
        since, instead = state["since"], state["instead"]
        if not is_integer(since) or not 0 <= since <= self.judge.judged:
            raise InputError(f"snapshot: expected judged forecasts, got {show(since)}")
        self._since = since
        if instead is not None:
            rival, about, model, other, count = instead
            known = type(rival) is int and rival in (0, 1) and about in ("wQL", self._highest) and is_integer(count)
            # Scores of fewer have no spread to be told from.
            if not (known and is_number(model) and is_number(other) and since >= FEW):
                raise InputError(f"snapshot: expected a rival and why it speaks, got {show(instead)}")
            self._say(rival, Why(about, model, other, count), since=since)


def _worse(score: Score, one: int, *, than: int, by: float, errors: float | None = None) -> bool:
    """Whether the wQL of one is measurably above another's: 0 is the model, then the rivals."""
    far: bool = score.wql[one] > by * score.wql[than]
    if not far:
        return False
    losses = score.losses()
    return _above_zero(losses[:, one] - losses[:, than], errors)


def _above_zero(differences: NDArray[np.float64], errors: float | None = None) -> bool:
    """Whether their mean is above 0 by so many standard errors; if none are given, by Student's t at 0.001.

    On one side, and within 0.2 from 8 of them on.
    """
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    return float(differences.mean()) > (3.0 + 12.0 / (n - 1) if errors is None else errors) * error
