"""From single observations to the steps of a series, by the same rules as the series a model is trained on.

Each stream checks everything before it changes anything, works in O(1) per call and constant memory, and keeps:

    steps      the ring of finished steps since the last gap
    start_s    what a forecast made now starts from, see `Forecast.start_s`
    time_s     time of the last finished step: arrival of a request, or start of a bin
    revision   counts what a forecast depends on, so that a standing one is known to be still good
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import add
from operator import index as whole
from typing import Any, Protocol

from .bins import bin_of_start, bin_of_time, on_edge
from .errors import InputError
from .fields import show
from .inputs import MAX_TIME_S, MAX_VALUE, number, seconds
from .manifest import Manifest
from .ring import Ring

_PLAIN = frozenset((float, int))
_OBSERVE, _OBSERVE_BIN = "observe", "observe_bin"


class Stream(Protocol):
    """What the predictor asks of either stream."""

    steps: Ring
    revision: int

    @property
    def start_s(self) -> float | None:
        """Where a forecast made now starts."""

    @property
    def time_s(self) -> float | None:
        """Time of the last finished step."""

    def observe(self, timestamp_s: float, request_tokens: float | None, response_tokens: float | None) -> None:
        """Take in one request."""

    def observe_bin(
        self, start_s: float, requests: float, request_tokens: float | None, response_tokens: float | None
    ) -> None:
        """Take in the counts of one whole bin."""

    def advance(self, now_s: float) -> None:
        """Take in that time has passed."""

    def state(self) -> dict[str, Any]:
        """All but the steps, as plain values for JSON."""

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on, new but for the steps, from what `state` gave.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: it gives no such thing.
        """


def open_stream(manifest: Manifest, *, keep: int) -> Stream:
    """The empty stream of an artifact's kind, which keeps its last `keep` steps."""
    return RequestStream(manifest, keep=keep) if manifest.bin_s is None else LoadStream(manifest, keep=keep)


class RequestStream:
    """A `requests` series: one step per request after the first, with the time since the one before."""

    __slots__ = "_gap_s", "revision", "start_s", "steps"

    def __init__(self, manifest: Manifest, *, keep: int) -> None:
        self.steps = Ring(keep, len(manifest.channels))
        self.start_s: float | None = None
        self.revision = 0
        self._gap_s = manifest.gap_s

    @property
    def time_s(self) -> float | None:
        """Arrival of the last request."""
        return self.start_s

    def observe(self, timestamp_s: float, request_tokens: float | None, response_tokens: float | None) -> None:
        """Add the step that this request ends; the first one, also after a gap, ends none."""
        last_s = self.start_s
        # The way of the hot loop, without a call for each number; whatever is unusual goes the long way below.
        if (
            last_s is not None
            and type(timestamp_s) is float
            and type(request_tokens) in _PLAIN
            and type(response_tokens) in _PLAIN
            and 0.0 <= timestamp_s - last_s <= self._gap_s
            and timestamp_s <= MAX_TIME_S
            and 0 <= request_tokens <= MAX_VALUE  # type: ignore[operator]  # None is not plain
            and 0 <= response_tokens <= MAX_VALUE  # type: ignore[operator]
        ):
            self.steps.push((timestamp_s - last_s, request_tokens, response_tokens))  # type: ignore[arg-type]
            self.start_s = timestamp_s
            self.revision += 1
            return
        now_s = seconds("timestamp_s", timestamp_s)
        if last_s is not None and now_s < last_s:
            raise InputError(
                f"timestamp_s: expected a time not before {last_s!r}, the last request's, got {now_s!r}; "
                "give requests in the order of their time"
            )
        sizes = number("request_tokens", request_tokens), number("response_tokens", response_tokens)
        if last_s is not None:
            if now_s - last_s <= self._gap_s:
                self.steps.push((now_s - last_s, *sizes))
            else:
                self._break_after_gap(now_s)
        self.start_s = now_s
        self.revision += 1

    def observe_bin(
        self, start_s: float, requests: float, request_tokens: float | None, response_tokens: float | None
    ) -> None:
        """Refuse: a series of requests cannot be made from counts."""
        raise InputError("observe_bin: expected single requests for a 'requests' series, got counts; use observe()")

    def advance(self, now_s: float) -> None:
        """Clear the history when the silence has become a gap; an older time than one seen says nothing new."""
        self._break_after_gap(seconds("now_s", now_s))

    def state(self) -> dict[str, Any]:
        """All but the steps."""
        return {"start_s": self.start_s}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        start_s = state["start_s"]
        self.start_s = None if start_s is None else seconds("snapshot: start_s", start_s)

    def _break_after_gap(self, now_s: float) -> None:
        if self.start_s is not None and now_s - self.start_s > self._gap_s and self.steps.seen:
            self.steps.clear()
            self.revision += 1


