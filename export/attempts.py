"""One exporter after another, until one gives what the gate accepts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from export.errors import ExportError, StorageError

Found = TypeVar("Found")


def first_accepted(
    exporters: Sequence[str], attempt: Callable[[str], Found], *, where: Path
) -> tuple[Found, dict[str, str]]:
    """Call `attempt` with each exporter until one passes; a RuntimeWarning says which did not.

    Args:
        exporters: in order, at least one.
        attempt: raises ExportError where the exporter fails or its graph is refused.
        where: the staging folder, which no text may name.

    Returns:
        What `attempt` gave, and exporter -> why it was rejected.

    Raises:
        StorageError: at once, as another exporter needs the same disk.
        ExportError: none passed; the first one's error, with the others' behind it.
    """
    rejected: dict[str, ExportError] = {}
    for exporter in exporters:
        try:
            found = attempt(exporter)
        except StorageError:
            raise
        except ExportError as error:
            rejected[exporter] = error
            continue
        reasons = {failed: str(error).replace(f"{where}/", "") for failed, error in rejected.items()}
        for failed, reason in reasons.items():
            warnings.warn(
                f"exporter {failed}: rejected, {exporter} used instead: {reason}", RuntimeWarning, stacklevel=3
            )
        return found, reasons
    (_, first), *others = rejected.items()
    if not others:
        raise first
    raise type(first)("; ".join([str(first), *(f"{name} fails too: {error}" for name, error in others)])) from first
