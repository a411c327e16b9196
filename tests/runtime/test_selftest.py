"""The self-test of fcast-doctor writes one report, whatever fails, and none when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cli_doctor import main
from runtime.doctor import FAILED, OK, SKIPPED
from runtime.selftest import selftest, write_report
from tests.runtime.conftest import ARTIFACTS, cli_runner


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(group: str, name: str) -> None:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr("runtime.cli_doctor.extra", missing)


def test_the_self_test_of_an_artifact_writes_one_report(without_training: None, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = cli_runner().invoke(
        main, ["--selftest", "--artifact", str(ARTIFACTS / "load"), "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.stdout
    report = json.loads(out.read_text())
    assert list(tmp_path.iterdir()) == [out]
    assert report["text"] == [line for line in done.stdout.splitlines()]
    found = {item["name"]: item for item in report["selftest"]}
    assert found["train"]["status"] == SKIPPED
    assert found["verify load on cpu"]["found"].endswith("% of the tolerance")
    assert found["latency of load on cpu"]["facts"]["p50_us"]["predict"] > 0
    assert (found["cuda graph of load"]["status"], found["cuda graph of load"]["found"]) == (SKIPPED, "no CUDA device")
    assert "verify load on cpu" in done.stderr
    assert f"Wrote {out}" in done.stderr


def test_an_item_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    found = selftest(
        tmp_path,
        gpus=[0],
        no_gpu="",
        artifacts=[ARTIFACTS / "requests"],
        train=None,
        no_train="not here",
        progress=lambda name: None,
    )
    by_name = {check.name: check for check in found}
    # A GPU is claimed that is not there: each of its items says so, and those of the CPU are as they were.
    assert by_name["verify requests on cuda:0"].status == FAILED
    assert by_name["verify requests on cuda:0"].found.startswith("DeviceError: device: expected ")
    assert by_name["cuda graph of requests"].status == FAILED
    assert (by_name["train"].status, by_name["train"].found) == (SKIPPED, "not here")
    assert by_name["verify requests on cpu"].status == OK


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x.json"], "--out and --artifact belong to --selftest"),
        (["--artifact", "x"], "--out and --artifact belong to --selftest"),
    ],
)
def test_options_of_the_self_test_need_it(arguments: list[str], said: str) -> None:
    done = cli_runner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_report_that_has_no_place_is_refused_before_the_work(tmp_path: Path) -> None:
    done = cli_runner().invoke(main, ["--selftest", "--out", str(tmp_path / "no" / "report.json")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Error: --out: expected a file in a folder that is there" in done.stderr


def test_a_report_replaces_the_one_before_whole(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    out.write_text("old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_report(out, {"a": object()})
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
    write_report(out, {"a": "é"})
    assert json.loads(out.read_text()) == {"a": "é"}


def test_ctrl_c_leaves_no_report(tmp_path: Path) -> None:
    code = "import runtime.cli_doctor as c; c.extra = lambda group, name: None; c.main()"
    arguments = ["--selftest", "--artifact", str(ARTIFACTS / "load"), "--out", str(tmp_path / "report.json")]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "latency of load" in line:
            child.send_signal(signal.SIGINT)
            break
    child.stderr.read()
    child.stderr.close()
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.returncode == 130
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]
