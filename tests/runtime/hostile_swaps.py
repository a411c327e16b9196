"""An artifact that turns into another while it is read, at its n-th open; who can write it could.

The files are overwritten in place, so that what is open already changes too.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.runtime.conftest import ARTIFACTS

_OPENS = 12
"""As many files as opening, asking and verifying read, and a few more."""
_plan: list[tuple[str, int, Path]] = []  # the folder, how often it is opened until then, what it turns into

CASES = [f"swap:counts:{n}:{how}" for n in range(_OPENS) for how in ("for good", "and back")]


@contextmanager
def swapping(case: str, folder: Path) -> Iterator[None]:
    """Have a case of CASES happen meanwhile; of any other case nothing."""
    kind, *parts = case.split(":")
    if kind == "swap":
        real = os.path.realpath(folder)
        _plan.append((real, int(parts[1]), ARTIFACTS / "load" / "1"))
        if parts[2] == "and back":
            _plan.append((real, 0, ARTIFACTS / "counts" / "1"))
    try:
        yield
    finally:
        _plan.clear()


def _swap(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _plan or not str(arguments[0]).startswith(_plan[0][0]):
        return
    folder, left, other = _plan.pop(0)
    if left:
        _plan.insert(0, (folder, left - 1, other))
        return
    later = _plan.copy()
    _plan.clear()  # what is opened to overwrite is not what the reader opens
    shutil.copytree(other, folder, dirs_exist_ok=True)
    _plan.extend(later)


sys.addaudithook(_swap)  # for the life of the process
