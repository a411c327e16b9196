from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.errors import TraceError
from training.readers import read_trace
from training.trace import Trace
from training.trace_exact import read_exact
from training.trace_fast import read_fast
from training.trace_file import inspect

REAL = Path(__file__).parents[2].parent / "shared" / "traces"
FINGERPRINT = "ad93501d119767cc1594ccc39b1fa66bd526c5bd1b36b6638a321ceab480375e"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real traces are not beside this checkout")

BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
BURSTGPT2 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5.25,7,0.5,ChatGPT,472,18,490,Conversation log
45.5,,1.25,ChatGPT,1087,230,1317,API log
"""
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:04.0319600,3180,8"
)
AZURE_2024 = AZURE.replace("00,4", "+00:00,4").replace("00,3", "+00:00,3")
MOONCAKE = (
    '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 0, "input_length": 7322, "output_length": 490, "hash_ids": []}\n'
    '{"timestamp": 3052, "input_length": 7236, "output_length": 794, "hash_ids": [2]}\n'
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_burstgpt_v1_is_read_as_published(tmp_path: Path) -> None:
    trace = read_trace([write(tmp_path / "a.csv", BURSTGPT)])
    assert trace.time_s.tolist() == [5.0, 45.0, 118.0]
    assert trace.request_tokens.tolist() == [472, 1087, 417]
    assert trace.response_tokens.tolist() == [18, 230, 276]
    assert trace.time_s.dtype == np.float64
    assert trace.request_tokens.dtype == np.int32
    assert (trace.clock, trace.sources, trace.notes, trace.bin_s) == ("relative", ("a.csv",), (), None)
    assert not trace.is_counts


def test_burstgpt_v2_with_more_columns_and_an_empty_session_is_read(tmp_path: Path) -> None:
    trace = read_trace([write(tmp_path / "a.csv", BURSTGPT2)])
    assert trace.time_s.tolist() == [5.25, 45.5]
    assert trace.response_tokens.tolist() == [18, 230]


@pytest.mark.parametrize("text", [AZURE, AZURE_2024], ids=["2023", "2024"])
def test_azure_times_are_utc_epoch_seconds(tmp_path: Path, text: str) -> None:
    trace = read_trace([write(tmp_path / "a.csv", text)])
    assert trace.clock == "epoch"
    np.testing.assert_array_equal(trace.time_s, [1700158623 + 0.97996, 1700158624 + 0.03196])


def test_an_offset_moves_a_time_to_utc(tmp_path: Path) -> None:
    text = AZURE_2024.replace("+00:00", "+02:00")
    assert read_trace([write(tmp_path / "a.csv", text)]).time_s[0] == 1700158623 - 7200 + 0.97996


def test_mooncake_milliseconds_become_seconds_and_equal_times_are_allowed(tmp_path: Path) -> None:
    trace = read_trace([write(tmp_path / "a.jsonl", MOONCAKE)])
    assert trace.time_s.tolist() == [0.0, 0.0, 3.052]
    assert trace.request_tokens.tolist() == [6758, 7322, 7236]
    assert trace.clock == "relative"


def test_counts_are_told_from_the_header(tmp_path: Path) -> None:
    odd = write(tmp_path / "odd.csv", "Time,TIMESTAMP\n2024-05-10 00:00:00,146\n2024-05-10 00:00:10,238\n")
    pool = write(tmp_path / "pool.csv", "pool,ts,requests,active_clients\nm,0,5.0,4\nm,600,7.0,4\n")
    own = write(tmp_path / "own.csv", "time_s,requests,request_tokens,response_tokens\n0,2,30,4\n60,1,10,5\n")
    trace = read_trace([odd])
    assert (trace.bin_s, trace.clock, trace.requests.tolist()) == (10.0, "epoch", [146.0, 238.0])
    assert trace.request_tokens is None
    trace = read_trace([pool])
    assert (trace.bin_s, trace.clock, trace.requests.tolist()) == (600.0, "relative", [5.0, 7.0])
    trace = read_trace([own])
    assert trace.request_tokens.tolist() == [30.0, 10.0]
    assert trace.request_tokens.dtype == np.float64


def test_bins_that_are_missing_do_not_widen_the_others(tmp_path: Path) -> None:
    times = [0.1 * k for k in range(50) if k % 3]
    path = write(tmp_path / "a.csv", "time,count\n" + "".join(f"{t:.1f},1\n" for t in times))
    assert read_trace([path]).bin_s == pytest.approx(0.1, abs=1e-9)


def test_any_csv_is_read_with_its_columns_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,when,in,out\nx,1,2,3\ny,4,5,6\n")
    columns = {"time": "when", "request_tokens": "in", "response_tokens": "out"}
    trace = read_trace([path], columns=columns)
    assert (trace.time_s.tolist(), trace.request_tokens.tolist(), trace.response_tokens.tolist()) == (
        [1.0, 4.0],
        [2, 5],
        [3, 6],
    )
    assert read_trace([path], columns={"time": "when", "requests": "out"}).requests.tolist() == [3.0, 6.0]


def test_epoch_milliseconds_are_read_with_a_time_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ts,i,o\n1700000000500,1,1\n1700000001000,1,1\n")
    columns = {"time": "ts", "request_tokens": "i", "response_tokens": "o", "time_unit": "ms"}
    trace = read_trace([path], columns=columns)
    assert trace.time_s.tolist() == [1700000000.5, 1700000001.0]
    assert trace.clock == "epoch"


def test_gzip_is_told_from_the_bytes_not_the_name(tmp_path: Path) -> None:
    packed = tmp_path / "packed.csv"
    packed.write_bytes(gzip.compress(BURSTGPT.encode()))
    plain = write(tmp_path / "plain.csv.gz", BURSTGPT)
    assert read_trace([packed]).fingerprint() == read_trace([plain]).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "\n\n" + text,
        lambda text: text.replace("ChatGPT", '"Chat, ""GPT"""'),
        lambda text: text.replace("ChatGPT", '"Chat\nGPT"'),
        lambda text: text.replace("Request tokens", " request TOKENS "),
        lambda text: text.replace("472,18", "472.0,18.0"),
    ],
    ids=["crlf", "bom", "no final newline", "blank lines", "blank head", "quotes", "line in quotes", "case", "floats"],
)
def test_the_same_rows_in_another_dress_have_the_same_fingerprint(tmp_path: Path, change) -> None:
    plain = read_trace([write(tmp_path / "a.csv", BURSTGPT)])
    dressed = read_trace([write(tmp_path / "b.csv", change(BURSTGPT))])
    assert dressed.fingerprint() == plain.fingerprint()