class LoadStream:
    """A `load` series: one step per bin [k * bin_s, (k + 1) * bin_s), from requests or from ready counts.

    From requests, a bin is finished when a later request or `advance` shows that its time has passed. The bin of the
    first request, also after a gap, is never finished: its beginning was not watched. Ready counts are finished as they
    come. One stream takes one of the two.

    Within the open bin requests may come in any order, so that a thread that tells the time and one that observes need
    no common order; only a finished bin takes no more.
    """

    __slots__ = (
        "_arrival_s",
        "_bin_s",
        "_fed",
        "_from_s",
        "_gap_s",
        "_has_tokens",
        "_next",
        "_now_s",
        "_totals",
        "_until_s",
        "_watched",
        "revision",
        "start_s",
        "steps",
        "time_s",
    )

    def __init__(self, manifest: Manifest, *, keep: int) -> None:
        assert manifest.bin_s is not None
        self.steps = Ring(keep, len(manifest.channels))
        self.revision = 0
        self._bin_s = manifest.bin_s
        self._gap_s = manifest.gap_s
        self._has_tokens = len(manifest.channels) > 1
        self._fed: str | None = None
        self._next: int | None = None  # the bin after the last finished one: open, or awaited
        self._from_s, self._until_s = math.inf, -math.inf  # the same bin, in seconds
        self.start_s: float | None = None  # where it begins
        self.time_s: float | None = None  # and where the one before does, which is finished
        self._watched = False  # from its beginning
        self._totals = (0.0,) * len(manifest.channels)  # of the open bin
        self._arrival_s = -math.inf  # of the last request
        self._now_s = -math.inf  # the latest time told by `advance`

    def observe(self, timestamp_s: float, request_tokens: float | None, response_tokens: float | None) -> None:
        """Count a request in the bin of its time, after finishing the bins before."""
        # The way of the hot loop, as in `RequestStream.observe`: one more request of three channels in the open bin.
        if (
            self._has_tokens
            and type(timestamp_s) is float
            and type(request_tokens) in _PLAIN
            and type(response_tokens) in _PLAIN
            and self._from_s <= timestamp_s < self._until_s
            and timestamp_s - self._arrival_s <= self._gap_s
            and request_tokens >= 0  # type: ignore[operator]  # None is not plain
            and response_tokens >= 0  # type: ignore[operator]
        ):
            requests, prompts, answers = self._totals
            # In this order: a whole number beyond float64 can be compared with a float and not added to one.
            if (
                request_tokens <= MAX_VALUE  # type: ignore[operator]
                and response_tokens <= MAX_VALUE  # type: ignore[operator]
                and (prompts := prompts + request_tokens) <= MAX_VALUE  # type: ignore[operator]
                and (answers := answers + response_tokens) <= MAX_VALUE  # type: ignore[operator]
                and self._fed != _OBSERVE_BIN
            ):
                self._totals = requests + 1.0, prompts, answers
                if timestamp_s > self._arrival_s:
                    self._arrival_s = timestamp_s
                return
        self._refuse_mixing(_OBSERVE)
        now_s = seconds("timestamp_s", timestamp_s)
        row = (1.0, *self._tokens(request_tokens, response_tokens))
        if self._from_s <= now_s < self._until_s and now_s - self._arrival_s <= self._gap_s:
            totals = tuple(map(add, self._totals, row))
            if max(totals) <= MAX_VALUE:
                self._totals = totals
                if now_s > self._arrival_s:
                    self._arrival_s = now_s
                return
        index = bin_of_time(now_s, self._bin_s)
        if self._next is not None and index < self._next:
            raise InputError(
                f"timestamp_s: expected a time not before {self.start_s!r}, as the bins before are finished, "
                f"got {now_s!r}; give requests in the order of their bins, and before the time that ends their bin"
            )
        gap = now_s - self._arrival_s > self._gap_s
        opens = gap or index != self._next
        totals = row if opens else tuple(a + b for a, b in zip(self._totals, row, strict=True))
        for name, total in zip(("requests", "request_tokens", "response_tokens"), totals, strict=False):
            number(f"{name} of the bin", total)

        self._fed = _OBSERVE
        self._close_until(index, gap=gap)
        self._totals = totals
        self._arrival_s = max(self._arrival_s, now_s)

    def observe_bin(
        self, start_s: float, requests: float, request_tokens: float | None, response_tokens: float | None
    ) -> None:
        """Add a finished bin, with zeros for the bins left out before it unless they make a gap."""
        # The way of the hot loop, likewise: the very bin that is awaited.
        if (
            self._has_tokens
            and start_s == self._from_s
            and type(start_s) is float
            and type(requests) in _PLAIN
            and type(request_tokens) in _PLAIN
            and type(response_tokens) in _PLAIN
            and self._fed == _OBSERVE_BIN
            and start_s <= MAX_TIME_S
            and 0 <= requests <= MAX_VALUE
            and 0 <= request_tokens <= MAX_VALUE  # type: ignore[operator]
            and 0 <= response_tokens <= MAX_VALUE  # type: ignore[operator]
        ):
            assert self._next is not None
            self.steps.push((requests, request_tokens, response_tokens))  # type: ignore[arg-type]
            self._await(self._next + 1)
            self.revision += 1
            return
        self._refuse_mixing(_OBSERVE_BIN)
        start_s = seconds("start_s", start_s)
        index = bin_of_start(start_s, self._bin_s)
        if not on_edge(start_s, self._bin_s):
            raise InputError(
                f"start_s: expected the edge of a bin, a multiple of {self._bin_s:g}, got {start_s!r}; "
                f"the nearest is {index * self._bin_s!r}"
            )
        if self._next is not None and index < self._next:
            raise InputError(
                f"start_s: expected a bin from {self.start_s!r} on, after the last one given, got {start_s!r}; "
                "give each bin once, in the order of time"
            )
        row = (number("requests", requests), *self._tokens(request_tokens, response_tokens))

        self._fed = _OBSERVE_BIN
        if self._next is not None:
            if (index - self._next) * self._bin_s > self._gap_s:
                self.steps.clear()
            else:
                self.steps.push_zeros(index - self._next)
        self.steps.push(row)
        self._await(index + 1)
        self.revision += 1

    def advance(self, now_s: float) -> None:
        """Finish the bins that have ended; of ready counts only the feeder knows when they are.

        A time older than one seen already counts as that one.
        """
        self._now_s = max(self._now_s, seconds("now_s", now_s))
        if self._fed == _OBSERVE:
            gap = self._now_s - self._arrival_s > self._gap_s
            self._close_until(bin_of_time(self._now_s, self._bin_s), gap=gap)

    def state(self) -> dict[str, Any]:
        """All but the steps."""
        return {
            "fed": self._fed,
            "next": self._next,
            "watched": self._watched,
            "totals": self._totals,
            "arrival_s": None if self._arrival_s == -math.inf else self._arrival_s,
            "now_s": None if self._now_s == -math.inf else self._now_s,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        fed, index, watched, totals = (state[key] for key in ("fed", "next", "watched", "totals"))
        if fed not in (None, _OBSERVE, _OBSERVE_BIN) or len(totals) != len(self._totals):
            raise InputError(f"snapshot: expected a call and {len(self._totals)} totals, got {show((fed, totals))}")
        self._fed, self._watched = fed, bool(watched)
        self._totals = tuple(number("snapshot: totals", total) for total in totals)
        if index is not None:
            seconds("snapshot: next", index * self._bin_s)
            self._await(whole(index))
        if state["arrival_s"] is not None:
            self._arrival_s = seconds("snapshot: arrival_s", state["arrival_s"])
        if state["now_s"] is not None:
            self._now_s = seconds("snapshot: now_s", state["now_s"])

    def _close_until(self, index: int, *, gap: bool) -> None:
        """Make `index` the open bin."""
        if gap or self._next is None:
            if self.steps.seen or index != self._next:
                self.revision += 1
            self.steps.clear()
            self._await(index)
            self._watched = False
        elif index > self._next:
            if self._watched:
                self.steps.push(self._totals)
            self.steps.push_zeros(index - self._next - 1)
            self._await(index)
            self._watched = True
            self.revision += 1
        else:
            return
        self._totals = (0.0,) * len(self._totals)

    def _await(self, index: int) -> None:
        self._next = index
        self.start_s = self._from_s = index * self._bin_s
        self.time_s, self._until_s = (index - 1) * self._bin_s, (index + 1) * self._bin_s

    def _tokens(self, request_tokens: float | None, response_tokens: float | None) -> tuple[float, ...]:
        if self._has_tokens:
            return number("request_tokens", request_tokens), number("response_tokens", response_tokens)
        for name, value in (("request_tokens", request_tokens), ("response_tokens", response_tokens)):
            if value is not None:
                number(name, value)
        return ()

    def _refuse_mixing(self, call: str) -> None:
        if self._fed not in (None, call):
            raise InputError(f"{call}: expected {self._fed} again, which this stream was fed with; use one of the two")
