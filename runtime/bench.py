"""How long a call takes: subjects take turns in short rounds, so that noise hits all alike, and every call is timed.

A round of a subject is some calls that warm it and then the timed ones, with the garbage collected before and held
during it. Percentiles are taken within a round, then the median over the rounds: a neighbour that steals the core for
a second spoils one round and not the figure. The timer and the loop cost something too: the subject `EMPTY` shows it.
"""

from __future__ import annotations

import functools
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ROUNDS = 50
_PERCENTILES = 50.0, 90.0, 99.0
_FEWEST_FOR_P999 = 1000
_FEWEST_IN_A_ROUND = 10


def _nothing(calls: int) -> Iterable[tuple[Any, ...]]:
    return itertools.repeat((), calls)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that can be called many times.

    Attributes:
        name: what the table calls it.
        call: what is timed.
        arguments: gives the arguments of the next n calls; made before the clock starts.
        windows: forecasts that a call makes; 0 where it makes none.
        share: of the calls that the others make; less for what is slow and only there to compare with.
        before: what happens before each timed call, untimed; None for one call right after the other.
    """

    name: str
    call: Callable[..., object]
    arguments: Callable[[int], Iterable[tuple[Any, ...]]] = _nothing
    windows: int = 1
    share: float = 1.0
    before: Callable[[], object] | None = None


EMPTY = Subject(name="an empty call", call=lambda: None, windows=0)
"""What the timing itself costs; it is part of every other figure."""


def paced(subject: Subject, pause_s: float) -> Subject:
    """The same, sleeping so long before every call, as a scheduler that decides at intervals does."""
    return replace(subject, before=functools.partial(time.sleep, pause_s))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured of a subject. Times are wall times of a call in microseconds.

    Attributes:
        p50_us: median over the rounds of the round's median; p90_us and p99_us likewise. Of rounds of fewer than ten
            calls: of all calls together.
        p999_us: of all calls together; None of fewer than 1,000.
        windows_per_s: forecasts a second of wall time in the median round, pauses included; None of what makes none.
        cpu_us: processor time of the whole process per call, what happens before the call included.
        ratio: p50 over that of the first subject, both of the same round; the median over the rounds.
        more_us: p50 less that of the first subject, likewise.
    """

    subject: str
    calls: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float | None
    windows_per_s: float | None
    cpu_us: float
    ratio: float
    more_us: float


def measure(
    subjects: Sequence[Subject],
    *,
    calls: int,
    rounds: int = ROUNDS,
    tick: Callable[[], object] = lambda: None,
) -> list[Timing]:
    """Time subjects that take turns.

    Args:
        subjects: the first is what the others' `ratio` refers to.
        calls: of each subject with the share 1, over all rounds; at least one a round.
        rounds: turns of each subject, after one that is not counted.
        tick: called after each of the `len(subjects) * (rounds + 1)` turns.
    """
    found: list[list[_Round]] = [[] for _ in subjects]
    gc.collect()
    gc.freeze()  # what is there by now need not be looked through at every round
    try:
        for turn in range(rounds + 1):
            order = list(range(len(subjects)))
            for i in order if turn % 2 else reversed(order):
                result = _round(subjects[i], max(1, int(calls / rounds * subjects[i].share)))
                if turn:
                    found[i].append(result)
                tick()
    finally:
        gc.unfreeze()
    return [_timing(subject, own, found[0]) for subject, own in zip(subjects, found, strict=True)]


@dataclass(frozen=True)
class _Round:
    times_ns: np.ndarray[Any, np.dtype[np.int64]]
    wall_s: float
    cpu_s: float

    @property
    def p50_us(self) -> float:
        return float(np.median(self.times_ns)) / 1e3


def _round(subject: Subject, calls: int) -> _Round:
    for given in subject.arguments(max(3, calls // 20)):
        subject.call(*given)
    arguments, times = list(subject.arguments(calls)), [0] * calls
    gc.collect()
    gc.disable()
    try:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        (_hot if subject.before is None else _one_by_one)(subject, arguments, times)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    finally:
        gc.enable()
    return _Round(np.array(times, np.int64), wall_s, cpu_s)


def _hot(subject: Subject, arguments: list[tuple[Any, ...]], times: list[int]) -> None:
    clock, call = time.perf_counter_ns, subject.call
    for i, given in enumerate(arguments):
        begun = clock()
        call(*given)
        times[i] = clock() - begun


def _one_by_one(subject: Subject, arguments: list[tuple[Any, ...]], times: list[int]) -> None:
    clock, call, before = time.perf_counter_ns, subject.call, subject.before
    assert before is not None
    for i, given in enumerate(arguments):
        before()
        begun = clock()
        call(*given)
        times[i] = clock() - begun


def _timing(subject: Subject, rounds: list[_Round], first: list[_Round]) -> Timing:
    median = statistics.median
    times_ns = np.concatenate([r.times_ns for r in rounds])
    each = len(times_ns) // len(rounds)
    # A single call is its own p99; of few calls a round those of all together are told.
    parts = [r.times_ns for r in rounds] if each >= _FEWEST_IN_A_ROUND else [times_ns]
    at = [np.percentile(part, _PERCENTILES) / 1e3 for part in parts]
    p50, p90, p99 = (float(median(row[k] for row in at)) for k in range(3))
    return Timing(
        subject=subject.name,
        calls=len(times_ns),
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        p999_us=float(np.percentile(times_ns, 99.9)) / 1e3 if len(times_ns) >= _FEWEST_FOR_P999 else None,
        windows_per_s=median(subject.windows * each / r.wall_s for r in rounds) if subject.windows else None,
        cpu_us=median(r.cpu_s for r in rounds) / each * 1e6,
        ratio=median(own.p50_us / other.p50_us for own, other in zip(rounds, first, strict=True)),
        more_us=median(own.p50_us - other.p50_us for own, other in zip(rounds, first, strict=True)),
    )
