"""The real traces, the settings recommended for each, chosen on validation, and how a benchmark calls a command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

WEEK, POOL = "azure2024_coding_10s_counts.csv.gz", "servegen_m-large_10min_counts.csv"
CONV, CODE = "AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv"
ALL, FEW = "multiscale,gru,lstm,transformer,dlinear", "multiscale,gru"
LOAD = ["--series", "load", "--ensemble", "--set", "refit=true"]
FINE = ["--bin", "10", "--step", "60", "--context", "360"]
REQUESTS = ["--series", "requests", "--context", "2000", "--set", "recent=50", "--set", "learning_rate=0.0003"]
LOG_SCORE = ["--set", "unit=request", "--set", "by_size=false"]
ONE_STEP = [*LOAD, "--horizon", "1", "--epochs", "20", *LOG_SCORE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trace with the settings to train on it."""

    trace: str
    models: str
    options: list[str]
    score: str = "wql"
    """wql, or planner_loss: that of NVIDIA Dynamo's planner, one step ahead."""


JOBS = {
    "week": Job(
        trace=WEEK,
        models=ALL,
        options=[*LOAD, *FINE, "--split", "4,1,2", "--epochs", "8", "--set", "stride=3"],
    ),
    "pool": Job(
        trace=POOL, models=ALL, options=[*LOAD, "--bin", "600", "--context", "36", "--horizon", "6", "--epochs", "20"]
    ),
    "conv": Job(trace=CONV, models=FEW, options=[*REQUESTS, "--epochs", "3"]),
    "code": Job(trace=CODE, models=FEW, options=[*REQUESTS, "--epochs", "3"]),
    **{
        f"{name}_{bin_s}s": Job(
            trace=trace,
            models=ALL,
            options=[*ONE_STEP, "--bin", str(bin_s), "--context", str(context)],
            score="planner_loss",
        )
        for name, trace in (("code", CODE), ("conv", CONV))
        for bin_s, context in ((10, 30), (60, 5))
    },
}


def run_command(command: str, *arguments: object) -> str:
    """Run a command, shown on stderr, and give its output; where it fails, end as it did."""
    words = [command, *map(str, arguments)]
    click.echo(f"$ {shlex.join(words)}", err=True)
    if not Path(command).is_absolute():
        words[0] = str(Path(sys.executable).with_name(command))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        click.echo(done.stdout, err=True)
        sys.exit(done.returncode)
    return done.stdout
