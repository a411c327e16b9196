from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.training.test_trace_read import AZURE, BURSTGPT, MOONCAKE, write
from training.errors import ConfigError, TraceError
from training.readers import read_trace

HEADER = BURSTGPT.split("\n")[0]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("45,m,abc,2,3,log", r"a\.csv:3: expected a number in 'Request tokens', got 'abc'; .*--clean"),
        ("soon,m,1,2,3,log", r"a\.csv:3: expected a number or a date .* in 'Timestamp', got 'soon'; .*--clean"),
        ("45,m,1,,3,log", r"a\.csv:3: expected a number in 'Response tokens', got ''; "),
        ("45,m,1,nan,3,log", r"a\.csv:3: expected a finite number in 'Response tokens', got 'nan'; "),
        ("inf,m,1,2,3,log", r"a\.csv:3: expected a finite number in 'Timestamp', got 'inf'; "),
        ("45,m,-1,2,3,log", r"a\.csv:3: expected 0 or more tokens in 'Request tokens', got '-1'; "),
        ("45,m,1.5,2,3,log", r"a\.csv:3: expected a whole number of tokens in 'Request tokens', got '1\.5'; "),
        ("45,m,1_0,2,3,log", r"a\.csv:3: expected a number in 'Request tokens', got '1_0'; "),
        ("45,m,3000000000,2,3,log", r"a\.csv:3: expected at most 2147483647 tokens .*, got '3000000000'; .*clip"),
        ("45,m,1,2,3", r"a\.csv:3: expected 6 fields, got 5 in '45,m,1,2,3'; "),
        ("45,m,1,2,3,log,x", r"a\.csv:3: expected 6 fields, got 7 in '45,m,1,2,3,log,x'; "),
        ("4,m,1,2,3,log", r"a\.csv:3: expected times in order in 'Timestamp', got '4' after '5'; pass --clean to sort"),
        ("-4,m,1,2,3,log", r"a\.csv:3: expected a time of 0 or more in 'Timestamp', got '-4'; "),
        ("1.7e9,m,1,2,3,log", r"a\.csv:3: expected relative times .*, got epoch seconds '1\.7e9'; "),
        ("1700000000000,m,1,2,3,log", r"a\.csv:3: expected seconds .* milliseconds, .*time_unit=ms"),
        ("2024-05-10 00:00:00,m,1,2,3,log", r"a\.csv:3: expected a number in 'Timestamp' as before, got '2024"),
        ('45,"m,1,2,3,log', r"a\.csv:3: expected a CSV row, got one that cannot be read"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_text(tmp_path: Path, row: str, match: str) -> None:
    text = f"{HEADER}\n5,m,1,2,3,log\n{row}\n" + "".join(f"{i},m,1,2,3,log\n" for i in range(100, 110))
    with pytest.raises(TraceError, match=match):
        read_trace([write(tmp_path / "a.csv", text)])


def test_the_line_is_right_after_blank_lines_and_quoted_line_ends(tmp_path: Path) -> None:
    text = f'\n{HEADER}\r\n\r\n5,"a\nb",1,2,3,log\n\n6,m,1,2,3,log\n7,m,x,2,3,log\n'
    with pytest.raises(TraceError, match=r"a\.csv:8: expected a number in 'Request tokens', got 'x'"):
        read_trace([write(tmp_path / "a.csv", text)])


def test_the_line_is_right_far_into_a_file(tmp_path: Path) -> None:
    rows = [f"{i},{'m' * 80},1,2,3,log" for i in range(20_000)]
    rows[19_000] = "19000,m,1,2,3,log,extra"
    with pytest.raises(TraceError, match=r"a\.csv:19002: expected 6 fields, got 7"):
        read_trace([write(tmp_path / "a.csv", "\n".join([HEADER, *rows]))])


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("2023-02-30 00:00:00,1,2", r"a\.csv:4: expected a date in 'TIMESTAMP', got '2023-02-30 00:00:00' \("),
        ("2023-11-17 25:00:00,1,2", r"a\.csv:4: expected a time of day in 'TIMESTAMP', got '2023-11-17 25"),
        ("17.11.2023,1,2", r"a\.csv:4: expected a number or a date"),
        ("2023-11-16 00:00:00,1,2", r"a\.csv:4: expected times in order"),
    ],
)
def test_a_bad_date_is_named(tmp_path: Path, row: str, match: str) -> None:
    with pytest.raises(TraceError, match=match):
        read_trace([write(tmp_path / "a.csv", f"{AZURE}\r\n{row}")])


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ('{"timestamp": 1', r"a\.jsonl:4: expected a JSON object, got '\{\"timestamp\": 1' \("),
        ('{"timestamp": 9000, "input_length": 1}', r"a\.jsonl:4: expected a JSON object with key 'output_length'"),
        ("[1]", r"a\.jsonl:4: expected a JSON object with key 'timestamp', got '\[1\]'"),
        ('{"timestamp": 9000, "input_length": "x", "output_length": 1}', r"'input_length', got 'x'"),
        ('{"timestamp": 9000, "input_length": null, "output_length": 1}', r"'input_length', got 'null'"),
        ('{"timestamp": 9000, "input_length": NaN, "output_length": 1}', r"finite number in 'input_length', got 'NaN'"),
        ('{"timestamp": 9000, "input_length": true, "output_length": 1}', r"'input_length', got 'true'"),
        ("[" * 100_000, r"a\.jsonl:4: expected a JSON object"),
    ],
    ids=["cut", "missing key", "list", "text", "null", "nan", "bool", "deep"],
)
def test_a_bad_json_line_is_named(tmp_path: Path, row: str, match: str) -> None:
    with pytest.raises(TraceError, match=match):
        read_trace([write(tmp_path / "a.jsonl", MOONCAKE + row)])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "got an empty file"),
        (b"\n \n", "got an empty file"),
        (HEADER.encode() + b"\n", "expected rows after the header, got none"),
        (bytes(range(11, 256)) + b"\0\1\2", "got binary data"),
        ("Timestämp,Zähler\n1,2\n".encode("latin-1"), "got binary data"),
        (BURSTGPT.encode("utf-16"), "got binary data"),
        (b"PK\x03\x04....", "got a zip archive"),
        (b"PAR1....", "expected a complete Parquet file, got a truncated or damaged one"),
        (gzip.compress(b"PAR1...."), "got a Parquet file inside gzip"),
        (gzip.compress(b""), "got an empty file"),
        (b"\x1f\x8bnot gzip at all", "expected a complete gzip file"),
        (gzip.compress(BURSTGPT.encode())[:-12], "expected a complete gzip file, got a truncated or damaged one"),
        (b"a,b,c\n1,2,3\n", r"a\.csv:1: expected the header of a known format \(burstgpt, azure.*'a, b, c'.*--columns"),
        (b"5,ChatGPT,472,18\n6,ChatGPT,1,1\n", "seems to have no header"),
        (b'{"a": 1}\n', r"a\.csv:1: expected the header of a known format"),
        (b"{not json\n", r"a\.csv:1: expected a JSON object, got '\{not json'"),
        (HEADER.replace("Response", "Reply").encode() + b"\n1,2,3,4,5,6\n", "expected the header of a known format"),
    ],
)
def test_a_file_that_is_no_trace_says_what_it_is(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=match):
        read_trace([path])
    with pytest.raises(TraceError, match=match):
        read_trace([path], clean=True)


