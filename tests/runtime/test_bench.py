"""fcast-bench measures every subject in every setting and says what it left out. No test judges a time."""

from __future__ import annotations

import itertools
import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import Result

from runtime import Predictor
from runtime.artifact import open_artifact
from runtime.bench import EMPTY, Subject, measure, paced
from runtime.bench_streams import stream_subjects
from runtime.bench_subjects import RAW, Windows, observe_and_forecast
from runtime.cli_bench import main
from runtime.golden import read_golden
from tests.runtime.conftest import ARTIFACTS, cli_runner

STREAMED = {"requests": "observe + forecast", "load": "observe_bin + forecast", "counts": "observe_bin + forecast"}


def invoke(name: str, *options: str) -> Result:
    return cli_runner().invoke(main, [str(ARTIFACTS / name), "--device", "cpu", "--calls", "50", *options])


def test_the_subjects_take_turns_forwards_and_backwards() -> None:
    said: list[str] = []
    subjects = [Subject(name=name, call=lambda name=name: said.append(name)) for name in "ab"]
    timings = measure(subjects, calls=10, rounds=2)
    assert (
        "".join(said) == 8 * "b" + 16 * "a" + 16 * "b" + 8 * "a"
    )  # three warm a round, and the first round counts not
    assert [(t.subject, t.calls) for t in timings] == [("a", 10), ("b", 10)]


def test_percentiles_are_in_order_and_the_first_subject_is_the_measure() -> None:
    first, _ = measure([EMPTY, EMPTY], calls=2000, rounds=2)
    assert first.p999_us is not None
    assert 0 < first.p50_us <= first.p90_us <= first.p99_us
    assert (first.ratio, first.more_us, first.windows_per_s) == (1.0, 0.0, None)


def test_a_percentile_that_the_calls_do_not_reach_is_left_out() -> None:
    assert measure([EMPTY], calls=50)[0].p999_us is None


def test_percentiles_of_rounds_of_single_calls_are_those_of_all_calls() -> None:
    pauses = itertools.cycle([0.0, 0.0, 0.003])  # three calls warm a round up
    timing = measure([Subject(name="uneven", call=lambda: time.sleep(next(pauses)))], calls=40, rounds=40)[0]
    assert timing.p50_us < timing.p90_us <= timing.p99_us


def test_what_happens_before_a_call_happens_before_each_and_is_not_timed() -> None:
    said: list[str] = []
    subject = Subject(name="a", call=lambda: said.append("a"), before=lambda: (said.append("b"), time.sleep(0.001)))
    timing = measure([subject], calls=4, rounds=1)[0]
    assert "".join(said) == "aaa" + "ba" * 4 + "aaa" + "ba" * 4
    assert timing.p50_us < 1000


def test_paced_calls_are_paced() -> None:
    rate = measure([paced(Subject(name="a", call=lambda: None), 0.01)], calls=5, rounds=1)[0].windows_per_s
    assert rate is not None
    assert rate <= 100


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_makes_a_forecast_of_the_model_at_every_call(name: str) -> None:
    predictor = Predictor(ARTIFACTS / name, device="cpu")
    subject = observe_and_forecast(predictor, Windows(read_golden(open_artifact(ARTIFACTS / name))))
    assert subject.name == STREAMED[name]
    forecasts = []
    for given in subject.arguments(5):
        subject.call(*given)
        forecasts.append(predictor.forecast())
    assert {forecast.source for forecast in forecasts} == {"model"}
    assert len(set(map(id, forecasts))) == 5


def test_windows_are_the_goldens_over_and_over() -> None:
    golden = read_golden(open_artifact(ARTIFACTS / "load"))
    contexts, times = Windows(golden).batch(2 * len(golden.context))
    assert (contexts[: len(golden.context)] == contexts[len(golden.context) :]).all()
    assert times is not None
    assert len(times) == len(contexts)


