from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.training.test_trace_read import BURSTGPT, write
from training.cli_trace import main
from training.readers import read_trace
from training.synth import synthesize
from training.trace_write import to_counts, write_trace


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_help_of_every_verb_teaches() -> None:
    text = run("--help").output
    assert "fcast-trace describe BurstGPT_1.csv --plot" in text
    for verb in ("describe", "convert", "clean", "synth"):
        assert verb in text
        assert run(verb, "--help").exit_code == 0


def test_describe_prints_a_table_or_json(tmp_path: Path) -> None:
    path = tmp_path / "week.csv"
    write_trace(synthesize(days=2.5, rate_per_s=0.1, seed=0), path, format="burstgpt")
    result = run("describe", path)
    assert result.exit_code == 0
    assert "inter-arrival CV" in result.stdout
    assert "week.csv" in result.stdout
    facts = json.loads(run("describe", path, "--json").stdout)
    assert facts["rows"] == len(read_trace([path]))
    assert len(facts["cycle"]["rate_per_s_by_hour"]) == 24


@pytest.mark.parametrize("kind", ["one row", "two equal", "hour", "counts", "counts of an hour", "two bins", "gap"])
def test_describe_takes_any_valid_trace(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "[a].csv"
    hour = synthesize(days=1 / 24, rate_per_s=0.5, seed=1)
    if kind in ("counts", "counts of an hour"):
        trace = hour if "hour" in kind else synthesize(days=3, rate_per_s=0.05, seed=1)
        write_trace(to_counts(trace, 60), path, format="counts")
    elif kind == "hour":
        write_trace(hour, path, format="burstgpt")
    else:
        header = BURSTGPT.split("\n")[0] + "\n"
        text = {
            "one row": header + "5,m,1,1,2,log\n",
            "two equal": header + "5,m,1,0,2,log\n5,m,0,0,2,log\n",
            "two bins": "time,count\n2024-05-10 00:00:00,0\n2024-05-10 00:00:10,0\n",
            "gap": header + "".join(f"{t},m,{t % 7},1,2,log\n" for t in (*range(99), *range(90_000, 90_100))),
        }[kind]
        write(path, text)
    drawn = ["--plot", tmp_path / "a.png"] if kind in ("one row", "gap", "counts of an hour") else []
    result = run("describe", path, *drawn)
    assert result.exit_code == 0, result.output
    assert "[a].csv" in result.stdout
    assert run("describe", path, "--json").exit_code == 0
    assert not drawn or (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_synth_convert_and_clean_chain(tmp_path: Path) -> None:
    made, cleaned, counts = tmp_path / "synthetic.csv", tmp_path / "clean.csv.gz", tmp_path / "counts.csv"
    result = run("synth", made, "--days", 0.1, "--rate", 0.5, "--seed", 1)
    assert result.exit_code == 0
    assert "This trace is synthetic" in result.stderr
    assert str(made) in result.stdout
    result = run("clean", made, cleaned)
    assert "failed requests (response tokens 0)" in result.stderr
    assert run("convert", cleaned, counts, "--to", "counts", "--bin", 60).exit_code == 0
    assert read_trace([counts]).requests.sum() == len(read_trace([cleaned])) < len(read_trace([made]))


def test_columns_are_named_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "when,n\n0,1\n10,2\n")
    facts = json.loads(run("describe", path, "--columns", "time=when,requests=n", "--json").stdout)
    assert (facts["requests"], facts["bin_s"]) == (3.0, 10.0)


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["describe", "{bad}"], 1, "bad.csv:2: expected a number in 'Request tokens', got 'x'"),
        (["describe", "{dir}/nothing.csv"], 1, "got nothing at this path"),
        (["describe", "{good}", "--format", "azur"], 2, "did you mean 'azure'"),
        (["describe", "{good}", "--columns", "time"], 2, "expected KEY=COLUMN"),
        (["describe", "{good}", "--plot", "{dir}/a.gif"], 2, "expected a name ending in .png"),
        (["convert", "{good}", "{good}"], 1, "expected a new file, got an existing one"),
        (["convert", "{good}", "{dir}"], 1, "got a folder"),
        (["convert", "{good}", "{dir}/no/out.csv"], 1, "expected an existing folder"),
        (["convert", "{good}", "{bad}/out.csv"], 1, "expected an existing folder"),
        (["convert", "{good}", "{dir}/out.csv", "--to", "counts"], 2, "expected --bin SECONDS"),
        (["convert", "{good}", "{dir}/out.csv", "--to", "azure"], 1, "expected wall-clock times"),
        (["convert", "{good}", "{dir}/out.csv", "--to", "azure", "--bin", "5"], 2, "expected --to counts beside it"),
        (["synth", "{dir}/out.csv", "--days", "-1"], 2, "expected days above 0"),
        (["clean", "{good}"], 2, "Missing argument"),
    ],
)
def test_a_fault_is_one_line_on_stderr(tmp_path: Path, arguments: list[str], code: int, match: str) -> None:
    good = write(tmp_path / "good.csv", BURSTGPT)
    bad = write(tmp_path / "bad.csv", BURSTGPT.split("\n")[0] + "\n1,m,x,1,1,log\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*(argument.format(good=good, bad=bad, dir=tmp_path) for argument in arguments))
    assert result.exit_code == code
    assert match in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 or result.stderr.startswith("Usage:")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_force_replaces_a_file(tmp_path: Path) -> None:
    good, out = write(tmp_path / "good.csv", BURSTGPT), write(tmp_path / "out.csv", "old")
    assert run("convert", good, out, "--force").exit_code == 0
    assert len(read_trace([out])) == 3


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    out = write(tmp_path / name, "old")

    def limit() -> None:  # a limit on the size of files fails like a full disk, and needs no rights
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    command = [sys.executable, "-m", "training.cli_trace", "synth", str(out), "--days", "0.1", "--force"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1
    assert f"Error: {out}: expected to write this file, got 'File too large'" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert out.read_text() == "old"
