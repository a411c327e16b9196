from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.test_trace_read import AZURE, BURSTGPT, MOONCAKE, write
from training.cleaning import MAX_PLAUSIBLE_TOKENS
from training.errors import TraceError
from training.readers import read_trace

HEADER = BURSTGPT.split("\n")[0]


def test_cleaning_a_clean_trace_changes_nothing_and_says_nothing(tmp_path: Path) -> None:
    for text in (BURSTGPT, AZURE, MOONCAKE):
        path = write(tmp_path / "a.csv", text)
        cleaned = read_trace([path], clean=True)
        assert cleaned.notes == ()
        assert cleaned.fingerprint() == read_trace([path]).fingerprint()


def test_every_action_is_done_and_noted_with_its_rows(tmp_path: Path) -> None:
    body = """9,m,1,1,2,log
5,m,2,2,4,log
6,m,3,0,3,log
7,m,4,0,4,log
8,m,x,1,1,log
8,m,1
nan,m,1,1,1,log
10,m,-5,1,1,log
1.7e9,m,1,1,1,log
11,m,99999999999999999999,7,1,log
12,m,8,30000000,1,log
"""
    trace = read_trace([write(tmp_path / "a.csv", f"{HEADER}\n{body}")], clean=True)
    assert trace.notes == (
        "dropped 3 rows with unreadable values",
        "dropped 1 row with negative values",
        "dropped 1 row whose time is on another clock than most",
        "dropped 2 failed requests (response tokens 0)",
        "clipped 2 token counts above 10,000,000",
        "sorted by time: 1 row was out of order",
    )
    assert trace.time_s.tolist() == [5.0, 9.0, 11.0, 12.0]
    assert trace.request_tokens.tolist() == [2, 1, MAX_PLAUSIBLE_TOKENS, 8]
    assert trace.response_tokens.tolist() == [2, 1, 7, MAX_PLAUSIBLE_TOKENS]
    assert trace.request_tokens.dtype == np.int32


def test_only_burstgpt_says_that_zero_response_tokens_mean_failure(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", AZURE.replace("3180,8", "3180,0"))
    assert len(read_trace([path], clean=True)) == 2


def test_sorting_keeps_the_order_of_equal_times(tmp_path: Path) -> None:
    body = "9,m,1,1,2,log\n5,m,2,1,4,log\n5,m,3,1,3,log\n9,m,4,1,3,log\n"
    trace = read_trace([write(tmp_path / "a.csv", f"{HEADER}\n{body}")], clean=True)
    assert trace.request_tokens.tolist() == [2, 3, 1, 4]


def test_overlapping_files_are_merged_by_time(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, BURSTGPT) for name in ("a.csv", "b.csv")]
    trace = read_trace(paths, clean=True)
    assert trace.time_s.tolist() == [5.0, 5.0, 45.0, 45.0, 118.0, 118.0]
    assert trace.notes == ("sorted by time: 2 rows were out of order",)


def test_counts_of_the_same_bin_are_added_up(tmp_path: Path) -> None:
    text = "pool,ts,requests,active_clients\na,0,1,1\na,10,2,1\nb,0,10,1\nb,10,20,1\nb,20,x,1\n"
    trace = read_trace([write(tmp_path / "a.csv", text)], clean=True)
    assert trace.requests.tolist() == [11.0, 22.0]
    assert trace.notes == (
        "dropped 1 row with unreadable values",
        "sorted by time: 1 row was out of order",
        "added up 2 rows with the bin of the row before",
    )


@pytest.mark.parametrize("body", ["1,m,x,1,1,log\n", "1,m,1,0,1,log\n", "-1,m,1,1,1,log\n"])
def test_cleaning_everything_away_is_an_error(tmp_path: Path, body: str) -> None:
    with pytest.raises(TraceError, match=r"a\.csv: expected at least one .*row"):
        read_trace([write(tmp_path / "a.csv", f"{HEADER}\n{body}")], clean=True)


def test_a_wrong_time_unit_is_not_cleaned_away(tmp_path: Path) -> None:
    body = "1700000000000,m,1,1,1,log\n1700000001000,m,1,1,1,log\n"
    with pytest.raises(TraceError, match="time_unit=ms"):
        read_trace([write(tmp_path / "a.csv", f"{HEADER}\n{body}")], clean=True)
