"""Which of a package's wheels a machine would take, by their tags.

uv lists the wheels of every machine, or only those that fit, as its version has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename


def ranked_tags(python: str, machine: str, glibc_minor: int) -> dict[Tag, int]:
    """Tags of wheels that a Linux machine installs; the one that fits best has rank 0.

    Args:
        python: `3.11`.
        machine: `x86_64`.
        glibc_minor: N of its glibc 2.N.
    """
    return {tag: rank for rank, tag in enumerate(_tags((3, int(python.partition(".")[2])), machine, glibc_minor))}


def _tags(python: tuple[int, int], machine: str, glibc_minor: int) -> Iterator[Tag]:
    old = {17: [f"manylinux2014_{machine}"], 12: [f"manylinux2010_{machine}"], 5: [f"manylinux1_{machine}"]}
    platforms = [p for n in range(glibc_minor, 4, -1) for p in (f"manylinux_2_{n}_{machine}", *old.get(n, ()))]
    platforms.append(f"linux_{machine}")
    yield from cpython_tags(python, platforms=platforms)
    yield from compatible_tags(python, f"cp3{python[1]}", platforms)


def best_file(urls: Sequence[str], ranks: dict[Tag, int]) -> str | None:
    """The wheel that fits best, of equal ones the latest build; None when none fits."""
    fitting = []
    for url in urls:
        _, _, build, tags = parse_wheel_filename(unquote(url.rpartition("/")[2]))
        rank = min((ranks[tag] for tag in tags if tag in ranks), default=None)
        if rank is not None:
            fitting.append((-rank, build, url))
    return max(fitting, default=(0, (), None))[2]
