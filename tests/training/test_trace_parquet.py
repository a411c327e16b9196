"""Parquet: the same trace, the same rules and the same words as for text."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.test_trace_read import AZURE, BURSTGPT, write
from training.errors import TraceError
from training.readers import read_trace

ROWS = {
    "Timestamp": [5.0, 45.0, 118.0],
    "Model": ["ChatGPT", "ChatGPT", "GPT-4"],
    "Request tokens": [472, 1087, 417],
    "Response tokens": [18, 230, 276],
}


def parquet(path: Path, columns, **options) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def fingerprint(path: Path, **options) -> str:
    return read_trace([path], **options).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"Timestamp": pa.array([5, 45, 118], pa.int64())},
        {"Request tokens": pa.array([472, 1087, 417], pa.uint16())},
        {"Response tokens": [18.0, 230.0, 276.0]},
        {"Request tokens": ["472", "1087", "417"]},
        {"Timestamp": ["5", "45.0", "118"]},
        {"Model": pa.array([[1], [2, 3], []])},
    ],
    ids=["plain", "int times", "uint16", "float tokens", "text tokens", "text times", "a list nobody reads"],
)
def test_parquet_gives_the_trace_that_csv_gives(tmp_path, change):
    plain = read_trace([write(tmp_path / "a.csv", BURSTGPT)])
    trace = read_trace([parquet(tmp_path / "a.parquet", ROWS | change)])
    assert trace.fingerprint() == plain.fingerprint()
    assert trace.request_tokens.dtype == np.int32


@pytest.mark.parametrize("dress", ["text", "text with offset", "ns", "us", "with zone"])
def test_dates_are_utc_epoch_seconds_to_the_same_bit_as_from_csv(tmp_path, dress):
    text = ["2023-11-16 18:17:03.979960", "2023-11-16 18:17:04.031960"]
    dates = [datetime.datetime.fromisoformat(t) for t in text]
    times = {
        "text": text,
        "text with offset": [t + "+00:00" for t in text],
        "ns": pa.array(dates, pa.timestamp("ns")),
        "us": pa.array(dates, pa.timestamp("us")),
        "with zone": pa.array(dates, pa.timestamp("us", "Europe/Berlin")),
    }[dress]
    path = parquet(
        tmp_path / "a.parquet", {"TIMESTAMP": times, "ContextTokens": [4808, 3180], "GeneratedTokens": [10, 8]}
    )
    assert fingerprint(path) == fingerprint(write(tmp_path / "a.csv", AZURE))


def test_counts_and_mooncake_are_told_from_the_columns(tmp_path):
    counts = parquet(tmp_path / "c.parquet", {"time_s": [0, 60, 120], "requests": [2, 1, 0]})
    trace = read_trace([counts])
    assert (trace.bin_s, trace.requests.tolist()) == (60.0, [2.0, 1.0, 0.0])
    moon = {"timestamp": [0, 3052], "input_length": [6758, 7236], "output_length": [500, 794]}
    assert read_trace([parquet(tmp_path / "m.parquet", moon)]).time_s.tolist() == [0.0, 3.052]


def test_columns_can_be_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"ts": [1700000000500, 1700000001000], "i": [1, 2], "o": [3, 4]})
    columns = {"time": "ts", "request_tokens": "i", "response_tokens": "o", "time_unit": "ms"}
    assert read_trace([path], columns=columns).time_s.tolist() == [1700000000.5, 1700000001.0]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_one_column_may_stand_for_two(tmp_path, form):
    path = tmp_path / f"a.{form}"
    rows = {"ts": [1.0, 2.0, 3.0], "n": [7, 0, 8]}
    if form == "parquet":
        parquet(path, rows)
    else:
        write(path, "ts,n\n1,7\n2,0\n3,8\n")
    columns = {"time": "ts", "request_tokens": "n", "response_tokens": "n"}
    trace = read_trace([path], columns=columns, clean=True)
    assert trace.request_tokens.tolist() == trace.response_tokens.tolist() == [7, 0, 8]
    trace = read_trace([write(tmp_path / "b.csv", "ts,n\n1,7\n2,-1\n3,8\n")], columns=columns, clean=True)
    assert trace.request_tokens.tolist() == trace.response_tokens.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("Request tokens", None, r"a\.parquet: row 2: expected a number in 'Request tokens', got 'null'; .*--clean"),
        (
            "Request tokens",
            1.5,
            r"a\.parquet: row 2: expected a whole number of tokens .*, got '1\.5'",
        ),
        ("Request tokens", -1, r"a\.parquet: row 2: expected 0 or more tokens in 'Request tokens', got '-1'"),
        ("Request tokens", 3_000_000_000, r"a\.parquet: row 2: expected at most 2147483647 tokens"),
        ("Timestamp", float("nan"), r"a\.parquet: row 2: expected a finite number in 'Timestamp', got 'NaN'"),
        ("Timestamp", float("inf"), r"a\.parquet: row 2: expected a finite number"),
        ("Timestamp", 4.0, r"a\.parquet: row 2: expected times in order in 'Timestamp', got '4\.0' after '5\.0'"),
        ("Timestamp", 1.7e9, r"a\.parquet: row 2: expected relative times"),
    ],
)
def test_a_bad_row_is_named_and_dropped_or_mended_by_clean(tmp_path, column, value, match):
    rows = {name: [*values[:1], value if name == column else values[1], *values[2:]] for name, values in ROWS.items()}
    path = parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(TraceError, match=match):
        read_trace([path])
    trace = read_trace([path], clean=True)
    assert len(trace) in (2, 3)
    assert trace.notes


def test_a_date_that_is_missing_is_named(tmp_path):
    times = pa.array([datetime.datetime(2024, 5, 10), None], pa.timestamp("us"))
    path = parquet(tmp_path / "a.parquet", {"TIMESTAMP": times, "ContextTokens": [1, 2], "GeneratedTokens": [1, 2]})
    with pytest.raises(TraceError, match=r"a\.parquet: row 2: expected a number or a date .* got 'null'"):
        read_trace([path])


def test_files_that_are_no_trace_say_what_they_are(tmp_path):
    whole = parquet(tmp_path / "a.parquet", ROWS).read_bytes()
    damaged = tmp_path / "b.parquet"
    for content in (whole[:-20], whole[: len(whole) // 2], whole[:4]):
        damaged.write_bytes(content)
        with pytest.raises(TraceError, match=r"b\.parquet: expected a complete Parquet file, got a truncated"):
            read_trace([damaged])
    with pytest.raises(TraceError, match=r"c\.parquet: expected rows, got none"):
        read_trace([parquet(tmp_path / "c.parquet", {name: values[:0] for name, values in ROWS.items()})])
    with pytest.raises(TraceError, match=r"d\.parquet: expected the header of a known format .* got 'a, b'"):
        read_trace([parquet(tmp_path / "d.parquet", {"a": [1], "b": [2]})])


def test_pages_damaged_inside_are_an_error_not_a_short_trace(tmp_path):
    rows = {"Timestamp": np.arange(50_000.0), "Request tokens": np.arange(50_000), "Response tokens": np.arange(50_000)}
    path = parquet(tmp_path / "a.parquet", rows, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[20_000:20_100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"a\.parquet: expected a complete Parquet file"):
        read_trace([path])


def test_text_and_parquet_join_and_progress_adds_up(tmp_path):
    late = parquet(tmp_path / "a.parquet", ROWS | {"Timestamp": [205.0, 245.0, 318.0]})
    early, seen = write(tmp_path / "b.csv", BURSTGPT), []
    trace = read_trace([late, early], on_bytes=seen.append)
    assert trace.time_s.tolist() == [5.0, 45.0, 118.0, 205.0, 245.0, 318.0]
    assert sum(seen) == late.stat().st_size + early.stat().st_size
