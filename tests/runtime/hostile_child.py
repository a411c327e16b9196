"""Opens hostile artifacts, one after the other, in a process that may die of it.

`python -m tests.runtime.hostile_child`: a case's name per line on stdin, its verdict as one JSON line on stdout. The
parent, tests/runtime/hostile.py, tells how the process ended. The address space is limited, as a container's memory is:
a graph may ask for any amount.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from runtime import ArtifactError, Predictor
from runtime.cli import stdout_to_stderr
from runtime.cli_predict import main as fcast_predict
from runtime.cli_verify import main as fcast_verify
from runtime.golden import Golden
from runtime.verify import verify
from tests.runtime.conftest import cli_runner
from tests.runtime.hostile_cases import make
from tests.runtime.hostile_files import EXECUTED, outside
from tests.runtime.hostile_swaps import swapping
from tests.runtime.watching import watching

MEMORY_BYTES = 1 << 30
HANG_S = 5.0
Verdict = dict[str, "str | None"]


def judge(case: str, folder: Path, golden: Golden) -> Verdict:
    """What opening, asking and verifying say: the text of the refusal, or None. Anything else raised is a bug."""
    mark = folder.parents[2] / EXECUTED
    with watching(outside(folder)) as opened, swapping(case, folder), stdout_to_stderr():
        found = {**open_and_ask(folder, golden), "verify": verified(folder)}
        # A version that is a link is the reader's own choice.
        assert not opened() or case == "version: a link out", "a file outside the artifact was opened"
    assert not mark.exists(), "code in the artifact was run"
    for text in filter(None, found.values()):
        assert text.isprintable(), f"not one plain line: {text!r}"
        assert text.startswith(str(folder.parent)), f"no path first: {text!r}"
    # How much memory is left decides when a graph of 2^40 numbers fails.
    if not case.startswith(("manifest", "cut", "flip", "swap", "graph: 2^40")):
        command_lines(case, folder, found)
    return found


def open_and_ask(folder: Path, golden: Golden) -> Verdict:
    try:
        predictor = Predictor(folder, device="cpu", adapt=True)
    except ArtifactError as error:
        return {"open": str(error)}
    stream(predictor)
    return {"open": None, "predict": ask(predictor, golden)}


def stream(predictor: Predictor) -> None:
    """Whatever the graph gives, the forecast of a stream is finite."""
    manifest = predictor.manifest
    for i in range(min(manifest["context"], 64) + 2):
        predictor.observe(i * (manifest["bin_s"] or 1.0), 5.0, 5.0)
    forecast = predictor.forecast()
    assert np.isfinite(forecast.values).all(), forecast.source
    assert (forecast.values >= 0).all(), forecast.source


def ask(predictor: Predictor, golden: Golden) -> str | None:
    """None when the golden forecasts come out, of a batch and of one window."""
    where = predictor._model.where
    shape = predictor.manifest["context"], len(predictor.manifest["channels"])
    if shape != golden.context.shape[1:]:
        return f"{where}: another shape"
    time_s = golden.time_s if "time_s" in predictor.manifest["inputs"] else None
    try:
        batch = predictor.predict_outputs(golden.context, time_s)
        one = predictor.predict_outputs(golden.context[0], None if time_s is None else float(time_s[0]))
    except ArtifactError as error:
        return str(error)
    same = all(close(batch[name], right) and close(one[name], right[0]) for name, right in golden.outputs.items())
    return None if same else f"{where}: another forecast"


def close(found: np.ndarray, right: np.ndarray) -> bool:
    return found.shape == right.shape and np.allclose(found, right, rtol=1e-3, atol=1e-3)


def verified(folder: Path) -> str | None:
    try:
        problems = verify(folder, device="cpu").problems
    except ArtifactError as error:
        return str(error)
    return problems[0] if problems else None


def command_lines(case: str, folder: Path, found: Verdict) -> None:
    """Both commands say what the calls say, and never with a traceback."""
    run(fcast_verify, [str(folder), "--device", "cpu"], "", fails=found["verify"] is not None)
    rows = "timestamp_s,request_tokens,response_tokens\n1,2,3\n200,5,6\n"
    if case.startswith(("golden", "parity")):
        return  # not read
    run(fcast_predict, [str(folder), "--device", "cpu"], rows, fails=found["open"] is not None)


def run(command: click.Command, arguments: Sequence[str], stdin: str, *, fails: bool) -> None:
    done = cli_runner().invoke(command, arguments, input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == fails, (done.exit_code, done.stderr)
    assert done.stderr.splitlines()[-1:] == [] or done.stderr.splitlines()[-1].startswith(("Error: ", "Warning: "))
    assert done.stderr.startswith("Error: ") or not fails or "EP Error" in done.stderr  # onnxruntime 1.18 says more


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore", RuntimeWarning)
    home = os.getcwd()
    for line in sys.stdin:
        case = line.strip()
        # Seconds of this process, whatever else the machine does; the signal ends it, also inside C++.
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        found: dict[str, Any] = {"case": case}
        with tempfile.TemporaryDirectory() as scratch:
            try:
                folder, golden = make(case, Path(scratch))
                os.chdir(folder.parent)  # where ONNX Runtime would look for other files of the graph
                found |= judge(case, folder, golden)
            except Exception:
                found["bug"] = traceback.format_exc()
            os.chdir(home)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
