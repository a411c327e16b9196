"""Hands hostile cases to a child process and outlives it: its end is that case's verdict."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
_WAIT_S = 60.0
"""The child counts its own seconds and ends itself; this is for one that sleeps, on however slow a machine."""


def judge_all(cases: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield each case's verdict from a child, a fresh one after each that was ended by its case."""
    left = list(cases)
    while left:
        for verdict in _one_child(tuple(left)):
            left.pop(0)
            yield verdict


def _one_child(cases: Sequence[str]) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.runtime.hostile_child"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
        try:
            child.stdin.write("".join(f"{case}\n" for case in cases).encode())
            child.stdin.close()
            for case in cases:
                try:
                    line = lines.get(timeout=_WAIT_S)
                except queue.Empty:
                    yield {"case": case, "bug": f"no verdict after {_WAIT_S} s"}
                    return
                if not line:
                    yield {"case": case, "bug": f"the process ended with {_how(child.wait())}"}
                    return
                yield json.loads(line)
        finally:
            child.kill()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"{signal.Signals(-code).name}"


def _pass_on(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")
