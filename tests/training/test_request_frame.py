"""Tables of requests: read exactly, or refused with the row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.training.frames import request_frame
from tests.training.traces import count_trace, request_trace
from training.errors import TraceError
from training.request_frame import frame_to_trace, trace_to_frame


def test_a_trace_goes_through_a_table_unchanged():
    trace = request_trace(50, start_s=1.7e9)
    assert frame_to_trace(trace_to_frame(trace)).fingerprint() == trace.fingerprint()


def test_dates_become_epoch_seconds():
    text = ["2023-11-16 18:15:46.6805900", "2023-11-16 18:15:50.9951690"]
    for column in (text, pd.to_datetime(text), pd.to_datetime(text, utc=True)):
        trace = frame_to_trace(pd.DataFrame({"Timestamp": column, "Request tokens": 1, "Response tokens": 2}))
        np.testing.assert_allclose(trace.time_s, [1700158546.68059, 1700158550.995169], rtol=0, atol=1e-6)
        assert trace.clock == "epoch"


def test_numbers_as_text_and_further_columns_do_not_matter():
    frame = request_frame(20)
    other = frame.astype(str).assign(Model="GPT-4")
    np.testing.assert_array_equal(frame_to_trace(other).request_tokens, frame["Request tokens"])


def edited(column, row, value):
    frame = request_frame(20).astype(float)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([1, 2], "expected a pandas.DataFrame, got list"),
        (request_frame(20).iloc[:0], "expected at least one row"),
        (request_frame(20).rename(columns={"Timestamp": "timestamp"}), "column 'Timestamp', got none.*'timestamp'"),
        (edited("Request tokens", 3, np.nan), "a number in 'Request tokens', got np.float64.nan. in row 3; drop"),
        (edited("Timestamp", 4, np.inf), "a number in 'Timestamp', got np.float64.inf. in row 4"),
        (edited("Response tokens", 5, -1), "expected 0 or more in 'Response tokens', got -1 in row 5"),
        (edited("Response tokens", 5, 1.5), "expected a whole number in 'Response tokens', got 1.5 in row 5"),
        (edited("Response tokens", 5, 3e9), "expected at most 2147483647 in 'Response tokens', got 3000000000 in row"),
        (edited("Timestamp", 7, 0.0), "expected times in order in 'Timestamp', got 0 in row 7; sort the rows"),
        (edited("Timestamp", 0, -2.0), "expected 0 or more in 'Timestamp', got -2 in row 0"),
        (edited("Timestamp", 19, 1.7e9), "expected one clock"),
        (edited("Timestamp", 19, 1.7e12), "expected seconds in 'Timestamp'.*divide milliseconds by 1000"),
    ],
)
def test_what_is_no_table_of_requests_is_refused(frame, message):
    with pytest.raises(TraceError, match=message):
        frame_to_trace(frame)


def test_a_date_that_is_none_is_refused():
    frame = pd.DataFrame({"Timestamp": ["2023-11-16 18:15:46", "soon"], "Request tokens": 1, "Response tokens": 2})
    with pytest.raises(TraceError, match="expected a date in 'Timestamp', got 'soon' in row 1"):
        frame_to_trace(frame)


def test_counts_are_no_requests():
    with pytest.raises(TraceError, match="expected one row per request, got counts"):
        trace_to_frame(count_trace(np.ones(5)))
