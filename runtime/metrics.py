"""`Predictor.stats` for Prometheus: read when it is scraped, serving pays nothing for it. Needs the extra `serve`.

from prometheus_client import REGISTRY, start_http_server
REGISTRY.register(PredictorCollector(predictor))
start_http_server(9100)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import MissingDependencyError
from .predictor import Predictor

_LABELS = ["model", "version"]


class PredictorCollector:
    """A collector for a registry of prometheus_client; one for all predictors of the process.

    Args:
        predictors: each another model.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """

    def __init__(self, *predictors: Predictor) -> None:
        self._predictors = predictors
        self._core = _import_prometheus().core

    def collect(self) -> Iterator[Any]:
        """The metrics as they stand; called by the registry."""
        core = self._core
        runs = core.HistogramMetricFamily(
            "fcast_run_seconds",
            "How long the model ran, for one window or for many at once.",
            labels=[*_LABELS, "windows"],
        )
        windows = core.CounterMetricFamily("fcast_batch_windows", "Windows in runs for many.", labels=_LABELS)
        forecasts = core.CounterMetricFamily("fcast_forecasts", "Forecasts by source.", labels=[*_LABELS, "source"])
        failures = core.CounterMetricFamily(
            "fcast_failures", "Runs that gave no forecast, by reason.", labels=[*_LABELS, "reason"]
        )
        wql = core.GaugeMetricFamily(
            "fcast_wql", "Rolling wQL of the model, and of two simple forecasts.", labels=[*_LABELS, "of"]
        )
        coverage = core.GaugeMetricFamily(
            "fcast_coverage", "Rolling share of steps at or below each level of the model.", labels=[*_LABELS, "level"]
        )
        judged = core.GaugeMetricFamily("fcast_judged_forecasts", "Forecasts that these are of.", labels=_LABELS)
        drift = core.GaugeMetricFamily("fcast_drift", "1 while the traffic has left the model behind.", labels=_LABELS)
        opened = core.GaugeMetricFamily(
            "fcast_breaker_open_streams", "Streams in which a simple forecast speaks for the model.", labels=_LABELS
        )
        for stats in (predictor.stats() for predictor in self._predictors):
            model = [stats["name"], str(stats["version"])]
            for windows_of, found in (("one", stats["runs"]), ("many", stats["batch_runs"])):
                below = [("+Inf" if bound == float("inf") else repr(bound), n) for bound, n in found["below_s"].items()]
                runs.add_metric([*model, windows_of], below, found["total_s"])
            windows.add_metric(model, stats["batch_runs"]["windows"])
            for source, count in stats["sources"].items():
                forecasts.add_metric([*model, source], count)
            for reason, count in stats["failures"].items():
                failures.add_metric([*model, reason], count)
            if (turned_out := stats["judged"]) is not None:
                for of, score in turned_out["wql"].items():
                    wql.add_metric([*model, of], score)
                for level, share in turned_out["coverage"].items():
                    coverage.add_metric([*model, f"{level:g}"], share)
                judged.add_metric(model, turned_out["forecasts"])
                drift.add_metric(model, float(turned_out["drift"]))
                opened.add_metric(model, turned_out["open"])
        yield from (runs, windows, forecasts, failures, wql, coverage, judged, drift, opened)


def _import_prometheus() -> Any:
    try:
        import prometheus_client.core
    except ImportError as error:
        raise MissingDependencyError(
            f"prometheus_client: expected it installed, got {error}; pip install 'fcast[serve]'"
        ) from None
    return prometheus_client
