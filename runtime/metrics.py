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
        yield from (runs, windows, forecasts, failures)


def _import_prometheus() -> Any:
    try:
        import prometheus_client.core
    except ImportError as error:
        raise MissingDependencyError(
            f"prometheus_client: expected it installed, got {error}; pip install 'fcast[serve]'"
        ) from None
    return prometheus_client
