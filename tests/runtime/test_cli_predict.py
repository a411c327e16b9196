"""fcast-predict as a program in a pipe."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from runtime import Predictor
from runtime.cli_predict import main
from tests.runtime.conftest import ARTIFACTS, cli_runner

HEADER = "timestamp_s,request_tokens,response_tokens\n"
# Where the tests run in the background of a shell, SIGINT is ignored, and children inherit that.
_LISTENS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = [sys.executable, "-c", f"{_LISTENS}; from runtime.cli_predict import main; main()"]


def invoke(name: str, text: str, *options: str) -> Result:
    return cli_runner().invoke(main, [str(ARTIFACTS / name), "--device", "cpu", *options], input=text)


def requests(n: int, step_s: float = 1.0) -> str:
    return "".join(f"{i * step_s},{100 + i},{50}\n" for i in range(n))


def test_each_request_is_answered_with_the_predictors_forecast() -> None:
    done = invoke("requests", HEADER + requests(20))
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    p = Predictor(ARTIFACTS / "requests", device="cpu")
    assert len(lines) == 20
    for i, line in enumerate(lines):
        p.observe(float(i), 100 + i, 50)
        forecast = p.forecast()
        assert line["source"] == forecast.source
        assert line["time_s"] == line["start_s"] == float(i)
        assert (line["kind"], line["step_s"]) == ("requests", None)
        np.testing.assert_allclose(line["values"], forecast.values, rtol=1e-5)
        assert line["next_request"]["timestamp_s"] == pytest.approx(forecast.next_request().timestamp_s)
    assert lines[-1]["source"] == "model"
    assert lines[-1]["levels"] == [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]


def test_a_load_model_answers_each_bin_that_ended() -> None:
    done = invoke("load", HEADER + requests(100, 15.0))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["time_s"] for line in lines] == [60.0 * i for i in range(24)]
    assert [line["start_s"] for line in lines] == [60.0 * i + 60 for i in range(24)]
    assert lines[-1]["source"] == "model"
    assert "next_request" not in lines[-1]


def test_bins_that_ended_at_once_are_answered_by_one_line() -> None:
    done = invoke("load", HEADER + "0,1,1\n65,1,1\n70,1,1\n400,1,1\n")
    assert [json.loads(line)["time_s"] for line in done.stdout.splitlines()] == [0.0, 300.0]


def test_ready_counts_are_answered_bin_by_bin() -> None:
    text = "".join(json.dumps({"start_s": 10 * i, "requests": i}) + "\n" for i in range(6))
    done = invoke("counts", text)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["time_s"] for line in lines] == [10.0 * i for i in range(6)]
    assert [line["source"].split(":")[0] for line in lines] == ["fallback"] * 3 + ["model"] * 3
    assert lines[0]["step_s"] == 60.0


def test_every_takes_each_nth() -> None:
    done = invoke("requests", HEADER + requests(20), "--every", "7")
    assert [json.loads(line)["time_s"] for line in done.stdout.splitlines()] == [6.0, 13.0]


def test_a_bad_line_ends_it_with_its_number() -> None:
    done = invoke("requests", HEADER + "1,2,3\n2,x,3\n3,2,3\n")
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "Error: stdin:3: expected a number for request_tokens, got 'x'\n"


def test_keep_going_leaves_bad_lines_out_and_counts_them() -> None:
    done = invoke("requests", HEADER + "1,2,3\n2,x,3\n0,2,3\n3,-2,3\n4,2,3\n", "--keep-going")
    assert done.exit_code == 0
    assert [json.loads(line)["time_s"] for line in done.stdout.splitlines()] == [1.0, 4.0]
    errors = done.stderr.splitlines()
    assert [line.split(" ")[0] for line in errors] == ["stdin:3:", "stdin:4:", "stdin:5:", "3"]
    assert "expected a time not before 1.0" in errors[1]
    assert errors[-1] == "3 of 5 lines left out"


@pytest.mark.parametrize("text", ["", "\n\n", HEADER])
def test_nothing_on_stdin_is_an_error(text: str) -> None:
    done = invoke("requests", text)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: stdin: expected a request per line, got nothing")


def test_counts_for_a_requests_model_are_a_bad_line() -> None:
    done = invoke("requests", "start_s,requests\n0,4\n")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: stdin:2: expected one line per request, as this model forecasts single requ")


def test_published_counts_are_read_as_counts() -> None:
    text = "Time,TIMESTAMP\n" + "".join(f"2024-05-10 00:00:{10 * i:02d},{146 + i}\n" for i in range(5))
    done = invoke("counts", text)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["time_s"] for line in lines] == [1715299200.0 + 10 * i for i in range(5)]
    assert lines[-1]["source"] == "model"
    p = Predictor(ARTIFACTS / "counts", device="cpu")
    context = np.array([[147], [148], [149], [150]], np.float32)
    np.testing.assert_allclose(lines[-1]["values"], p.predict(context), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "load",
            "time_s,requests,request_tokens,response_tokens\n0,1,1,1\n10,1,1,1\n",
            "stdin:3: expected counts per 60 s, from one multiple of 60 to the next, as this model was trained with, "
            "got a bin that starts at 10.0; recount: fcast-trace convert FILE counts.csv --to counts --bin 60",
        ),
        ("load", "time_s,requests\n0,1\n", "stdin:2: expected request_tokens and response_tokens, which this model"),
        ("load", "timestamp_s\n0\n", "stdin:2: expected request_tokens and response_tokens, which this model"),
        (
            "counts",
            '{"timestamp_s": 1}\n{"start_s": 10, "requests": 1}\n',
            "stdin:2: expected a request as before, got counts per bin; give one of the two",
        ),
        ("counts", "time_s,requests\n10,1\n10,1\n", "stdin:3: start_s: expected a bin from 20.0 on"),
    ],
)
def test_what_the_model_cannot_take_is_said_in_words_of_the_file(name: str, text: str, said: str) -> None:
    done = invoke(name, text)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {said}")


def test_counts_of_wider_bins_than_the_models_are_remarked_on() -> None:
    done = invoke("counts", "time_s,requests\n" + "".join(f"{600 * i},5\n" for i in range(12)))
    assert done.exit_code == 0
    assert done.stderr == (
        "Warning: stdin:10: the first 9 counts start 600 s or more apart, while this model's bins are 10 s wide; bins "
        "left out count 0\n"
    )
    assert invoke("counts", "time_s,requests\n" + "".join(f"{10 * i * i},5\n" for i in range(12))).stderr == ""


def test_a_wrong_clock_is_a_line_on_stderr(edited: Callable[..., Path]) -> None:
    folder = edited("load", clock="epoch")
    done = cli_runner().invoke(main, [str(folder), "--device", "cpu"], input=HEADER + requests(10))
    assert done.exit_code == 0
    assert done.stderr == (
        f"Warning: {folder}/model.onnx: expected epoch seconds, as this model knows the time of day, got 0.0, a "
        "time in 1970; its forecasts follow that calendar (said once)\n"
    )


def test_gzip_is_one_line_that_says_what_to_do() -> None:
    done = cli_runner().invoke(main, [str(ARTIFACTS / "load"), "--keep-going"], input=gzip.compress(b"x"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: stdin: expected lines of text, got gzip; gunzip first: zcat FILE | fcast-p")


def test_a_missing_artifact_is_one_line() -> None:
    done = cli_runner().invoke(main, ["nowhere"], input="")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: nowhere: expected an artifact's folder")


def test_an_unknown_option_is_a_usage_error() -> None:
    assert invoke("requests", "", "--evry", "3").exit_code == 2


def test_help_teaches_with_examples() -> None:
    text = cli_runner().invoke(main, ["--help"]).stdout
    for word in ("Examples:", "TIMESTAMP,ContextTokens,GeneratedTokens", "--keep-going", "tail -f"):
        assert word in text


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*PROGRAM, str(ARTIFACTS / "requests"), "--device", "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    yield child
    child.kill()
    child.wait()
    for end in (child.stdin, child.stdout, child.stderr):
        with contextlib.suppress(BrokenPipeError):
            end.close()


def test_a_line_in_gives_a_line_out_at_once(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(HEADER)
    for i in range(3):
        program.stdin.write(f"{i},10,20\n")
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["time_s"] == float(i)
    program.stdin.close()
    assert program.wait(timeout=20) == 0


def test_a_reader_that_leaves_ends_it_quietly(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdin.write(HEADER + "0,1,1\n")
    program.stdin.flush()
    program.stdout.readline()
    program.stdout.close()
    program.stdin.write("1,1,1\n")
    program.stdin.flush()
    assert program.wait(timeout=20) == 141  # as of a program that SIGPIPE ended
    assert program.stderr.read() == ""
    with pytest.raises(BrokenPipeError, match="Broken pipe"):
        os.write(program.stdin.fileno(), b"2,1,1\n")


@pytest.mark.parametrize("command", ["predict", "verify"])
@pytest.mark.parametrize("arguments", [[str(ARTIFACTS / "requests"), "--device", "cpu"], ["--help"]])
def test_a_full_stdout_is_one_line(command: str, arguments: list[str]) -> None:
    run = [sys.executable, "-c", f"from runtime.cli_{command} import main; main()", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            run, input=HEADER + "0,1,1\n", stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert done.stderr == "Error: stdout: expected room to write, got No space left on device\n"
    assert done.returncode == 1


def test_ctrl_c_ends_it_quietly(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdin.write(HEADER + "0,1,1\n")
    program.stdin.flush()
    program.stdout.readline()
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=20) == 130
    assert program.stderr.read() == ""


@pytest.mark.parametrize("name", ["requests", "load"])
def test_a_run_goes_on_from_the_snapshot_of_the_one_before(name: str, tmp_path: Path) -> None:
    lines, file = requests(100, 15.0).splitlines(keepends=True), tmp_path / "state"
    whole = invoke(name, HEADER + "".join(lines)).stdout
    parts = [
        invoke(name, HEADER + "".join(part), "--snapshot", str(file)).stdout
        for part in (lines[:37], lines[37:38], lines[38:])
    ]
    assert "".join(parts) == whole
    assert list(tmp_path.iterdir()) == [file]


def test_a_bad_line_leaves_a_snapshot_of_the_lines_before(tmp_path: Path) -> None:
    file = tmp_path / "state"
    assert invoke("requests", HEADER + "1,2,3\n2,x,3\n", "--snapshot", str(file)).exit_code == 1
    p = Predictor(ARTIFACTS / "requests", device="cpu")
    p.restore(file.read_bytes())
    assert p.forecast().start_s == 1.0


def test_a_file_that_is_no_snapshot_is_one_line_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_bytes(b"mine")
    done = invoke("requests", HEADER + "1,2,3\n", "--snapshot", str(file))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {file}: snapshot: expected bytes that begin with FCASTSNP, got 4 bytes")
    assert file.read_bytes() == b"mine"


def test_a_snapshot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "state"
    done = invoke("requests", HEADER + "1,2,3\n", "--snapshot", str(file))
    assert done.exit_code == 1
    assert done.stderr == f"Error: {file}: expected room for a snapshot, got No such file or directory\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_snapshot(number: signal.Signals, code: int, tmp_path: Path) -> None:
    file = tmp_path / "state"
    with subprocess.Popen(
        [*PROGRAM, str(ARTIFACTS / "requests"), "--device", "cpu", "--snapshot", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(HEADER + "7,1,1\n")
        child.stdin.flush()
        child.stdout.readline()
        child.send_signal(number)
        assert child.wait(timeout=20) == code
        assert child.stderr.read() == ""
    p = Predictor(ARTIFACTS / "requests", device="cpu")
    p.restore(file.read_bytes())
    assert p.forecast().start_s == 7.0
