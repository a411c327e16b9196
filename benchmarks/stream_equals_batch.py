"""Stream the test part of a trace through `runtime.Predictor` and compare with the offline rolling backtest.

    python -m benchmarks.stream_equals_batch --trace TRACE --run runs/gru --artifact artifacts/gru

Both score the same forecast origins against the same targets: once the exported graph fed request by request (or bin
by bin), once torch fed with windows of the whole series, or a stateful model with all of it. The wQL must agree to
1e-4.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from runtime import Forecast, Predictor
from training.backtest import rolling_forecasts
from training.carried import carried_forecasts
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.metrics import wql
from training.readers import read_trace
from training.run import Data, prepare, window_source
from training.stateful import StatefulForecaster

TOLERANCE = 1e-4


def streamed(predictor: Predictor, data: Data) -> Iterator[tuple[int, Forecast]]:
    """Feed the whole trace; yield each new forecast of the test part with its origin in the series."""
    trace, series = data.trace, data.series
    wanted, stateful = set(data.split.test.tolist()), "step" in predictor.manifest
    if series.kind == "requests":
        assert trace.request_tokens is not None
        assert trace.response_tokens is not None
        steps = 0
        for row, time_s in enumerate(trace.time_s):
            predictor.observe(time_s, trace.request_tokens[row], trace.response_tokens[row])
            steps += int(row > 0 and time_s - trace.time_s[row - 1] <= series.gap_s)
            if steps in wanted or stateful:  # whose state would else begin cold at the first of them
                forecast = predictor.forecast()
            if steps in wanted:
                yield steps, forecast
        return
    origin_at = {start_s: i for i, start_s in enumerate(series.time_s.tolist())}
    for forecast in _load_forecasts(predictor, data):
        origin = origin_at.get(forecast.start_s or 0.0, -1)
        if origin in wanted:
            yield origin, forecast


def _load_forecasts(predictor: Predictor, data: Data) -> Iterator[Forecast]:
    """One forecast at the end of every bin, idle ones too: a scheduler's clock ticks whether requests come or not."""
    trace, series = data.trace, data.series
    if trace.is_counts:
        for start_s, values in zip(series.time_s.tolist(), series.values.tolist(), strict=True):
            predictor.observe_bin(start_s, *values)
            yield predictor.forecast()
        return
    assert trace.request_tokens is not None
    assert trace.response_tokens is not None
    assert series.bin_s is not None
    ends_s = iter((series.time_s + series.bin_s).tolist())
    end_s = next(ends_s)
    for row, time_s in enumerate(trace.time_s):
        while time_s >= end_s:
            yield predictor.forecast(now_s=end_s)
            end_s = next(ends_s, math.inf)
        predictor.observe(time_s, trace.request_tokens[row], trace.response_tokens[row])


@click.command()
@click.option("--trace", "traces", multiple=True, required=True, help="The trace that the model was trained on.")
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True, help="Run folder of fcast-train.")
@click.option("--artifact", type=click.Path(path_type=Path), required=True, help="Its export.")
@click.option("--clean", is_flag=True, help="As given to fcast-train.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: tuple[str, ...], folder: Path, artifact: Path, clean: bool, as_json: bool) -> None:
    """Stream equals batch: exit 1 when the wQL differs by more than 1e-4."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(folder)
    run = RunConfig.from_dict(checkpoint.meta["config"])
    data = prepare(read_trace(traces, clean=clean), run.data)
    if data.trace.fingerprint() != checkpoint.meta["trace"]["fingerprint"]:
        raise click.UsageError(f"{traces[0]}: expected the trace that {folder} was trained on, got another; correct it")

    found = dict(streamed(Predictor(artifact, device="cpu", breaker=False), data))
    origins = np.array(sorted(found), np.int64)
    sources = Counter(forecast.source for forecast in found.values())
    source = window_source(data, torch.device("cpu"))
    offline, target = rolling_forecasts(checkpoint.model, source, origins)
    expected = "model"
    if isinstance(checkpoint.model, StatefulForecaster):
        offline, expected = carried_forecasts(checkpoint.model, data.series, origins), "model:stateful"
    batch = wql(offline, target, run.data.levels)
    stream = wql(np.stack([found[i].values for i in origins.tolist()]), target, run.data.levels)
    difference = float(np.max(np.abs(stream / batch - 1)))
    result = {
        "origins": len(origins),
        "test_origins": len(data.split.test),
        "sources": dict(sources),
        "channels": list(data.series.channels),
        "wql_stream": stream.tolist(),
        "wql_batch": batch.tolist(),
        "largest_relative_difference": difference,
    }
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{len(origins)} of {len(data.split.test)} test origins streamed, sources {dict(sources)}")
        for channel, a, b in zip(data.series.channels, stream, batch, strict=True):
            click.echo(f"  {channel:<16} wQL streamed {a:.6f}   offline {b:.6f}   relative difference {a / b - 1:+.1e}")
    complete = len(origins) == len(data.split.test) and set(sources) == {expected}
    sys.exit(0 if complete and difference <= TOLERANCE else 1)  # nan is no equality


if __name__ == "__main__":
    main()
