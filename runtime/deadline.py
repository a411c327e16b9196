"""Forecasts in time: the model runs in a thread beside, and whoever can't wait for it takes what there is.

Every forecast with a deadline is handed over. To run in the caller's thread what is usually fast enough would break the
promise just when it counts: when the core is busy. docs/runtime.md has what the way there and back takes.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

from .forecast import Forecast
from .inputs import number

if TYPE_CHECKING:
    from .live import Asked, LiveStream
    from .model import Model


class Job:
    """One stream's forecast on its way.

    Attributes:
        model: who is asked.
        stream: whose.
        asked: what the model is to be asked; the newest, until it begins.
        done: held until the forecast is there, or an error.
    """

    __slots__ = "asked", "done", "error", "forecast", "model", "stream"

    def __init__(self, model: Model, stream: LiveStream, asked: Asked) -> None:
        self.model, self.stream, self.asked = model, stream, asked
        self.forecast: Forecast | None = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class Worker:
    """A model's thread that makes forecasts, one after the other; started at the first one, and anew after a fork.

    At most one job of a stream waits: a newer question takes the place of an older, so that a slow model is never
    asked for what nobody needs any more, and no queue grows.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()

    def hand_over(self, model: Model, stream: LiveStream, asked: Asked) -> Job:
        """Have a stream's forecast made, in O(1)."""
        with self._lock:
            if self._pid != os.getpid():  # threads do not live on in a forked child
                self._start()
            job = self._waiting.get(stream)
            if job is None:
                job = self._waiting[stream] = Job(model, stream, asked)
                self._jobs.put(job)
            elif job.asked[4] < asked[4] or job.asked[3] is not asked[3]:
                job.asked = asked
        return job

    def _start(self) -> None:
        self._pid = os.getpid()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: dict[LiveStream, Job] = {}
        # The thread knows the queue alone, and ends when this object is gone.
        weakref.finalize(self, self._jobs.put, None)
        arguments = self._jobs, self._waiting, self._lock
        threading.Thread(target=_work, args=arguments, name="fcast-deadline", daemon=True).start()


def _work(jobs: SimpleQueue[Job | None], waiting: dict[LiveStream, Job], lock: threading.Lock) -> None:
    while (job := jobs.get()) is not None:
        with lock:
            del waiting[job.stream]
            asked = job.asked
        try:
            job.forecast = job.stream.finish(job.model, asked)
        except BaseException as error:  # the thread of whoever waits is the place for it
            job.error = error
        job.done.release()
        del job, asked  # a worker without work keeps no stream alive


def deadline(deadline_s: float) -> float:
    """The moment, on the monotonic clock, until which a call that begins now may take.

    Raises:
        InputError: not a number of seconds from 0.
    """
    return time.monotonic() + number("deadline_s", deadline_s, high=threading.TIMEOUT_MAX / 2)


def forecast_in_time(model: Model, stream: LiveStream, asked: Asked, until: float) -> Forecast:
    """The forecast if it comes in time, else what stands in for it; it stands from when it comes, in either case."""
    job = model.worker.hand_over(model, stream, asked)
    # While the model runs, since after it there is no time left.
    instead = stream.instead(asked)
    if not job.done.acquire(timeout=max(0.0, until - time.monotonic())):
        model.stats.count_source(instead.source)
        return instead
    job.done.release()  # for others who wait
    if job.error is not None:
        raise job.error
    assert job.forecast is not None
    return job.forecast