def test_gzip_damaged_deep_inside_is_an_error_not_a_short_trace(tmp_path: Path) -> None:
    text = HEADER + "\n" + "".join(f"{i},m,{i * 7919 % 1000},{i * 104729 % 997},3,log\n" for i in range(50_000))
    packed = gzip.compress(text.encode())
    path = tmp_path / "a.csv.gz"
    for damaged in (packed[: len(packed) // 2], packed[:-4] + b"\0\0\0\0"):
        path.write_bytes(damaged)
        for clean in (False, True):
            with pytest.raises(TraceError, match=r"a\.csv\.gz: expected a complete gzip file"):
                read_trace([path], clean=clean)


def test_binary_garbage_after_a_good_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(BURSTGPT.encode() + b"\xff\xfe,\x01\x02,m\n")
    with pytest.raises(TraceError, match=r"a\.csv:5: expected 6 fields, got 3"):
        read_trace([path])


def test_a_named_format_asks_for_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", BURSTGPT)
    with pytest.raises(TraceError, match=r"a\.csv:1: expected column 'ContextTokens', got columns 'Timestamp'"):
        read_trace([path], format="azure")
    with pytest.raises(TraceError, match="expected JSON lines for format 'mooncake', got CSV"):
        read_trace([path], format="mooncake")
    assert len(read_trace([path], format="burstgpt")) == 3


def test_wrong_choices_name_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", BURSTGPT)
    for format_, columns, match in [
        ("burst-gpt", None, "got 'burst-gpt'; did you mean 'burstgpt'"),
        (None, {"tme": "Timestamp"}, "got 'tme'; did you mean 'time'"),
        (None, {"time": "Timestamp"}, "expected time, request_tokens and response_tokens"),
        (None, {"time": "Timestamp", "requests": "Model", "request_tokens": "Model"}, "both or none"),
        ("burstgpt", {"time": "Timestamp"}, "drop one"),
        (None, {"time": "Timestamp", "requests": "n", "time_unit": "h"}, "expected time_unit"),
    ]:
        with pytest.raises(ConfigError, match=match):
            read_trace([path], format=format_, columns=columns)
    with pytest.raises(TraceError, match="expected column 'n', got columns"):
        read_trace([path], columns={"time": "Timestamp", "requests": "n"})


def test_paths_that_name_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", BURSTGPT)
    for paths, match in [
        ([tmp_path / "b.csv"], "got nothing at this path"),
        ([tmp_path / "x*.csv"], "expected files that match"),
        ([tmp_path], "got a folder"),
        ([], "at least one file"),
        ([path, tmp_path / "*.csv"], "expected each file once"),
    ]:
        with pytest.raises(TraceError, match=match):
            read_trace(paths)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.csv", BURSTGPT)
    again = write(tmp_path / "b.csv", BURSTGPT)
    dated = write(tmp_path / "c.csv", AZURE)
    counts = write(tmp_path / "d.csv", "ts,requests\n0,1\n10,2\n")
    with pytest.raises(TraceError, match=r"the files overlap; pass --clean to sort"):
        read_trace([rows, again])
    with pytest.raises(TraceError, match=r"expected requests on a relative clock .* got requests on the epoch clock"):
        read_trace([rows, dated])
    with pytest.raises(TraceError, match=r"expected counts on a relative clock"):
        read_trace([rows, counts])


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("0,1\n10,2\n10,3\n", r"a\.csv:4: expected one row per bin, got a second one for ts 10\.000 s; .*--clean"),
        ("0,1\n10,2\n\n20,2\n33,3\n43,1\n", r"a\.csv:6: expected bins a whole number of widths .*got 13 s"),
        ("0,1\n10,-2\n", r"a\.csv:3: expected 0 or more in 'requests', got '-2'"),
        ("0,1\n10,many\n", r"a\.csv:3: expected a number in 'requests', got 'many'"),
        ("0,1\n", "expected at least 2 bins"),
    ],
)
def test_counts_that_do_not_fit_bins_are_named(tmp_path: Path, body: str, match: str) -> None:
    with pytest.raises(TraceError, match=match):
        read_trace([write(tmp_path / "a.csv", "ts,requests\n" + body)])
