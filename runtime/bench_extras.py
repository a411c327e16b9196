"""What `fcast-bench` compares with and draws with where more than the runtime is installed.

These parts need torch or matplotlib, so they are no part of the runtime: the distribution names them as entry points of
the group `fcast.bench`, and here they are looked up.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any


def bench_extra(name: str) -> Any:
    """The module of an extra part.

    Args:
        name: `torch` or `plot`.

    Returns:
        It, or None where the runtime is here without its distribution, as a copied folder is.
    """
    return next((point.load() for point in entry_points(group="fcast.bench") if point.name == name), None)
