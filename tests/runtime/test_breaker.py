"""The circuit breaker: closed while the model is right, open soon after it is not, closed again when it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Predictor
from runtime.breaker import FEW, MANY
from runtime.judge import SPACING
from runtime.rivals import rivals_of
from tests.runtime.breaking import NUMBERS, SPOILT, Host
from tests.runtime.versions import Publish

NAMES = ["requests", "load", "counts", "demand"]


def each(host: Host) -> int:
    """Steps from one judged forecast to the next."""
    m = host.p._model.manifest
    return max(SPACING, m.horizon * m.steps_per_forecast_step)


def judged(host: Host) -> int:
    breaker = host.p._live._breaker
    assert breaker is not None
    return breaker.judge.judged


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adapt", [False, True])
def test_a_right_model_is_never_left(name: str, adapt: bool) -> None:
    host = Host(name, adapt=adapt)
    found = host.run(60 * each(host))
    assert {forecast.source for forecast in found[-58 * each(host) :]} == {"model+adaptive" if adapt else "model"}
    assert judged(host) > 55
    assert not host.p.stats()["judged"]["drift"]


@pytest.mark.parametrize(
    # Quantiles of the four bins that `counts` sees are no better than a median without any spread.
    ("name", "change"),
    [(n, c) for n in NAMES for c in SPOILT if (n, c) != ("counts", "narrow")],
)
def test_a_wrong_model_is_left_within_eight_judged_forecasts_and_gone_back_to(name: str, change: str) -> None:
    host = Host(name)
    host.run(40 * each(host))
    host.spoil = SPOILT[change]
    found = host.run(40 * each(host))
    sources = [forecast.source for forecast in found]
    # One forecast was under way, and coarse steps may be judged by the way to the next one.
    late = (FEW + 2) * each(host) if change in ("100x off", "constant", "silent") else 24 * each(host)
    assert all(source.startswith("fallback:") for source in sources[late:])
    assert re.fullmatch(
        r"fallback:\w+ \((model wQL [\d.e+]+ > [\d.e+]+|0.99 of the model covers [\d.]+, not [\d.]+,) over \d+\)",
        sources[-1],
    )
    host.spoil = None
    sources = [forecast.source for forecast in host.run((MANY + 3) * each(host))]
    assert sources[-1] == "model"
    assert [forecast.source for forecast in host.run(10 * each(host))] == ["model"] * (10 * each(host))


@pytest.mark.parametrize("name", NAMES)
def test_while_it_is_open_forecasts_are_the_rivals_and_the_model_is_asked_once_in_a_horizon(name: str) -> None:
    host = Host(name)
    host.spoil = SPOILT["100x off"]
    host.run(12 * each(host))
    m, before, rivals = host.p._model.manifest, host.asked, rivals_of(host.p._model.manifest)
    for _ in range(6 * each(host)):
        host.observe()
        found = host.p.forecast()
        rival = 0 if "recent_quantiles" in found.source else 1
        np.testing.assert_array_equal(found.values, rivals.forecast(rival, host.window()))
        assert (found.aggregates, found.levels) == (None, m.levels)
        assert host.p.forecast() is found
    assert 5 <= host.asked - before <= 7


def test_a_stream_that_last_values_tell_gets_the_last_value() -> None:
    host = Host("requests")
    host.spoil = np.zeros_like
    level = np.repeat(np.random.default_rng(4).uniform(10, 10_000, 100), 80)
    p, sources = host.p, []
    for i, size in enumerate(level):
        p.observe(float(i), size, size)
        sources.append(p.forecast().source.partition(" ")[0])
    assert sources[-1] == "fallback:last_value"


def test_counters_keep_to_short_names() -> None:
    host = Host("requests")
    host.spoil = SPOILT["100x off"]
    host.run(400)
    host.p.forecast(deadline_s=0)
    host.observe()
    host.p.forecast(deadline_s=0)
    assert set(host.p.stats()["sources"]) <= {
        "model", "fallback:prior", "fallback:empirical", "fallback:recent_quantiles", "fallback:last_value"
    }  # fmt: skip
    assert host.p.stats()["judged"]["open"] == 1


def test_a_late_model_that_was_left_is_stood_in_for_by_the_rival() -> None:
    host = Host("requests")
    host.spoil = SPOILT["100x off"]
    host.run(400)
    for _ in range(2 * SPACING):
        host.observe()
        found = host.p.forecast(deadline_s=0)
        assert found.source.startswith("fallback:recent_quantiles (")
        np.testing.assert_array_equal(found.values, rivals_of(host.p._model.manifest).forecast(0, host.window()))


def test_many_streams_break_one_by_one() -> None:
    host, alone = Host("requests"), Host("requests")
    for other in (host, alone):
        other.spoil = SPOILT["100x off"]
    for i in range(300):
        host.observe(host.p.stream("a"))
        if i % 30 == 0:
            host.p.stream("b").observe(float(i), 5, 5)
        found = host.p.forecast_many(["a", "b"])
        expected = alone.run(1)[0]
        assert found["a"].source == expected.source
        np.testing.assert_array_equal(found["a"].values, expected.values)
    assert found["a"].source.startswith("fallback:recent_quantiles (model wQL")
    assert found["b"].source == "fallback:empirical"
    assert host.p.stats()["judged"]["open"] == 1


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_goes_on_bit_for_bit_through_opening_and_closing(name: str, adapt: bool) -> None:
    whole, broken = Host(name, adapt=adapt), Host(name, adapt=adapt)
    sources = set()
    for i in range(80):
        spoil = SPOILT["100x off"] if 15 <= i < 40 else None
        whole.spoil = broken.spoil = spoil
        data = broken.p.snapshot()
        fresh = Host(name, adapt=adapt)
        fresh.p.restore(data)
        assert fresh.p.snapshot() == data
        fresh.fed, fresh.spoil, broken = broken.fed, spoil, fresh
        for found, expected in zip(broken.run(each(whole) - 5), whole.run(each(whole) - 5), strict=True):
            assert found.source == expected.source
            np.testing.assert_array_equal(found.values, expected.values)
            sources.add(found.source.partition(" ")[0])
    assert {"model+adaptive" if adapt else "model", "fallback:recent_quantiles"} <= sources
    assert adapt or found.source == "model"  # corrections unlearn slowly


def test_a_snapshot_goes_on_where_the_breaker_is_switched_otherwise() -> None:
    host = Host("counts")
    host.spoil = SPOILT["100x off"]
    host.run(200)
    assert host.p.forecast().source.startswith("fallback:recent_quantiles (")
    without = Host("counts", breaker=False)
    without.p.restore(host.p.snapshot())
    without.fed = host.fed
    assert without.run(1)[0].source == "model"
    again = Host("counts")
    again.p.restore(without.p.snapshot())
    again.fed = without.fed
    assert again.run(200)[-1].source == "model"
    assert judged(again) > 10


def test_another_version_of_the_model_begins_closed_and_is_judged_anew(publish: Publish) -> None:
    publish(1)
    host = Host(publish(2), version=1)
    host.spoil = SPOILT["100x off"]
    host.run(300)
    assert host.p.forecast().source.startswith("fallback:")
    assert host.p.stats()["judged"]["open"] == 1
    host.p.reload(2)
    assert host.p.stats()["judged"] | {"validation_wql": None} == {
        "forecasts": 0, "streams": 0, "open": 0, "wql": {}, "validation_wql": None, "coverage": {}, "drift": False,
        "drift_reasons": [],
    }  # fmt: skip
    assert host.p.forecast().source == "model"
    host.stand_in()
    host.spoil = None
    assert {forecast.source for forecast in host.run(300)} == {"model"}
    host.p.rollback()
    assert host.p.forecast().source == "model"


def test_without_a_breaker_nothing_is_judged() -> None:
    host = Host("requests", breaker=False)
    host.spoil = SPOILT["100x off"]
    assert host.run(400)[-1].source == "model"
    assert host.p.stats()["judged"] is None


def test_predict_is_as_it_is(artifacts: Path) -> None:
    host = Host("requests")
    host.spoil = SPOILT["100x off"]
    host.run(300)
    plain: Any = Predictor(artifacts / "requests", device="cpu", breaker=False)
    np.testing.assert_array_equal(host.p.predict(NUMBERS[:16]), plain.predict(NUMBERS[:16]))
