"""Lines of text become rows, whatever trace they come from."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from runtime import InputError
from runtime.rows import MAX_LINE_BYTES, Row, read_rows


def rows(text: str | bytes, format: str = "auto") -> list[Any]:
    stream = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    return [row for _, row in read_rows(stream, format=format)]


def test_the_three_kinds_of_trace_and_ready_counts_are_known_by_their_header() -> None:
    assert rows("timestamp_s,request_tokens,response_tokens\n1.5,2,3\n") == [
        Row(time_s=1.5, request_tokens=2, response_tokens=3)
    ]
    burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n"
    assert rows(burst) == [Row(time_s=5, request_tokens=472, response_tokens=18)]
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    assert rows(azure) == [Row(time_s=1700158546.68059, request_tokens=374, response_tokens=44)]
    assert rows("start_s,requests\n60,4\n") == [Row(time_s=60, requests=4)]
    assert rows("requests,start_s,response_tokens,request_tokens\n4,60,2,1\n") == [
        Row(time_s=60, requests=4, request_tokens=1, response_tokens=2)
    ]


def test_json_lines_have_the_same_names() -> None:
    text = (
        '{"timestamp_s": 1.5, "request_tokens": 2, "response_tokens": 3, "model": "x"}\n{"start_s": 60, "requests": 4}'
    )
    assert rows(text) == [Row(time_s=1.5, request_tokens=2, response_tokens=3), Row(time_s=60, requests=4)]
    assert rows('{"timestamp_s": "2023-11-16T18:15:46Z"}', "jsonl") == [Row(time_s=1700158546.0)]
    azure = '{"TIMESTAMP": "2023-11-16 18:15:46", "ContextTokens": 4, "GeneratedTokens": "2"}'
    assert rows(azure) == [Row(time_s=1700158546.0, request_tokens=4, response_tokens=2)]
    mooncake = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]}'
    assert rows(mooncake) == [Row(time_s=27.482, request_tokens=6955, response_tokens=52)]


def test_published_counts_are_not_taken_for_requests() -> None:
    # TIMESTAMP is the count there; Azure's request rows have the same name for the time.
    text = "Time,TIMESTAMP\n2024-05-10 00:00:00+00:00,56\n2024-05-10 00:00:10+00:00,49\n"
    assert rows(text) == [Row(time_s=1715299200, requests=56), Row(time_s=1715299210, requests=49)]


@pytest.mark.parametrize(
    ("header", "line", "row"),
    [
        ("time_s,requests", "60,4", Row(time_s=60, requests=4)),
        (
            "time_s,requests,request_tokens,response_tokens",
            "60,4,10.5,2",
            Row(time_s=60, requests=4, request_tokens=10.5, response_tokens=2),
        ),
        ("pool,ts,requests,active_clients", "m,600,28,3", Row(time_s=600, requests=28)),
        ("DateTime,Count", "2024-05-10,7", Row(time_s=1715299200, requests=7)),
        ("START_S, Requests", "60,4", Row(time_s=60, requests=4)),
        ("timestamp,contexttokens,generatedtokens", "1,2,3", Row(time_s=1, request_tokens=2, response_tokens=3)),
        ("timestamp,Request Tokens,response tokens", "1,2,3", Row(time_s=1, request_tokens=2, response_tokens=3)),
        ("timestamp_s,model", "1,x", Row(time_s=1)),
    ],
)
def test_names_and_their_letter_case_are_those_of_the_trace_readers(header: str, line: str, row: Row) -> None:
    assert rows(f"{header}\n{line}\n") == [row]


@pytest.mark.parametrize("format", ["auto", "csv", "jsonl"])
def test_gzip_on_stdin_ends_the_reading_with_what_to_do(format: str) -> None:
    with pytest.raises(InputError, match=r"^stdin: expected lines of text, got gzip; gunzip first: zcat FILE \|"):
        rows(gzip.compress(b"timestamp_s\n1\n"), format)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("2023-11-16 18:15:46.6805900", 1700158546.68059),
        ("2023-11-16T18:15:46", 1700158546.0),
        ("2024-05-10 00:00:00.009930+00:00", 1715299200.00993),
        ("2024-05-10T02:00:00+02:00", 1715299200.0),
        ("2024-02-29 00:00:00.5", 1709164800.5),
        ("1.7e9", 1.7e9),
    ],
)
def test_times_are_seconds_or_dates(text: str, time_s: float) -> None:
    assert rows(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{text},1,1\n")[0].time_s == time_s


def test_byte_order_marks_blank_lines_quotes_and_windows_line_ends_are_fine() -> None:
    text = b'\xef\xbb\xbftimestamp_s,"request_tokens",response_tokens\r\n\r\n"1",2, 3 \r\n\n'
    assert rows(text) == [Row(time_s=1, request_tokens=2, response_tokens=3)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2", "expected 3 values as in the header, got 2 in '1,2'"),
        ("1,2,3,4", "expected 3 values as in the header, got 4"),
        ("1,x,3", "expected a number for request_tokens, got 'x'"),
        ("yesterday,2,3", "expected seconds or a date-time like .* for timestamp_s, got 'yesterday'"),
        ("2023-02-29 00:00:00,2,3", "expected a day of the calendar"),
        ("2023-02-20 24:00:00,2,3", "expected a time of the day"),
        ("2023-02-20 23:59:60,2,3", "expected a time of the day"),
        ("1,2.5,3", "expected a whole number of tokens for request_tokens, got '2.5'"),
        ("1,2,1_000", "expected a number for response_tokens, got '1_000'"),
        ("1_000,2,3", "expected seconds or a date-time like .* for timestamp_s, got '1_000'"),
        ("1,nan,3", "expected a finite number for request_tokens, got 'nan'"),
        ("1700158546680,2,3", "expected seconds for timestamp_s, got '1700158546680'; divide milliseconds by 1000"),
        ('"1,2,3', "expected comma-separated values"),
        ("1," + "9" * MAX_LINE_BYTES + ",3", f"expected a line of less than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_bad_line_takes_its_place_and_the_next_one_is_read(line: str, said: str) -> None:
    found = list(read_rows(io.BytesIO(f"timestamp_s,request_tokens,response_tokens\n{line}\n7,8,9\n".encode())))
    assert [number for number, _ in found] == [2, 3]
    with pytest.raises(InputError, match=f"^stdin:2: {said}"):
        raise found[0][1]  # type: ignore[misc]
    assert found[1][1] == Row(time_s=7, request_tokens=8, response_tokens=9)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        "{}",
        '{"timestamp_s": 1, "start_s": 1}',
        '{"start_s": 1}',
        '{"start_s": 1, "requests": null}',
        '{"start_s": 1, "requests": true}',
        '{"timestamp_s": [1]}',
        '{"timestamp_s": 1, "request_tokens": 1.5}',
        "[" * 50_000,
    ],
)
def test_a_bad_json_line_takes_its_place(line: str) -> None:
    found = rows(f'{{"timestamp_s": 1}}\n{line}\n{{"timestamp_s": 2}}\n')
    assert [type(row) for row in found] == [Row, InputError, Row]
    assert str(found[1]).startswith("stdin:2: expected ")


def test_bytes_that_are_no_text_are_a_bad_line() -> None:
    found = rows(b'{"timestamp_s": 1}\n\xff\xfe\n')
    assert "stdin:2: expected UTF-8 text" in str(found[1])


@pytest.mark.parametrize(
    "header",
    [
        "a,b",
        "5,472,18",
        "timestamp_s,start_s,requests",
        "start_s",
        "Timestamp_s,timestamp_s",
        "TIMESTAMP,ContextTokens",
    ],
)
def test_a_header_that_names_nothing_known_ends_the_reading(header: str) -> None:
    with pytest.raises(InputError, match="^stdin:1: expected "):
        rows(f"{header}\n1,2\n")


def test_a_stream_that_cannot_be_read_says_so() -> None:
    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match="^stdin: expected lines of text, got Input/output error; give a file or a pi"):
        list(read_rows(Broken()))