def test_every_subject_stands_in_every_setting() -> None:
    done = invoke("load", "--threads", "1,2", "--batch", "1,3", "--paced", "0.5", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [run["setting"] for run in result["runs"]] == [
        "cpu, 1 thread, batch 1",
        "cpu, 1 thread, batch 1, 0.5 ms before each call",
        "cpu, 1 thread, batch 3",
        "cpu, 2 threads, batch 1",
        "cpu, 2 threads, batch 1, 0.5 ms before each call",
        "cpu, 2 threads, batch 3",
    ]
    raw = [RAW, "raw onnxruntime, run", "predict"]
    for run in result["runs"]:
        alone = ["observe", "observe_bin + forecast", "an empty call"] if run["batch"] == 1 else []
        assert [row["subject"] for row in run["rows"]] == [*raw, *alone]
    assert set(result["cold_start"]) == {"runtime", "bare"}
    assert result["artifact"]["name"] == "load"
    assert "onnxruntime" in str(result["machine"]["versions"])


@pytest.mark.parametrize("name", ["load", "requests"])
def test_many_streams_are_asked_one_by_one_and_together(name: str) -> None:
    done = invoke(name, "--batch", "1", "--streams", "70", "--json")
    assert done.exit_code == 0, done.stderr
    run = json.loads(done.stdout)["runs"][-1]
    assert (run["setting"], run["streams"]) == ("cpu, 1 thread, 70 streams, all of them a call", 70)
    rows = {row["subject"]: row for row in run["rows"]}
    assert list(rows) == ["raw, one by one", "raw, batches of 64", "forecast, one by one", "forecast_many"]
    assert {row["calls"] for row in rows.values()} == {5}
    for row in rows.values():
        assert row["windows_per_s"] * row["p50_us"] / 1e6 == pytest.approx(70, rel=0.9)


@pytest.mark.parametrize("name", ["load", "requests"])
def test_every_stream_gets_a_step_before_each_call(name: str) -> None:
    subjects = stream_subjects(ARTIFACTS / name, device="cpu", threads=1, streams=3)
    for subject in subjects[2:]:
        assert subject.before is not None
        seen = []
        for _ in range(3):
            subject.before()
            found = subject.call()
            seen += list(found.values()) if isinstance(found, dict) else found
        assert {forecast.source for forecast in seen} == {"model"}
        assert len(set(map(id, seen))) == 9


def test_the_table_and_what_is_left_out_can_be_read(tmp_path: Path) -> None:
    drawn = ["--plot", str(tmp_path / "a.png")] if find_spec("matplotlib") else []
    done = invoke("requests", "--batch", "1", "--streams", "2", *drawn)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("requests version 2: requests, context 16 x 3, horizon 4 x 3 x 7 levels; onnxruntime")
    for text in ("p99.9", "vs raw", RAW, "observe + forecast", "cold start", "first forecast"):
        assert text in done.stdout
    assert "Warning: torchscript is left out: the artifact has no model.pt; fcast-export" in done.stderr
    assert not drawn or (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="it is not installed")
@pytest.mark.parametrize("name", ["nowhere/a.png", "a.txt"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_measuring(tmp_path: Path, name: str) -> None:
    done = invoke("requests", "--plot", str(tmp_path / name))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "--plot: expected a .png, .pdf or .svg file in a folder that is there, got" in done.stderr


@pytest.mark.skipif(find_spec("matplotlib") is not None, reason="it is installed")
def test_a_picture_without_matplotlib_is_refused_before_the_measuring(tmp_path: Path) -> None:
    done = invoke("requests", "--plot", str(tmp_path / "a.png"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "--plot: expected matplotlib installed" in done.stderr
    assert "pip install matplotlib" in done.stderr


@pytest.mark.parametrize("given", ["0", "1,x", "", "1,,2"])
def test_a_list_of_no_numbers_is_wrong_usage(given: str) -> None:
    done = invoke("requests", "--batch", given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "expected whole numbers from 1 to 65536 with commas between" in done.stderr


def test_a_missing_artifact_is_one_line() -> None:
    done = invoke("nothing")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "expected an artifact's folder, found nothing there" in done.stderr
