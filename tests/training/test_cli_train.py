"""`fcast-train` as a person uses it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.training.traces import request_trace
from training.cli_train import main
from training.report import legend, next_command

SMALL = ["--context", "16", "--horizon", "3", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "made.csv", request_trace(500))


def write(path, trace):
    rows = zip(trace.time_s, trace.request_tokens, trace.response_tokens, strict=True)
    lines = [f"{t:.6f},synthetic,{i},{o},{i + o},Conversation log" for t, i, o in rows]
    path.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "\n".join(lines) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one_line(result, code):
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


def test_several_models_train_and_stand_beside_the_baselines(trace_file, tmp_path):
    result = run("--trace", trace_file, "--model", "gru,dlinear", "--out", tmp_path, *SMALL, "--set", "hidden_size=8")
    assert result.exit_code == 0, result.output
    for name in ("gru", "dlinear"):
        for file in ("model.safetensors", "checkpoint.json", "metrics.jsonl", "loss.png"):
            assert (tmp_path / name / file).stat().st_size > 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "(curves.png)" in (tmp_path / "report.md").read_text()
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in report["models"] + report["baselines"]}
    for name, row in rows.items():
        assert name in result.stdout
        assert f"{row['test']['wql']['mean']:.4f}" in result.stdout
        assert name in (tmp_path / "report.md").read_text()
    best = min(report["models"], key=lambda row: row["validation"]["wql"]["mean"])["name"]
    assert report["best_model"] == best
    assert next_command(report, tmp_path) in result.stdout
    assert "epoch 2/2" in result.stderr


def test_json_prints_the_report_and_nothing_else(trace_file, tmp_path):
    result = run("--trace", trace_file, "--model", "dlinear", "--out", tmp_path, *SMALL, "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())


def test_a_load_series_of_a_request_trace_trains(trace_file, tmp_path):
    result = run(
        "--trace", trace_file, "--series", "load", "--bin", "1", "--model", "dlinear", "--out", tmp_path, *SMALL
    )
    assert result.exit_code == 0, result.output
    assert "load series" in result.stdout


def test_a_zero_rate_series_trains_and_forecasts_next_to_nothing(tmp_path):
    path = tmp_path / "idle.csv"
    path.write_text("start_s,requests\n" + "".join(f"{60 * i},0\n" for i in range(300)))
    result = run("--trace", path, "--series", "load", "--model", "dlinear", "--out", tmp_path / "runs", *SMALL)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert report["models"][0]["test"]["wql"]["mean"] < 0.1


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(trace_file, tmp_path):
    def command(out, *more):
        code = "import sys; from training.cli_train import main; main(sys.argv[1:])"
        options = ["--trace", trace_file, "--model", "gru", "--out", out, *SMALL[:4], "--epochs", 6, "--device", "cpu"]
        return [sys.executable, "-c", code, *map(str, [*options, "--set", "hidden_size=8", *more])]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True, env=environment)
    process = subprocess.Popen(command(tmp_path / "killed"), stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    while "epoch 2/6" not in process.stderr.readline():
        assert process.poll() is None, "ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "killed" / "gru" / "checkpoint.json").exists()
    again = subprocess.run(
        command(tmp_path / "killed", "--resume"), capture_output=True, text=True, env=environment, check=True
    )
    assert "epoch 1/6" not in again.stderr
    weights = [(tmp_path / out / "gru" / "model.safetensors").read_bytes() for out in ("whole", "killed")]
    assert weights[0] == weights[1]
    lines = [json.loads(line) for line in (tmp_path / "killed" / "gru" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_ctrl_c_says_how_to_go_on(trace_file, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.compare.train_models", interrupted)
    result = run("--trace", trace_file, "--model", "dlinear", "--out", tmp_path, *SMALL)
    assert result.exit_code == 130
    assert "Repeat the command to go on." in result.stderr
    assert "Traceback" not in result.output


def test_an_earlier_run_is_kept_unless_told_otherwise(trace_file, tmp_path):
    arguments = ["--trace", trace_file, "--model", "dlinear", "--out", tmp_path, *SMALL]
    assert run(*arguments).exit_code == 0
    assert "--resume" in one_line(run(*arguments), 2)
    assert run(*arguments, "--resume").exit_code == 0
    assert run(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "gruu"], 2, "did you mean 'gru'?"),
        (["--model", ","], 2, "expected different names"),
        (["--model", "gru,gru"], 2, "expected different names"),
        (["--device", "cuda"], 1, "expected a CUDA GPU, got torch"),
        (["--device", "gpu"], 2, "expected auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
        (["--set", "epoch=3"], 2, "did you mean 'epochs'?"),
        (["--set", "epochs"], 2, "expected key=value"),
        (["--context", "600"], 1, "train part: expected at least one window of 600 + 10 steps"),
        (["--format", "burst"], 2, "did you mean 'burstgpt'?"),
        (["--split", "1,2"], 2, "three positive proportions"),
        (["--split", "80,20,0"], 2, "split: expected a test part for the report"),
        (["--config", "/nothing.toml"], 2, "/nothing.toml: expected a TOML file"),
        (["--series", "load", "--bin", "0"], 2, "bin_s: expected 0.001 to 1e9 seconds"),
        (["--series", "load", "--bin", "10", "--step", "25"], 2, "step_s: expected a whole multiple of the 10 s bins"),
        (["--step", "60"], 2, "step_s: expected a load series, whose bins it joins, got a requests series"),
        (["--series", "load", "--bin", "10000"], 1, "expected at least one whole bin"),
    ],
)
def test_bad_options_give_one_clear_line(trace_file, tmp_path, arguments, code, message):
    assert message in one_line(run("--trace", trace_file, "--out", tmp_path / "runs", *arguments), code)
    assert not list(tmp_path.glob("runs/*/model.safetensors"))


def test_a_missing_trace_gives_one_clear_line(tmp_path):
    assert "none.csv" in one_line(run("--trace", tmp_path / "none.csv", "--out", tmp_path), 1)


@pytest.mark.parametrize("text", ["", "Timestamp,Request tokens,Response tokens\n", "5,x\n"])
def test_an_empty_trace_gives_one_clear_line(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert "t.csv" in one_line(run("--trace", tmp_path / "t.csv", "--out", tmp_path / "runs"), 1)
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_written_gives_one_clear_line(trace_file, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in one_line(run("--trace", trace_file, "--out", tmp_path / "file" / "runs", *SMALL), 1)


def test_a_full_disk_gives_one_clear_line_and_leaves_no_half_written_file(trace_file, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("--trace", trace_file, "--model", "dlinear", "--out", tmp_path, *SMALL)
    assert "No space left on device" in one_line(result, 1)
    assert not list((tmp_path / "dlinear").iterdir())


def test_a_second_model_joins_the_report_of_the_first(trace_file, tmp_path):
    for model in ("dlinear", "gru"):
        assert run("--trace", trace_file, "--model", model, "--out", tmp_path, *SMALL).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in report["models"]] == ["dlinear", "gru"]
    other = write(tmp_path / "other.csv", request_trace(450, seed=5))
    result = run("--trace", other, "--model", "lstm", "--out", tmp_path, *SMALL)
    assert "expected runs on this trace" in one_line(result, 2)
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_every_setting_is_checked_before_the_first_model_trains(trace_file, tmp_path):
    result = run("--trace", trace_file, "--model", "gru,transformer", "--set", "d_model=63", "--out", tmp_path, *SMALL)
    assert "d_model: expected an even multiple" in one_line(result, 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "setting", ["gap_s=inf", "clip_norm=inf", "levels=2", "dropout=2", "learning_rate=nan", "hidden_size=0"]
)
def test_an_impossible_setting_is_refused_at_once(trace_file, tmp_path, setting):
    one_line(run("--trace", trace_file, "--model", "gru", "--set", setting, "--out", tmp_path, *SMALL), 2)
    assert not list(tmp_path.iterdir())


def test_the_verdict_names_every_model_that_loses_to_the_best_baseline_on_test():
    def row(name, validation, test):
        return {"name": name, "validation": {"wql": {"mean": validation}}, "test": {"wql": {"mean": test}}}

    report = {"models": [row("gru", 0.1, 0.5), row("lstm", 0.2, 0.3)], "best_baseline": "b", "best_model": "gru"}
    report["baselines"] = [row("a", 0.05, 0.6), row("b", 0.3, 0.4)]
    assert "Better than every baseline on test: lstm." in legend(report)
    assert "do not ship: gru." in legend(report)


def test_the_report_says_what_to_export_next(tmp_path):
    def row(name, test, **more):
        return {"name": name, "validation": {"wql": {"mean": 1 - test}}, "test": {"wql": {"mean": test}}, **more}

    gru, lstm = row("gru", 0.3, folder="runs/gru"), row("lstm", 0.35, folder="runs/lstm")
    report = {"models": [gru, lstm, row("dlinear", 0.6)], "baselines": [row("kalman", 0.4)], "best_baseline": "kalman"}
    assert next_command(report, tmp_path) == "fcast-export runs/lstm --format onnx"  # the better one on validation
    assert "kalman is better" not in legend(report)

    report["models"] = [row("dlinear", 0.6)]
    assert "kalman is better: fcast-train ... --model kalman, and export that." in legend(report)
    export = f"fcast-export {tmp_path / 'kalman'} --format onnx"
    assert next_command(report, tmp_path) == f"fcast-train ... --model kalman, then {export}"

    report["baselines"] = [row("kalman", 0.4, folder=str(tmp_path / "kalman"))]
    assert f"kalman is better: export {tmp_path / 'kalman'}." in legend(report)
    assert next_command(report, tmp_path) == export


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from training.cli_train import main; "
        "main(['--help'] if len(sys.argv) > 1 else ['--trace', 'x.csv'])"
    )
    helped = subprocess.run([sys.executable, "-c", code, "help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    assert "fcast-export" in helped.stdout
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert bare.stderr == "Error: expected the package torch, got none; pip install 'fcast[train]'\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--trace", "{trace}", "--model", "dlinear", "--out", "{out}", *SMALL]]
)
def test_a_full_stdout_is_one_line(trace_file, tmp_path, arguments):
    code = "import sys; from training.cli_train import main; main(sys.argv[1:])"
    words = [a.format(trace=trace_file, out=tmp_path) for a in arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
