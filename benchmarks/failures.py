"""What a person sees when something goes wrong: every failure is caused for real, in a process of its own.

python -m benchmarks.failures [--only WORDS]

Prints the table of docs/offline.md: what was done, the exit code, and what the command wrote on stderr last. Commands
that are not installed here are left out and named on stderr. Exit 1 when a command ended otherwise than it should, or
with a traceback. Takes about three minutes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.failure_causes import FAILURES, Attempt
from benchmarks.failure_kit import Kit

_LONGEST = 400
"""Characters of a line that the table shows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    what: str
    exit_code: int
    seen: list[str]
    problem: str


def observe(what: str, kit: Kit) -> Outcome:
    """Cause a failure.

    Raises:
        FileNotFoundError: the command is not installed here.
    """
    attempt = FAILURES[what](kit)
    code, said = _run(attempt, kit.place)
    problem = f"exit code {code}, expected {attempt.exit_code}" if code != attempt.exit_code else ""
    if "Traceback" in said and "from runtime import" not in " ".join(attempt.words):
        problem = "a traceback: " + said[-300:]
    return Outcome(what, code, _told(said, kit.place, attempt.shows), problem)


def _run(attempt: Attempt, place: Path) -> tuple[int, str]:
    words = list(attempt.words)
    if attempt.memory_bytes:
        words = ["sh", "-c", f'ulimit -v {attempt.memory_bytes // 1024}; exec "$@"', "sh", *words]
    if attempt.disk is not None:
        mount = f'mount -t tmpfs -o size={attempt.disk_bytes} tmpfs "{attempt.disk}" && exec "$@"'
        words = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | attempt.environment
    with tempfile.TemporaryFile("w+") as log, open(attempt.stdout or os.devnull, "w") as out:
        kept = log if attempt.stop_at or not attempt.stdout else out
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=kept, stderr=log, cwd=place, env=environment, text=True
        )
        assert child.stdin is not None
        try:
            child.stdin.write(attempt.stdin)
            child.stdin.close()
        except BrokenPipeError:
            pass
        if attempt.stop_at:
            deadline = time.monotonic() + 120
            while child.poll() is None and time.monotonic() < deadline:
                if attempt.stop_at in os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace"):
                    child.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.05)
        code = child.wait(timeout=300)
        log.seek(0)
        return code if code >= 0 else 128 - code, log.read()


def _told(said: str, place: Path, shows: str) -> list[str]:
    """The lines that matter: warnings and errors, or the last one; no folder of this run, no whole hashes."""
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace(f"{place}/", "").replace(str(place), ".")
    said = re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12}\.\.\.)", "...", said)
    said = re.sub(r"\.staging-[0-9a-f-]+", ".staging-...", said)
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
    marked = [line for line in lines if re.match(shows, line)]
    return [line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in (marked or lines[-1:])[-3:]]


def as_row(outcome: Outcome) -> str:
    """One row of the Markdown table."""
    seen = "<br>".join("`" + line.replace("|", "\\|").replace("`", "'") + "`" for line in outcome.seen)
    return f"| {outcome.what} | {outcome.exit_code} | {seen} |"


HEADER = "| what went wrong | exit | what the user sees |\n|---|---:|---|"


@click.command()
@click.option("--only", default="", help="Those whose description holds this.")
def main(only: str) -> None:
    """Cause every failure and print the table."""
    bad = 0
    with tempfile.TemporaryDirectory(prefix="fcast-failures-") as folder:
        kit = Kit(Path(folder))
        click.echo(HEADER)
        for what in FAILURES:
            if only not in what:
                continue
            try:
                outcome = observe(what, kit)
            except FileNotFoundError as error:
                click.echo(f"Left out: {what} ({error})", err=True)
                continue
            click.echo(as_row(outcome))
            if outcome.problem:
                bad += 1
                click.echo(f"PROBLEM: {what}: {outcome.problem}", err=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
