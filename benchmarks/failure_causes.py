"""The causes of benchmarks.failures, in the order of a person's way: trace, training, export, serving, the bundle."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.failure_kit import Kit, command

_HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A command that is going to fail."""

    words: Sequence[str]
    exit_code: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    stdout: str = os.devnull
    """A file for stdout, /dev/full say; "" shows it with stderr."""
    memory_bytes: int = 0
    """Limit of the address space."""
    disk: Path | None = None
    """A folder that is to be a file system of its own."""
    disk_bytes: int = 96 << 10
    stop_at: str = ""
    """SIGTERM once it says this."""
    shows: str = r"(Error|Warning|install\.sh|[\w.]+Error):"
    """What the lines that matter begin with, as a pattern."""


Cause = Callable[[Kit], Attempt]
FAILURES: dict[str, Cause] = {}


def failure(what: str) -> Callable[[Cause], Cause]:
    """Register a cause under what went wrong, in a person's words."""

    def register(cause: Cause) -> Cause:
        FAILURES[what] = cause
        return cause

    return register


_NAN = """
import torch

forward, calls = torch.nn.GRU.forward, []


def broken(self, *inputs):
    calls.append(0)
    output, state = forward(self, *inputs)
    return output, state * (float("nan") if self.training and len(calls) > 5 else 1)


torch.nn.GRU.forward = broken
"""
"""A device that begins to give NaN."""


@failure("the trace is not there")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-train"), "--trace", "tracee.csv"])


@failure("a CSV with columns that nobody knows")
def _(kit: Kit) -> Attempt:
    kit.write("odd.csv", "when,in,out\n1,2,3\n2,3,4\n")
    return Attempt(words=[command("fcast-train"), "--trace", "odd.csv"])


@failure("a cell of the trace is no number")
def _(kit: Kit) -> Attempt:
    kit.write("bad.csv", _HEADER + "5,GPT-4,10,20,30,x\n6,GPT-4,ten,20,30,x\n")
    return Attempt(words=[command("fcast-train"), "--trace", "bad.csv"])


@failure("an empty trace")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-train"), "--trace", kit.write("empty.csv", "")])


@failure("a trace of one request")
def _(kit: Kit) -> Attempt:
    kit.write("one.csv", _HEADER + "5,GPT-4,10,20,30,x\n")
    return Attempt(words=[command("fcast-train"), "--trace", "one.csv"])


@failure("a trace too short for the context")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[*kit.training, "--context", "5000"])


@failure("the rows of the trace are not in time order")
def _(kit: Kit) -> Attempt:
    kit.write("order.csv", _HEADER + "9,GPT-4,10,20,30,x\n6,GPT-4,10,20,30,x\n")
    return Attempt(words=[command("fcast-train"), "--trace", "order.csv"])


@failure("a setting with a typing error")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[*kit.training, "--set", "learning_rat=0.1"], exit_code=2)


@failure("a model that does not exist")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[*kit.training, "--model", "gruu"], exit_code=2)


@failure("training on CUDA where there is none")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[*kit.training, "--device", "cuda"])


