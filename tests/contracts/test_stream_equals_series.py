"""Property: whatever the trace, the runtime's stream holds the last steps of the offline series, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Predictor
from training.errors import TraceError
from training.series import build_series
from training.trace import Trace

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"
GAP_S = 21600.0
WAITS = st.sampled_from([0.0, 0.001, 0.25, 7.0, 59.999, 60.0, 61.0, 3600.0, GAP_S, GAP_S + 0.5, 90000.0])


@pytest.mark.parametrize("kind", ["requests", "load"])
@settings(max_examples=150, deadline=None)
@given(
    start_s=st.sampled_from([0.0, 0.1, 59.9, 1.7e9, 1.7e9 + 0.123456]),
    waits=st.lists(WAITS, min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_the_stream_holds_the_last_steps_of_the_series(kind, start_s, waits, seed):
    times = start_s + np.cumsum(np.array(waits))
    tokens = np.random.default_rng(seed).integers(0, 5000, (2, len(times)), dtype=np.int32)
    trace = Trace(
        time_s=times,
        request_tokens=tokens[0],
        response_tokens=tokens[1],
        requests=None,
        bin_s=None,
        clock="epoch" if start_s > 1e9 else "relative",
        sources=("made.csv",),
    )
    predictor = Predictor(ARTIFACTS / kind)
    for time_s, asked, answered in zip(times, *tokens, strict=True):
        predictor.observe(time_s, asked, answered)
    held, context = predictor._live._stream.steps.last(), predictor.manifest["context"]

    try:
        series = build_series(trace, kind=kind, bin_s=predictor.manifest["bin_s"] or 60.0, gap_s=GAP_S)
    except TraceError:
        assert not len(held)
        return
    # The last segment of the series, unless the requests after the last gap make no step yet.
    breaks = np.flatnonzero(np.diff(times) > GAP_S)
    after = times[breaks[-1] + 1] if len(breaks) else -np.inf
    same = (series.segment == series.segment[-1]) & (series.time_s >= after)
    np.testing.assert_array_equal(held, series.values[same][-context:])
