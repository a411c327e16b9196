"""What the self-test of fcast-doctor trains and exports, found as an entry point: a model of each kind, on little data.

The GPU's part has not been run on one. Two processes talk over gloo on any machine, over NCCL where there are two GPUs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from export.artifact import export_checkpoint
from training.config import DataConfig, FitConfig, ForecasterConfig, RunConfig
from training.device import half_dtype
from training.registry import model_names
from training.run import Data, prepare, train_model
from training.synth import synthesize

_AMP_WITHIN = 0.05
_TIMEOUT_S = 150
_TALK = """
import os, sys, torch
import torch.distributed as dist
backend, rank = sys.argv[1], int(os.environ["RANK"])
device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
dist.init_process_group(backend)
number = torch.full((1 << 16,), float(rank + 1), device=device)
dist.all_reduce(number)
assert float(number.min()) == float(number.max()) == 3.0, number
dist.destroy_process_group()
"""


def kinds() -> list[str]:
    """Every registered model of this project; those of others' packages are theirs to test."""
    return [name for name in model_names() if name in ("lstm", "gru", "dlinear", "transformer", "multiscale")]


def device() -> str:
    """Where the training of the self-test runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(kind: str, folder: Path, *, precision: str = "fp32") -> tuple[Path, float]:
    """Train a model of the default size for an epoch of a few minutes' trace.

    Returns:
        Its run folder, and its wQL on validation.
    """
    data = _data()
    fit = FitConfig(epochs=1, device=device(), seed=0, precision=precision)
    config = RunConfig(data=data.config, model=ForecasterConfig(model=kind), fit=fit)
    run = folder / f"{kind}-{precision}"
    run.mkdir(parents=True)
    done = train_model(data, config, run)
    return run, float(done.meta["training"]["best_validation_wql"])


def export(run: Path, out: Path, name: str) -> Path:
    """Export a run folder, with the proof that it forecasts the same; the artifact's folder."""
    return export_checkpoint(run, out=out, name=name).path


def amp(folder: Path) -> str:
    """Train in 16 bits too and compare; what was found.

    Raises:
        ArithmeticError: the wQL differs by more than a twentieth.
    """
    kind = str(half_dtype("amp", torch.device("cuda"))).removeprefix("torch.")
    (_, full), (_, half) = train("gru", folder), train("gru", folder, precision="amp")
    found = f"wQL {half:.4f} in {kind}, {full:.4f} in float32"
    if not abs(half - full) <= _AMP_WITHIN * full:
        raise ArithmeticError(found)
    return found


def talk(backend: str) -> None:
    """Add numbers of two processes, as training on several GPUs does: `gloo` on the CPU, or `nccl`.

    Raises:
        RuntimeError: they could not.
    """
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    done = subprocess.run(
        [sys.executable, *command, sys.executable, "-c", _TALK, backend],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = re.findall(r"^(?:\[.*?\]:)?(\S*Error: .+)$", done.stderr, re.MULTILINE)
        raise RuntimeError(said[0] if said else f"torch.distributed.run ended with exit code {done.returncode}")


def gpus() -> int:
    """GPUs that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _data() -> Data:
    trace = synthesize(days=0.1, rate_per_s=0.1, seed=0)
    trace = replace(trace, clock="epoch", time_s=trace.time_s + 1.7e9)
    return prepare(trace, DataConfig(series="load", bin_s=30.0, context=50, horizon=10))