@failure("training without torch installed")
def _(kit: Kit) -> Attempt:
    kit.write("without/torch.py", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    return Attempt(words=[*kit.training], environment={"PYTHONPATH": _first(kit.place / "without")})


@failure("the runs are there already")
def _(kit: Kit) -> Attempt:
    assert kit.run
    return Attempt(words=[*kit.training, "--model", "dlinear", "--out", "runs", "--epochs", "2"], exit_code=2)


@failure("the disk is full while training")
def _(kit: Kit) -> Attempt:
    disk = kit.folder("small")
    words = [*kit.training, "--model", "gru", "--epochs", "1", "--out", "small/runs"]
    return Attempt(words=words, disk=disk, disk_bytes=256 << 10)


@failure("memory runs out while training")
def _(kit: Kit) -> Attempt:
    words = [*kit.training, "--model", "transformer", "--epochs", "1", "--set", "d_model=128", "--set", "nhead=4"]
    words += ["--set", "batch_size=4096", "--set", "num_layers=2", "--context", "300", "--out", "runs-memory"]
    return Attempt(words=words, memory_bytes=2_800 << 20, exit_code=0, shows="out of memory|.*: training needs|Error")


@failure("the loss becomes NaN")
def _(kit: Kit) -> Attempt:
    kit.write("nan/sitecustomize.py", _NAN)
    words = [*kit.training, "--model", "gru", "--epochs", "3", "--out", "runs-nan"]
    environment = {"PYTHONPATH": _first(kit.place / "nan")}
    return Attempt(words=words, environment=environment, shows=".*not finite|Error")


@failure("training is ended by SIGTERM")
def _(kit: Kit) -> Attempt:
    words = [*kit.training, "--model", "gru", "--epochs", "500", "--set", "patience=500", "--out", "runs-term"]
    return Attempt(words=words, exit_code=143, stop_at="epoch 2/500", shows="Stopped|Terminated")


@failure("the checkpoint was altered")
def _(kit: Kit) -> Attempt:
    run = kit.spoilt(kit.run, "altered-run", "*.safetensors", slice(-9, -8))
    return Attempt(words=[command("fcast-export"), run, "--out", "out"])


@failure("the checkpoint is not there")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-export"), "runs/gruu", "--out", "out"])


@failure("an opset that the exporter does not know")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-export"), kit.run, "--opset", "30", "--out", "out"], exit_code=2)


@failure("a proof that cannot hold")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-export"), kit.run, "--atol", "0", "--rtol", "1e-12", "--out", "out"])


@failure("the disk is full while exporting")
def _(kit: Kit) -> Attempt:
    disk = kit.folder("small")
    words = [command("fcast-export"), kit.run, "--format", "onnx", "--format", "torchscript", "--out", "small"]
    return Attempt(words=words, disk=disk)


@failure("stdout goes to a full disk")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-trace"), "describe", kit.trace], stdout="/dev/full")


@failure("a byte of the model was altered")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-verify"), kit.spoilt(kit.artifact, "altered", "model.onnx", slice(99, 100))])


@failure("the model was cut while it was copied")
def _(kit: Kit) -> Attempt:
    cut = kit.spoilt(kit.artifact, "cut", "model.onnx", slice(1000, None))
    return Attempt(words=[command("fcast-predict"), cut], stdin="timestamp_s,request_tokens,response_tokens\n1,2,3\n")


@failure("an artifact of a newer fcast")
def _(kit: Kit) -> Attempt:
    newer = kit.spoilt(kit.artifact, "newer", "manifest.json", slice(0, 0))
    path = sorted((kit.place / newer).rglob("manifest.json"))[-1]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 9}))
    return Attempt(words=[command("fcast-verify"), newer])


@failure("an input of another shape")
def _(kit: Kit) -> Attempt:
    window = "numpy.ones((7, 3), 'float32')"
    code = f"from runtime import Predictor; import numpy; Predictor({kit.artifact!r}).predict({window})"
    return Attempt(words=[sys.executable, "-c", code])


@failure("serving on CUDA with onnxruntime for the CPU")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-predict"), kit.artifact, "--device", "cuda"], stdin="timestamp_s\n")


@failure("serving without onnxruntime")
def _(kit: Kit) -> Attempt:
    text = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
    kit.write("bare/onnxruntime.py", text)
    words = [command("fcast-verify"), kit.artifact]
    return Attempt(words=words, environment={"PYTHONPATH": _first(kit.place / "bare")})


@failure("both onnxruntime wheels are installed")
def _(kit: Kit) -> Attempt:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        about = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.20.0\n"
        kit.write(f"both/{name}-1.20.0.dist-info/METADATA", about)
    environment = {"PYTHONPATH": _first(kit.place / "both")}
    return Attempt(words=[command("fcast-doctor")], environment=environment, stdout="", shows="failed|-> pip")


@failure("a bad line in the stream of requests")
def _(kit: Kit) -> Attempt:
    lines = "timestamp_s,request_tokens,response_tokens\n1,2,3\n2,many,3\n"
    return Attempt(words=[command("fcast-predict"), kit.artifact], stdin=lines)


@failure("nothing on stdin")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-predict"), kit.artifact])


@failure("a bundle for a driver that is too old")
def _(kit: Kit) -> Attempt:
    return Attempt(words=[command("fcast-bundle"), "--driver", "440.33", "--dry-run"], exit_code=2)


@failure("a bundle with a damaged artifact")
def _(kit: Kit) -> Attempt:
    cut = kit.spoilt(kit.artifact, "cut", "golden.npz", slice(1000, None))
    return Attempt(words=[command("fcast-bundle"), "--cuda", "none", "--artifact", cut, "--dry-run"])


@failure("a file of the bundle was altered")
def _(kit: Kit) -> Attempt:
    return Attempt(words=["sh", kit.spoilt(kit.bundle, "altered-bundle", "fcast-*.whl", slice(9, 10)) + "/install.sh"])


@failure("a bundle that was not finished")
def _(kit: Kit) -> Attempt:
    unfinished = kit.spoilt(kit.bundle, "unfinished", "SHA256SUMS", slice(0, 0))
    (kit.place / unfinished / "SHA256SUMS").unlink()
    return Attempt(words=["sh", f"{unfinished}/install.sh"])


def _first(folder: Path) -> str:
    """PYTHONPATH with a folder before the others."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
