"""A snapshot is where a stream goes on as if nothing had been, or it is refused and nothing has changed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor
from runtime.live import LiveStream

BIN_S = {"requests": 1.0, "load": 60.0, "counts": 10.0, "demand": 10.0, "carried": 60.0, "carried-requests": 1.0}
GAP_S = 21600.0
KEYS = ("", "tenant-ä\ud800", 0, -(1 << 63), None)
FEEDS = [("requests", "observe"), ("load", "observe"), ("load", "observe_bin"), ("counts", "observe_bin")]
FEEDS += [("demand", "observe_bin"), ("demand", "observe"), ("carried", "observe_bin"), ("carried-requests", "observe")]


def find(p: Predictor, key: Any) -> LiveStream | Predictor:
    return p if key is None else p.stream(key)


def random_calls(name: str, feed: str, count: int, seed: int) -> list[Callable[[Predictor], Any]]:
    """Calls on streams of all keys: observations in and out of order, bursts, silences, gaps, and forecasts."""
    rng = np.random.default_rng(seed)
    clock = dict.fromkeys(KEYS, 1.7e9 // BIN_S[name] * BIN_S[name])
    channels = 1 if name == "counts" else 3
    calls: list[Callable[[Predictor], Any]] = []
    for _ in range(count):
        key = KEYS[rng.integers(0, len(KEYS))]
        what = rng.random()
        if what < 0.6:
            steps = rng.choice([0, 1, 1, 1, 3, 30]) if rng.random() < 0.97 else round(2 * GAP_S / BIN_S[name])
            wait_s = float(steps) * BIN_S[name] * (1.0 if feed == "observe_bin" else rng.exponential(0.4))
            clock[key] += wait_s * (-0.1 if feed == "observe" and rng.random() < 0.05 else 1.0)
            row = rng.integers(0, 4000, 3).astype(float).tolist()
            arguments = row[1:] if feed == "observe" else row
            calls.append(
                lambda p, k=key, t=clock[key], a=arguments[: None if channels > 1 else 1]: call(p, k, feed, t, a)
            )
        elif what < 0.75:
            now_s = clock[key] + rng.exponential(BIN_S[name])
            calls.append(lambda p, k=key, t=now_s: find(p, k).forecast(now_s=t))
        elif what < 0.95:
            calls.append(lambda p, k=key: find(p, k).forecast())
        else:
            calls.append(lambda p: p.forecast_many([key for key in KEYS if key is not None])[0])
    return calls


def call(p: Predictor, key: Any, feed: str, at_s: float, arguments: list[float]) -> str | None:
    try:
        if feed == "observe":
            find(p, key).observe(at_s, *arguments)
        else:
            find(p, key).observe_bin(at_s, *arguments)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize(("name", "feed"), FEEDS)
def test_every_forecast_after_a_restart_is_the_one_without(
    artifacts: Path, name: str, feed: str, adapt: bool, seed: int
) -> None:
    calls = random_calls(name, feed, 500, seed)
    cuts = set(np.random.default_rng(seed).integers(0, len(calls), 6).tolist()) | {0}
    whole = Predictor(artifacts / name, device="cpu", adapt=adapt)
    broken = Predictor(artifacts / name, device="cpu", adapt=adapt)
    sources, refused = set(), 0
    for i, one in enumerate(calls):
        if i in cuts:
            data = broken.snapshot()
            broken = Predictor(artifacts / name, device="cpu", adapt=adapt)
            broken.restore(data)
            assert broken.snapshot() == data
        found, expected = one(broken), one(whole)
        if isinstance(expected, str):
            refused += 1
            assert found == expected
        elif expected is not None:
            sources.add(found.source)
            assert (found.source, found.start_s) == (expected.source, expected.start_s)
            np.testing.assert_array_equal(found.values, expected.values)
            if expected.aggregates is not None:
                np.testing.assert_array_equal(found.aggregates, expected.aggregates)
            assert not found.values.flags.writeable
    spoken = "model:stateful" if name.startswith("carried") else "model"
    assert {f"{spoken}+adaptive" if adapt else spoken, "fallback:prior"} <= sources
    assert refused or feed == "observe_bin"


@pytest.fixture
def fed(artifacts: Path) -> Predictor:
    p = Predictor(artifacts / "load", device="cpu", adapt=True)
    for key in (None, "a", 5):
        for i in range(20):
            find(p, key).observe_bin(60.0 * i, 3 * i, 5, i)
            find(p, key).forecast()
    return p


def test_one_stream_moves_to_another_predictor(artifacts: Path, fed: Predictor) -> None:
    other = Predictor(artifacts / "load", device="cpu", adapt=True)
    stream = other.stream("elsewhere")
    stream.restore(fed.stream("a").snapshot())
    for each in (stream, fed.stream("a")):
        each.observe_bin(1200.0, 9, 9, 9)
    np.testing.assert_array_equal(stream.forecast().values, fed.stream("a").forecast().values)
    assert other.forecast().source == "fallback:prior"


def test_streams_that_a_caller_holds_go_on_from_the_snapshot(fed: Predictor) -> None:
    held, data = fed.stream("a"), fed.snapshot()
    standing = held.forecast().values
    held.observe_bin(1200.0, 9, 9, 9)
    fed.stream("later").observe_bin(0.0, 1, 1, 1)
    fed.restore(data)
    assert fed.stream("a") is held
    assert held.forecast().start_s == 1200.0
    np.testing.assert_array_equal(held.forecast().values, standing)
    assert fed.keys() == [5, "a"]


def test_the_most_recently_used_streams_of_a_snapshot_are_kept(artifacts: Path, fed: Predictor) -> None:
    p = Predictor(artifacts / "load", device="cpu", adapt=True, max_streams=1)
    p.restore(fed.snapshot())
    assert p.keys() == [5]


def test_a_forecast_under_way_does_not_outlive_a_restore(fed: Predictor) -> None:
    data = fed.snapshot()
    ask = fed._model.answer

    def slow(*arguments: Any) -> Any:
        found = ask(*arguments)
        fed._model.answer = ask  # type: ignore[method-assign]
        fed.restore(data)
        return found

    fed._model.answer = slow  # type: ignore[method-assign]
    fed.observe_bin(1200.0, 9, 9, 9)
    assert fed.forecast().start_s == 1260.0
    assert fed.snapshot() == data


def test_a_newer_version_of_the_model_takes_the_streams_over_and_says_its_own(artifacts: Path) -> None:
    old = Predictor(artifacts / "requests", version=1, device="cpu")
    new = Predictor(artifacts / "requests", version=2, device="cpu")
    for i in range(20):
        old.observe(float(i), 10, i)
    old.forecast()
    new.restore(old.snapshot())
    assert new.forecast().source == "model"
    np.testing.assert_array_equal(new.forecast().values, new.predict(old._live._stream.steps.last(16)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gap_s": 3600.0}, r"expected gap_s 3600\.0, as here, got 21600\.0; a stream goes on only before a model"),
        ({"clock": "epoch"}, "expected clock 'epoch', as here, got 'relative'"),
        ({"bin_s": 30.0}, r"expected bin_s 30\.0, as here, got 60\.0"),
        ({"step_s": 120.0}, r"expected step_s 120\.0, as here, got 60\.0"),
    ],
)
def test_another_contract_is_refused(fed: Predictor, edited: Any, changes: dict[str, Any], said: str) -> None:
    other = Predictor(edited("load", **changes), device="cpu", adapt=True)
    before = other.snapshot()
    with pytest.raises(InputError, match=rf"^snapshot: {said}"):
        other.restore(fed.snapshot())
    assert other.snapshot() == before


def test_another_kind_of_series_or_adapting_is_refused(artifacts: Path, fed: Predictor) -> None:
    data = fed.snapshot()
    with pytest.raises(InputError, match="expected kind 'requests', as here, got 'load'"):
        Predictor(artifacts / "requests", device="cpu").restore(data)
    with pytest.raises(InputError, match="expected adapt False, as here, got True"):
        Predictor(artifacts / "load", device="cpu").restore(data)


def test_a_streams_snapshot_is_not_a_predictors(fed: Predictor) -> None:
    with pytest.raises(InputError, match="snapshot: expected that of a predictor, got that of a 'stream'"):
        fed.restore(fed.stream("a").snapshot())
    with pytest.raises(InputError, match="snapshot: expected that of a stream, got that of a 'predictor'"):
        fed.stream("a").restore(fed.snapshot())


def refused(p: Predictor, data: Any) -> str:
    before = p.snapshot()
    with pytest.raises(InputError, match=r"^snapshot: (\w+: )?expected .*, got ") as caught:
        p.restore(data)
    assert p.snapshot() == before
    return str(caught.value)


def test_a_truncated_snapshot_is_refused(fed: Predictor) -> None:
    data = fed.snapshot()
    for length in [*range(60), *range(60, len(data), 97), len(data) - 1]:
        refused(fed, data[:length])
    refused(fed, data + b"\0")


def test_an_altered_snapshot_is_refused(fed: Predictor) -> None:
    data = fed.snapshot()
    for at in [*range(60), *range(60, len(data), 97), len(data) - 1]:
        refused(fed, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_newer_snapshot_is_refused_as_such(fed: Predictor) -> None:
    data = fed.snapshot()
    said = refused(fed, data[:8] + struct.pack("<I", 3) + data[12:])
    assert said.startswith(
        "snapshot: expected version 2 or older, got 3; take it with the fcast that is to go on, or up"
    )


@pytest.mark.parametrize("adapt", [False, True])
def test_a_snapshot_from_before_the_breaker_goes_on(artifacts: Path, adapt: bool) -> None:
    def old(header: dict[str, Any]) -> None:
        for state in header["streams"]:
            del state["rows"], state["breaker"]

    before = Predictor(artifacts / "demand", device="cpu", adapt=adapt, breaker=False)
    after = Predictor(artifacts / "demand", device="cpu", adapt=adapt)
    for i in range(50):
        before.observe_bin(10.0 * i, 3 * i, 5, i)
        before.forecast()
    data = before.snapshot()
    version_1 = sealed(data[:8] + struct.pack("<I", 1) + data[12:], old)
    after.restore(version_1)
    for i in range(50, 60):
        for p in (before, after):
            p.observe_bin(10.0 * i, 3 * i, 5, i)
        np.testing.assert_array_equal(after.forecast().values, before.forecast().values)


@pytest.mark.parametrize("data", [None, "text", b"", b"FCASTSNP", b"\x80\x04K\x01." * 20, bytearray(99)])
def test_what_is_no_snapshot_is_refused(fed: Predictor, data: Any) -> None:
    refused(fed, data)


def sealed(data: bytes, change: Callable[[dict[str, Any]], Any], numbers: bytes | None = None) -> bytes:
    """A snapshot that someone changed and sealed again."""
    (length,) = struct.unpack_from("<I", data, 12)
    header = json.loads(data[16 : 16 + length])
    change(header)
    text = json.dumps(header).encode()
    body = data[:12] + struct.pack("<I", len(text)) + text + (data[16 + length : -32] if numbers is None else numbers)
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.clear(),
        lambda h: h.update(streams=[]),
        lambda h: h.update(streams=None),
        lambda h: h.update(streams=[7]),
        lambda h: h.update(contract=[]),
        lambda h: h["streams"].pop(),
        lambda h: h["streams"].append(h["streams"][0]),
        lambda h: h["streams"][0].clear(),
        lambda h: h["streams"][1].update(key=[1]),
        lambda h: h["streams"][1].update(key=None),
        lambda h: h["streams"][1].update(key=1.5),
        lambda h: h["streams"][0].update(seen=-1),
        lambda h: h["streams"][0].update(seen=2.0),
        lambda h: h["streams"][0].update(seen=3),
        lambda h: h["streams"][0].update(rows=3),
        lambda h: h["streams"][0].update(rows=21),
        lambda h: h["streams"][0].update(rows=None),
        lambda h: h["streams"][0].update(breaker=7),
        lambda h: h["streams"][0]["breaker"].update(since=5),
        lambda h: h["streams"][0]["breaker"].update(instead=[0, "wQL", 1.0, 2.0]),
        lambda h: h["streams"][0]["breaker"].update(instead=[0, "wQL", 2.0, 1.0, 8]),
        lambda h: h["streams"][0]["breaker"].update(instead=[2, "wQL", 2.0, 1.0, 8]),
        lambda h: h["streams"][0]["breaker"].update(instead=[0, "a rumour", 2.0, 1.0, 8]),
        lambda h: h["streams"][0]["breaker"]["judge"].update(judged=-1),
        lambda h: h["streams"][0]["breaker"]["judge"].update(judged=1 << 53),
        lambda h: h["streams"][0]["breaker"]["judge"].update(over="soon"),
        lambda h: h["streams"][0]["breaker"]["judge"].clear(),
        lambda h: h["streams"][0].update(standing=7),
        lambda h: h["streams"][0].update(standing=["rumour", 60.0, False]),
        lambda h: h["streams"][0].update(standing=["model", "now", False]),
        lambda h: h["streams"][0].update(standing=["model", 60.0, True]),
        lambda h: h["streams"][0].update(stream=None),
        lambda h: h["streams"][0].update(adaptive=None),
        lambda h: h["streams"][0]["stream"].update(fed="predict"),
        lambda h: h["streams"][0]["stream"].update(next="5"),
        lambda h: h["streams"][0]["stream"].update(next=2.5),
        lambda h: h["streams"][0]["stream"].update(next=10**400),
        lambda h: h["streams"][0]["stream"].update(totals=[1.0]),
        lambda h: h["streams"][0]["stream"].update(totals=[1.0, 1.0, float("nan")]),
        lambda h: h["streams"][0]["stream"].update(arrival_s=float("inf")),
        lambda h: h["streams"][0]["stream"].update(now_s=[]),
        lambda h: h["streams"][0]["adaptive"].update(now=-1),
        lambda h: h["streams"][0]["adaptive"].update(last=10**6),
        lambda h: h["streams"][0]["adaptive"].update(usual=False),
    ],
)
def test_a_forged_snapshot_is_refused(fed: Predictor, change: Any) -> None:
    refused(fed, sealed(fed.snapshot(), change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_forged_numbers_are_refused(fed: Predictor, value: float) -> None:
    refused(fed, sealed(fed.snapshot(), lambda h: None, np.full(4000, value, np.float32).tobytes()))


@pytest.mark.parametrize("key", [("a", 1), 1.5, None, True, 1 << 63])
def test_a_key_that_cannot_be_written_is_named(requests: Predictor, key: Any) -> None:
    requests.stream(key)
    with pytest.raises(InputError, match="snapshot: expected keys that are texts or whole numbers of 64 bits, got"):
        requests.snapshot()


def test_a_snapshot_takes_little_more_than_the_window_and_the_forecast_given_and_judged(requests: Predictor) -> None:
    for key in range(100):
        for i in range(40):
            requests.stream(key).observe(1.7e9 + i / 3, 700, 300)
    requests.forecast_many(range(100))
    window, forecast = 16 * 3 * 4, 4 * 3 * 7 * 4
    assert len(requests.snapshot()) / 100 < 2 * (window + forecast) + 240
