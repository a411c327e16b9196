"""A long life in minutes: millions of observations over many streams, with swaps, snapshots and faults all the while.

    python -m benchmarks.soak [ARTIFACT] [--observations 10000000] [--streams 1000] [--json]

One thread observes, as a scheduler does: in every turn each stream gets a burst of requests (of a load series: of ready
bins), and some streams are asked one by one, some with a deadline, some together. Beside it a watch puts versions into
service that a publisher leaves in the folder, good ones and bad ones. Every tenth turn all streams are snapshot and
restored into a standby predictor, which must say the same, bit for bit. Faults are injected in every turn: what callers
must not give (NaN, text, negative tokens, time running backwards), sizes at which a model may overflow, gaps of a day,
streams forgotten and begun anew.

Every answer is looked at. It is `lost` when it does not start at the last step that its stream was given; `wrong` when
it is not finite, negative or not in the order of its levels, when a good history is answered without the model, or when
a bad version came into service; `raised` counts exceptions that are not the documented refusal. RSS is taken after each
turn; its growth is the median of the last tenth over that of the first tenth after the warm-up, a tenth of the turns,
and over that of the first tenth of the second half.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.hot_swap import rss_bytes, two_versions
from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "tests" / "runtime" / "artifacts" / "requests"
BURST = 20
SWAP_EVERY, SNAPSHOT_EVERY = 10, 10
RSS_TARGET = 0.02
_HUGE = 3e38
_BURST, _ALONE, _IN_TIME, _TOGETHER = f"{BURST} observations", "forecast", "forecast in 1 ms", "forecast_many"


@click.command()
@click.argument("artifact", type=click.Path(exists=True), default=str(DEFAULT))
@click.option("--observations", type=click.IntRange(min=1), default=10_000_000, show_default=True, help="In all.")
@click.option("--streams", type=click.IntRange(min=10), default=1000, show_default=True, help="Streams.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, the machine and the versions.")
def main(artifact: str, observations: int, streams: int, as_json: bool) -> None:
    """A long life in minutes, with swaps, snapshots and faults."""
    turns = max(20, -(-observations // (streams * BURST)))
    with tempfile.TemporaryDirectory() as folder, click.progressbar(length=turns, file=sys.stderr) as bar:
        result = soak(two_versions(Path(artifact), Path(folder)), turns=turns, streams=streams, tick=bar.update)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    for name in ("observations", "refused", "forecasts", "swaps", "bad versions", "snapshots", "compared", "gaps"):
        click.echo(f"{name:<24}{result[name]:>14,}")
    click.echo("answered by " + ", ".join(f"{name} {n:,}" for name, n in sorted(result["sources"].items())))
    click.echo(", ".join(f"{name} {result[name]}" for name in ("lost", "wrong", "restored otherwise", "raised")))
    click.echo(f"{'µs':<24}{'p50':>10}{'p99':>10}{'p99.9':>10}{'worst':>10}")
    for name, row in result["us"].items():
        click.echo(f"{name:<24}" + "".join(f"{row[key]:>10.1f}" for key in ("p50", "p99", "p999", "worst")))
    rss = result["rss"]
    click.echo(
        f"RSS {rss['first_mb']:.1f} MB after the warm-up, {rss['last_mb']:.1f} MB at the end: {rss['growth']:+.2%}, "
        f"in the second half {rss['growth_of_second_half']:+.2%} (target within {RSS_TARGET:.0%}); "
        f"most {rss['most_mb']:.1f} MB; {result['wall_s']:.0f} s"
    )


def soak(artifact: Path, *, turns: int, streams: int, tick: Callable[[int], object] = lambda _: None) -> dict[str, Any]:
    """Live so many turns; everything that was counted and timed."""
    from runtime import Predictor

    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the refused versions, and the model's own overflow: counted
        with (
            Predictor(artifact, version=1, device="cpu", max_streams=streams + 1) as predictor,
            Predictor(artifact, version=1, device="cpu", max_streams=streams + 1) as standby,
        ):
            predictor.watch(every_s=0.05)
            standby.watch(every_s=0.05)
            life = _Life(predictor, streams, turns)
            publisher = _Publisher(artifact)
            rss = []
            for turn in range(turns):
                life.turn(turn)
                if turn % SWAP_EVERY == 0:
                    publisher.publish(bad=turn // SWAP_EVERY % 3 == 2)
                if turn % SNAPSHOT_EVERY == 5:
                    life.restart(standby)
                rss.append(rss_bytes())
                life.note_version(publisher.bad)
                tick(1)
            publisher.wait(predictor)
            life.note_version(publisher.bad)
    tenth = max(1, turns // 10)
    first, last = (statistics.median(part) for part in (rss[tenth : 2 * tenth], rss[-tenth:]))
    return {
        "benchmark": "soak",
        "artifact": str(artifact.name),
        "streams": streams,
        "turns": turns,
        **life.counts(),
        "bad versions": len(publisher.bad),
        "rss": {
            "first_mb": first / 1e6,
            "last_mb": last / 1e6,
            "most_mb": max(rss[tenth:]) / 1e6,
            "growth": last / first - 1,
            "growth_of_second_half": last / statistics.median(rss[turns // 2 : turns // 2 + tenth]) - 1,
            "by_tenth_mb": [statistics.median(rss[i : i + tenth]) / 1e6 for i in range(0, turns, tenth)],
        },
        "wall_s": time.perf_counter() - begun,
        "machine": describe_machine(),
    }


class _Life:
    """The streams of one predictor, what they were given, and what they answered."""

    def __init__(self, predictor: Any, streams: int, turns: int) -> None:
        self._predictor, self._streams = predictor, streams
        m = predictor.manifest
        self._load, self._context = m["kind"] == "load", m["context"]
        self._step_s, self._gap_s = m["bin_s"] or 1.0, m["gap_s"]
        self._rng = np.random.default_rng(0)
        self._rows = self._rng.integers(1, 4000, (4096, 3)).astype(float).tolist()
        self._width = len(m["channels"])
        self._at = [round(1.7e9 / self._step_s)] * streams  # the next step of each, in steps since 1970
        self._good = [0] * streams  # steps since the last gap or overflow
        self._handles = [predictor.stream(key) for key in range(streams)]
        self._counted: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._asked, self._hurried = streams // 5, max(1, streams // 100)
        each = {_BURST: streams + 1, _ALONE: self._asked + 1, _IN_TIME: self._hurried, _TOGETHER: 1}
        self._ns = {name: _Samples(turns * calls) for name, calls in each.items()}
        self._version = m["version"]

    def turn(self, turn: int) -> None:
        """A burst for every stream, questions for some, faults for others."""
        rng = self._rng
        order = rng.permutation(self._streams).tolist()
        for key in order:
            self._burst(key, offset=turn + key)
        for key in order[:3]:
            self._bad_calls(key)
        self._overflow(order[3])
        self._leave_a_gap(order[4])
        self._begin_anew(order[5])
        for key in order[: self._asked]:
            self._ask(key, _ALONE)
        for key in order[-self._hurried :]:
            self._ask(key, _IN_TIME, deadline_s=0.001)
        keys = order[self._asked : 2 * self._asked]
        begun = time.perf_counter_ns()
        found = self._predictor.forecast_many(keys)
        self._ns[_TOGETHER].add(time.perf_counter_ns() - begun)
        for key in keys:
            self._look(key, found[key])

    def restart(self, other: Any) -> None:
        """A snapshot restored into another predictor says what this one says, bit for bit from the same version."""
        keys = range(0, self._streams, max(1, self._streams // 25))
        if other.manifest["version"] != self._predictor.manifest["version"]:
            other.reload(self._predictor.manifest["version"])
        other.restore(self._predictor.snapshot())
        self._counted["snapshots"] += 1
        for key in keys:
            window = self._handles[key]._stream.steps.last()
            same = np.array_equal(other.stream(key)._stream.steps.last(), window)
            if other.manifest["version"] == self._predictor.manifest["version"]:
                self._counted["compared"] += 1
                a, b = self._handles[key].forecast(), other.stream(key).forecast()
                same = same and a.source == b.source and np.array_equal(a.values, b.values)
            self._counted["restored otherwise"] += not same

    def note_version(self, bad: set[int]) -> None:
        version = self._predictor.manifest["version"]
        self._counted["wrong"] += version in bad
        self._counted["swaps"] += version != self._version
        self._version = version

    def counts(self) -> dict[str, Any]:
        names = (
            "observations",
            "refused",
            "forecasts",
            "swaps",
            "snapshots",
            "compared",
            "gaps",
            "lost",
            "wrong",
            "raised",
        )
        return {
            **{name: self._counted[name] for name in (*names, "restored otherwise")},
            "sources": dict(self._sources),
            "us": {name: samples.percentiles() for name, samples in self._ns.items()},
        }

    def _burst(self, key: int, *, offset: int) -> None:
        handle, at, rows, step_s = self._handles[key], self._at[key], self._rows, self._step_s
        start, mask = offset * BURST, len(rows) - 1
        width = self._width
        begun = time.perf_counter_ns()
        try:
            if self._load:
                for i in range(BURST):
                    handle.observe_bin((at + i) * step_s, *rows[(start + i) & mask][:width])
            else:
                for i in range(BURST):
                    row = rows[(start + i) & mask]
                    handle.observe((at + i) * step_s, row[0], row[1])
        except Exception:
            self._counted["raised"] += 1
        self._ns[_BURST].add(time.perf_counter_ns() - begun)
        self._at[key] += BURST
        self._good[key] += BURST
        self._counted["observations"] += BURST

    def _bad_calls(self, key: int) -> None:
        """What a caller must not give is refused as documented, and changes nothing."""
        from runtime import InputError

        handle, now_s = self._handles[key], self._at[key] * self._step_s
        observe = handle.observe_bin if self._load else handle.observe
        for bad in ((now_s, float("nan")), (now_s, "1"), (now_s, -1.0), (float("inf"), 1.0), (now_s - 1e6, 1.0)):
            try:
                observe(*bad, *(1.0,) * (self._width - 1 if self._load else 1))
                self._counted["wrong"] += 1
            except InputError:
                self._counted["refused"] += 1
            except Exception:
                self._counted["raised"] += 1

    def _overflow(self, key: int) -> None:
        """Sizes at which the model overflows: an answer all the same."""
        rest = (_HUGE,) * (self._width - 1)
        if self._load:
            self._handles[key].observe_bin(self._at[key] * self._step_s, _HUGE, *rest)
        else:
            self._handles[key].observe(self._at[key] * self._step_s, _HUGE, _HUGE)
        self._at[key] += 1
        self._good[key] = -self._context
        self._ask(key, _ALONE)

    def _leave_a_gap(self, key: int) -> None:
        self._at[key] += int(self._gap_s / self._step_s) + 2
        self._good[key] = -1  # of requests the first one after a gap ends no step
        self._counted["gaps"] += 1

    def _begin_anew(self, key: int) -> None:
        self._predictor.forget(key)
        self._handles[key] = self._predictor.stream(key)
        self._good[key] = -1
        self._burst(key, offset=key)

    def _ask(self, key: int, how: str, **options: float) -> None:
        begun = time.perf_counter_ns()
        try:
            found = self._handles[key].forecast(**options)
        except Exception:
            self._counted["raised"] += 1
            return
        self._ns[how].add(time.perf_counter_ns() - begun)
        self._look(key, found, late=how == _IN_TIME)

    def _look(self, key: int, found: Any, *, late: bool = False) -> None:
        self._counted["forecasts"] += 1
        source = found.source.partition(" ")[0]
        self._sources[source] += 1
        expected_s = (self._at[key] - (0 if self._load else 1)) * self._step_s
        late = late and not found.source.startswith("model")  # the documented answer when the model is not in time
        if self._good[key] >= 0 and not late:  # after a gap nothing was given yet
            self._counted["lost"] += found.start_s is None or abs(found.start_s - expected_s) > 1e-3
        values = found.values
        valid = bool(np.isfinite(values).all() and (values >= 0).all() and (np.diff(values, axis=-1) >= 0).all())
        answered = self._good[key] < self._context or late or source.startswith("model")
        answered = answered or source in ("fallback:recent_quantiles", "fallback:last_value")  # the breaker is open
        self._counted["wrong"] += not valid
        self._counted["wrong"] += not answered


class _Publisher:
    """Leaves versions in the folder, and takes old ones away."""

    def __init__(self, artifact: Path) -> None:
        self._artifact, self._numbers = artifact, count(3)
        self._pending: int | None = None
        self.newest_good = artifact / "2"
        self.bad: set[int] = set()

    def publish(self, *, bad: bool) -> None:
        from runtime.manifest import self_sha256

        number = next(self._numbers)
        staged = Path(shutil.copytree(self._artifact / self.newest_good.name, self._artifact / f".staging-{number}"))
        manifest = json.loads((staged / "manifest.json").read_text(encoding="utf-8")) | {"version": number}
        manifest["self_sha256"] = self_sha256(manifest)
        (staged / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        if bad:
            graph = staged / "model.onnx"
            graph.write_bytes(graph.read_bytes()[:-10])
        staged.rename(self._artifact / str(number))
        if bad:
            self.bad.add(number)
        else:
            self.newest_good = self._artifact / str(number)
            for old in self._artifact.iterdir():
                if old.name.isdecimal() and int(old.name) < number - 4:
                    shutil.rmtree(old)

    def wait(self, predictor: Any, at_most_s: float = 10.0) -> None:
        """Until the last good version is in service."""
        until = time.monotonic() + at_most_s
        while predictor.manifest["version"] != int(self.newest_good.name) and time.monotonic() < until:
            time.sleep(0.05)


class _Samples:
    """Times in memory that is all there from the start, so that the benchmark itself does not grow."""

    def __init__(self, most: int) -> None:
        self._ns = np.full(most, -1, np.int64)
        self._many = 0

    def add(self, ns: int) -> None:
        self._ns[self._many] = ns
        self._many += 1

    def percentiles(self) -> dict[str, float]:
        us = self._ns[: self._many] / 1e3
        at = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "worst": 100.0}
        return {name: float(np.percentile(us, q)) for name, q in at.items()}


if __name__ == "__main__":
    main()
