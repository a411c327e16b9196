"""What the commands can do where more than the runtime is installed.

These parts need torch or matplotlib, so they are no part of the runtime: the distribution names them as entry points,
and here they are looked up.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any


def extra(group: str, name: str) -> Any:
    """The module of an extra part.

    Args:
        group: `fcast.bench` or `fcast.doctor`.
        name: of the entry point.

    Returns:
        It, or None where the runtime is here without its distribution, as a copied folder is.

    Raises:
        Exception: whatever its import raises where torch or another library is missing or broken.
    """
    return next((point.load() for point in entry_points(group=group) if point.name == name), None)
