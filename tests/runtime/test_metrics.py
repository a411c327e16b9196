"""A scrape shows what `Predictor.stats` counts."""

from __future__ import annotations

import sys

import pytest

from runtime import MissingDependencyError, Predictor
from runtime.metrics import PredictorCollector
from tests.runtime.breaking import SPOILT, Host


def test_a_scrape_shows_the_counters(requests: Predictor, load: Predictor) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry(auto_describe=True)
    registry.register(PredictorCollector(requests, load))
    for i in range(17):
        requests.observe(float(i), 1, 1)
    requests.forecast()
    load.forecast()
    requests.forecast_many(["a"])
    model = {"model": "requests", "version": "2"}
    assert registry.get_sample_value("fcast_forecasts_total", model | {"source": "model"}) == 1
    assert registry.get_sample_value("fcast_forecasts_total", model | {"source": "fallback:prior"}) == 1
    assert registry.get_sample_value("fcast_run_seconds_count", model | {"windows": "one"}) == 1
    assert registry.get_sample_value("fcast_run_seconds_count", model | {"windows": "many"}) == 0
    total_s = registry.get_sample_value("fcast_run_seconds_sum", model | {"windows": "one"})
    assert total_s == requests.stats()["runs"]["total_s"] > 0
    text = prometheus.generate_latest(registry).decode()
    assert 'fcast_run_seconds_bucket{le="+Inf",model="load",version="1",windows="one"} 0.0' in text
    assert "# TYPE fcast_run_seconds histogram" in text


def test_without_prometheus_client_the_extra_is_named(requests: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(MissingDependencyError, match=r"prometheus_client: expected it installed, .*fcast\[serve\]"):
        PredictorCollector(requests)


def test_a_scrape_shows_how_forecasts_turned_out() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    host = Host("requests")
    host.spoil = SPOILT["100x off"]
    registry.register(PredictorCollector(host.p, Host("load", breaker=False).p))
    host.run(12 * 40)
    model, judged = {"model": "requests", "version": "2"}, host.p.stats()["judged"]
    assert registry.get_sample_value("fcast_breaker_open_streams", model) == 1
    assert registry.get_sample_value("fcast_drift", model) == 1
    assert registry.get_sample_value("fcast_judged_forecasts", model) == judged["forecasts"] == 32
    for of in ("model", "recent_quantiles", "last_value"):
        assert registry.get_sample_value("fcast_wql", model | {"of": of}) == judged["wql"][of] > 0
    assert registry.get_sample_value("fcast_coverage", model | {"level": "0.9"}) == judged["coverage"][0.9] == 1
    assert 'model="load",version="1"' not in prometheus.generate_latest(registry).decode().split("fcast_wql")[1]
