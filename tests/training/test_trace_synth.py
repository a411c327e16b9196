from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.describe import describe, dispersion
from training.errors import ConfigError, TraceError
from training.readers import read_trace
from training.synth import synthesize
from training.trace import Trace
from training.trace_write import SYNTHETIC, to_counts, write_trace

WEEK = synthesize(days=7, rate_per_s=0.3, seed=3)


def requests(time_s: list[float], clock: str = "relative") -> Trace:
    ones = np.ones(len(time_s), np.int32)
    return Trace(
        time_s=np.array(time_s),
        request_tokens=ones,
        response_tokens=ones * 2,
        requests=None,
        bin_s=None,
        clock=clock,
        sources=("made",),
    )


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "a.csv.gz", "b.csv.gz"):
        trace = synthesize(days=0.2, rate_per_s=1, seed=5)
        write_trace(trace, tmp_path / name, format="burstgpt", model=SYNTHETIC)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "a.csv").read_bytes()
    assert synthesize(days=0.2, rate_per_s=1, seed=6).fingerprint() != trace.fingerprint()


def test_a_written_synthetic_trace_reads_back_equal_and_says_synthetic(tmp_path: Path) -> None:
    write_trace(WEEK, tmp_path / "synthetic.csv", format="burstgpt", model=SYNTHETIC)
    assert read_trace([tmp_path / "synthetic.csv"]).fingerprint() == WEEK.fingerprint()
    lines = (tmp_path / "synthetic.csv").read_text().splitlines()
    assert lines[0] == "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    assert all(line.split(",")[1] == "synthetic" for line in lines[1:])
    assert max(len(line.split(",")[0].partition(".")[2]) for line in lines[1:]) == 3


def test_the_synthetic_trace_has_the_rate_asked_for() -> None:
    assert len(WEEK) == pytest.approx(7 * 86400 * 0.3, rel=0.05)
    assert WEEK.time_s[0] >= 0
    assert WEEK.time_s[-1] < 7 * 86400


def test_the_synthetic_trace_is_bursty_has_cycles_and_heavy_correlated_lengths() -> None:
    facts = describe(WEEK)
    assert facts["inter_arrival_cv"] > 1.3
    assert facts["dispersion"]["60"] > 3
    assert 10 <= facts["cycle"]["peak_hour"] <= 18
    assert facts["cycle"]["peak_over_mean"] > 1.2
    assert facts["length_correlation"] > 0.1
    assert facts["request_tokens"]["p99"] > 8 * facts["request_tokens"]["p50"]
    assert 0.005 < facts["zero_response_tokens"] / len(WEEK) < 0.03
    weekday = np.count_nonzero(WEEK.time_s < 5 * 86400) / 5
    assert np.count_nonzero(WEEK.time_s >= 5 * 86400) / 2 < 0.8 * weekday


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"days": 0}, "days above 0"),
        ({"rate_per_s": float("nan")}, "rate_per_s above 0"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"days": 1e6}, "fewer than"),
        ({"rate_per_s": 1e9}, "at most"),
    ],
)
def test_a_synthetic_trace_that_makes_no_sense_is_refused(arguments: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        synthesize(**({"days": 1, "rate_per_s": 1, "seed": 0} | arguments))


def test_a_tiny_synthetic_trace_still_has_a_request() -> None:
    assert len(synthesize(days=1e-6, rate_per_s=1e-6, seed=0)) >= 1


def test_counting_keeps_every_request_and_token_and_counts_idle_bins_zero() -> None:
    counts = to_counts(requests([5.0, 9.999, 10.0, 41.0]), 10)
    assert counts.time_s.tolist() == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert counts.requests.tolist() == [2.0, 1.0, 0.0, 0.0, 1.0]
    assert counts.response_tokens.tolist() == [4.0, 2.0, 0.0, 0.0, 2.0]
    coarse = to_counts(to_counts(WEEK, 60), 600)
    np.testing.assert_array_equal(coarse.requests, to_counts(WEEK, 600).requests)
    assert coarse.requests.sum() == len(WEEK)
    assert coarse.request_tokens.sum() == WEEK.request_tokens.sum()


def test_bins_inside_a_long_silence_are_left_out_and_noted() -> None:
    counts = to_counts(requests([0.0, 10.0, 10.0 + 8 * 3600]), 3600)
    assert counts.time_s.tolist() == [0.0, 8 * 3600.0]
    assert counts.notes == ("left out 7 empty bins in silences longer than 6 h",)


def test_counts_survive_writing_and_reading(tmp_path: Path) -> None:
    for bin_s in (0.1, 60.0):
        counts = to_counts(requests([0.05, 0.31, 200.0, 300.5], "relative"), bin_s)
        write_trace(counts, tmp_path / "c.csv", format="counts", force=True)
        back = read_trace([tmp_path / "c.csv"])
        assert back.bin_s == pytest.approx(bin_s)
        np.testing.assert_array_equal(back.requests, counts.requests)
        np.testing.assert_array_equal(back.request_tokens, counts.request_tokens)


def test_azure_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    trace = requests([1700158623.97996, 1700158624.0], "epoch")
    write_trace(trace, tmp_path / "a.csv", format="azure")
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == [
        "2023-11-16 18:17:03.9799600,1,2",
        "2023-11-16 18:17:04.0000000,1,2",
    ]
    np.testing.assert_array_equal(read_trace([tmp_path / "a.csv"]).time_s, trace.time_s)
    write_trace(trace, tmp_path / "b.csv", format="burstgpt")
    assert read_trace([tmp_path / "b.csv"]).fingerprint() == trace.fingerprint()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    trace = requests([1.0, 2.0])
    with pytest.raises(ConfigError, match="did you mean 'burstgpt'"):
        write_trace(trace, tmp_path / "a", format="burst")
    with pytest.raises(TraceError, match="expected counts for format 'counts', got requests"):
        write_trace(trace, tmp_path / "a", format="counts")
    with pytest.raises(TraceError, match="expected wall-clock times"):
        write_trace(trace, tmp_path / "a", format="azure")
    with pytest.raises(ConfigError, match="whole multiple .* got 15 s"):
        to_counts(to_counts(trace, 10), 15)
    with pytest.raises(ConfigError, match="use a --bin wider"):
        to_counts(requests([0.0, 1e8]), 0.01)
    assert list(tmp_path.iterdir()) == []


def test_dispersion_is_one_for_poisson_and_ignores_missing_data() -> None:
    rng = np.random.default_rng(0)
    time_s = np.cumsum(rng.exponential(1.0, 40_000))
    assert dispersion(requests(time_s.tolist()), 10.0) == pytest.approx(1.0, abs=0.1)
    time_s[20_000:] += 30 * 86400
    assert dispersion(requests(time_s.tolist()), 10.0) == pytest.approx(1.0, abs=0.1)


def test_describe_reports_gaps_and_their_length() -> None:
    facts = describe(requests([0.0, 1.0, 1.0, 2.0, 2.0 + 7 * 3600, 3.0 + 7 * 3600]))
    assert facts["gaps"]["missing"] == 1
    assert facts["gaps"]["missing_s"] == 7 * 3600
    assert facts["gaps"]["longest"][0] == {"after_s": 2.0, "length_s": 7 * 3600.0}
    assert facts["equal_times"] == 1
    assert facts["rate_per_s"] == pytest.approx(6 / 3)
