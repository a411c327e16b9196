"""From a trace to a live forecast: the parts agree with each other, on the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.stream_equals_batch import main as stream_equals_batch
from export.artifact import export_checkpoint
from runtime import Predictor
from tests.training.traces import request_trace
from training.checkpoint import load_checkpoint
from training.config import build_runs
from training.registry import model_names
from training.run import prepare, train_model
from training.series import build_series
from training.trace import Trace
from training.trace_write import write_trace

LENGTHS = {"context": 12, "horizon": 3, "epochs": 1, "device": "cpu"}


def week_of_hours() -> Trace:
    """Hourly counts with a day cycle, on the wall clock, so that models get a calendar."""
    counts = np.random.default_rng(3).poisson(100 + 50 * np.sin(np.arange(8 * 24) * 2 * np.pi / 24)).astype(float)
    return Trace(
        time_s=1.7e9 - 1.7e9 % 3600 + np.arange(len(counts)) * 3600.0,
        request_tokens=None,
        response_tokens=None,
        requests=counts,
        bin_s=3600.0,
        clock="epoch",
        sources=("week.csv",),
    )


def requests_with_a_gap_and_equal_times() -> Trace:
    trace = request_trace(700, start_s=1.7e9)
    times = trace.time_s.copy()
    times[100:110] = times[100]
    times[300:] += 2 * 86400
    return replace(trace, time_s=np.round(times, 3))


CASES = {
    "requests": (requests_with_a_gap_and_equal_times, {"series": "requests"}),
    "load": (requests_with_a_gap_and_equal_times, {"series": "load", "bin_s": 2.0}),
    "counts": (week_of_hours, {"series": "load", "bin_s": 3600.0, "calendar": "day"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", model_names())
def test_every_model_trains_exports_and_streams_as_it_backtests(model, case, tmp_path):
    make, settings = CASES[case]
    trace = make()
    run = build_runs([model], {**LENGTHS, **settings})[0]
    write_trace(trace, tmp_path / "trace.csv", format="counts" if trace.is_counts else "azure")
    folder = tmp_path / "run"
    folder.mkdir()
    from training.readers import read_trace

    data = prepare(read_trace([tmp_path / "trace.csv"]), run.data)
    train_model(data, run, folder)
    published = export_checkpoint(folder, formats=("onnx", "torchscript"), out=tmp_path / "artifacts")

    result = CliRunner().invoke(
        stream_equals_batch,
        ["--trace", tmp_path / "trace.csv", "--run", folder, "--artifact", published.path, "--json"],
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["origins"] == len(data.split.test)
    assert found["sources"] == {"model": found["origins"]}
    assert found["largest_relative_difference"] < 1e-4


@pytest.mark.parametrize(("kind", "bin_s"), [("requests", 0.0), ("load", 1.0)])
def test_a_stream_sees_the_steps_of_the_series_bit_for_bit(kind, bin_s, tmp_path):
    trace = requests_with_a_gap_and_equal_times()
    run = build_runs(["dlinear"], {**LENGTHS, "series": kind, "bin_s": bin_s or 60.0})[0]
    train_model(prepare(trace, run.data), run, tmp_path)
    predictor = Predictor(export_checkpoint(tmp_path, out=tmp_path / "artifacts").path)
    series = build_series(trace, kind=kind, bin_s=bin_s or 60.0)
    for row in range(len(trace)):
        predictor.observe(trace.time_s[row], trace.request_tokens[row], trace.response_tokens[row])
    end = series.time_s[-1] + (bin_s or 0.0)
    last = predictor.forecast(now_s=max(end, trace.time_s[-1]) if kind == "requests" else None)
    np.testing.assert_array_equal(last.values, predictor.predict(series.values[-12:]))
    assert last.start_s == end


def test_the_calendar_of_the_stream_is_that_of_the_series(tmp_path):
    run = build_runs(["dlinear"], {**LENGTHS, "series": "load", "bin_s": 3600.0, "calendar": "day"})[0]
    data = prepare(week_of_hours(), run.data)
    train_model(data, run, tmp_path)
    predictor = Predictor(export_checkpoint(tmp_path, out=tmp_path / "artifacts").path)
    windows = load_checkpoint(tmp_path).windows
    context, time_s = windows["context"][7], float(windows["time_s"][7])
    for step, values in enumerate(context.tolist()):
        predictor.observe_bin(time_s - (len(context) - 1 - step) * 3600.0, *values)
    np.testing.assert_array_equal(predictor.forecast().values, predictor.predict(context, time_s))
    assert not np.allclose(predictor.predict(context, time_s), predictor.predict(context, time_s + 6 * 3600))


@pytest.mark.slow
def test_the_demo_runs_and_draws(tmp_path, monkeypatch):
    (tmp_path / "trace.png").write_bytes(b"of an earlier demo")
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--out", tmp_path, "--days", "1", "--epochs", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A replica that takes 5 minutes to start" in done.stdout
    for picture in ("forecast.png", "trace.png", "runs/gru/loss.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