def test_the_fingerprint_is_fixed_and_tells_traces_apart(tmp_path: Path) -> None:
    trace = read_trace([write(tmp_path / "a.csv", BURSTGPT)])
    assert trace.fingerprint() == FINGERPRINT
    other = read_trace([write(tmp_path / "b.csv", BURSTGPT.replace("276", "277"))])
    assert other.fingerprint() != trace.fingerprint()


def test_files_are_joined_in_the_order_of_their_times(tmp_path: Path) -> None:
    late = write(tmp_path / "a.csv", BURSTGPT.replace("\n5,", "\n205,").replace("\n45", "\n245").replace("\n1", "\n3"))
    early = write(tmp_path / "b.csv", BURSTGPT)
    trace = read_trace([late, early])
    assert trace.time_s.tolist() == [5.0, 45.0, 118.0, 205.0, 245.0, 318.0]
    assert trace.sources == ("b.csv", "a.csv")
    assert read_trace([tmp_path / "*.csv"]).fingerprint() == trace.fingerprint()


def test_a_trace_of_one_row_is_read(tmp_path: Path) -> None:
    assert len(read_trace([write(tmp_path / "a.csv", "\n".join(BURSTGPT.split("\n")[:2]))])) == 1


def test_rows_beyond_one_block_are_all_read_in_order(tmp_path: Path) -> None:
    rows = 60_000
    body = "".join(f"{i}.5,{'m' * 20},{i % 7},{i % 5},0,log\n" for i in range(rows))
    trace = read_trace([write(tmp_path / "a.csv", BURSTGPT.split("\n")[0] + "\n" + body)])
    np.testing.assert_array_equal(trace.time_s, np.arange(rows) + 0.5)
    np.testing.assert_array_equal(trace.request_tokens, np.arange(rows) % 7)


def test_progress_adds_up_to_the_bytes_of_the_file(tmp_path: Path) -> None:
    path, seen = write(tmp_path / "a.csv", BURSTGPT), []
    read_trace([path], on_bytes=seen.append)
    assert sum(seen) == path.stat().st_size


@pytest.mark.parametrize("text", [BURSTGPT, BURSTGPT2, AZURE, AZURE_2024], ids=["v1", "v2", "2023", "2024"])
def test_the_fast_and_the_exact_pass_agree_to_the_bit(tmp_path: Path, text: str) -> None:
    source = inspect(write(tmp_path / "a.csv", text), format=None, columns=None)
    fast, exact = read_fast(source), read_exact(source, clean=False)
    assert fast is not None
    for name in ("time_s", "request_tokens", "response_tokens"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(exact, name))


def test_the_fast_pass_does_not_import_pandas_or_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = write(tmp_path / "a.csv", BURSTGPT)
    code = (
        "import sys; from training.readers import read_trace; assert 'pyarrow' not in sys.modules;"
        f"read_trace([{str(path)!r}]); print(sorted({{'pandas', 'torch', 'matplotlib'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trace_refuses_arrays_that_do_not_fit() -> None:
    good = {
        "time_s": np.zeros(2),
        "request_tokens": np.zeros(2, np.int32),
        "response_tokens": np.zeros(2, np.int32),
        "requests": None,
        "bin_s": None,
        "clock": "relative",
        "sources": ("t",),
    }
    assert len(Trace(**good)) == 2
    for bad, match in [
        ({"time_s": np.array([1.0, 0.0])}, "non-decreasing"),
        ({"time_s": np.array([0.0, np.nan])}, "non-decreasing"),
        ({"request_tokens": np.zeros(2)}, "`request_tokens` as int32"),
        ({"request_tokens": None}, "both token columns"),
        ({"bin_s": 1.0}, "together"),
        ({"clock": "wall"}, "clock"),
    ]:
        with pytest.raises(TraceError, match=match):
            Trace(**(good | bad))


@needs_real
@pytest.mark.parametrize(
    ("name", "rows", "clock", "bin_s"),
    [
        ("AzureLLMInferenceTrace_code.csv", 8819, "epoch", None),
        ("AzureLLMInferenceTrace_conv.csv", 19366, "epoch", None),
        ("azure2024_coding_10s_counts.csv.gz", 60481, "epoch", 10.0),
        ("servegen_m-large_10min_counts.csv", 2016, "relative", 600.0),
    ],
)
def test_real_traces_are_read_without_a_format(name: str, rows: int, clock: str, bin_s: float | None) -> None:
    trace = read_trace([REAL / name])
    assert (len(trace), trace.clock, trace.bin_s) == (rows, clock, bin_s)
    if rows < 10_000:
        source = inspect(REAL / name, format=None, columns=None)
        np.testing.assert_array_equal(read_exact(source, clean=False).time_s, trace.time_s)
