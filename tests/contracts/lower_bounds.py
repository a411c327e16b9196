"""The lowest versions of the runtime's dependencies that pyproject.toml admits, as pip wants them, one per line.

`make test` installs exactly these into .venv-lowest: `python tests/contracts/lower_bounds.py pyproject.toml`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BOUNDED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<low>[0-9.]+),<[0-9.]+")


def lower_bounds(pyproject: str) -> list[str]:
    """`name==lowest` of the base dependencies and of the extra `cpu`.

    Raises:
        ValueError: a dependency is not written as `name>=low,<high`.
    """
    project = tomllib.loads(pyproject)["project"]
    found = []
    for requirement in project["dependencies"] + project["optional-dependencies"]["cpu"]:
        match = _BOUNDED.fullmatch(requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: expected 'name>=low,<high', got '{requirement}'; bound it on both sides")
        found.append(f"{match['name']}=={match['low']}")
    return found


if __name__ == "__main__":
    print(*lower_bounds(Path(sys.argv[1]).read_text(encoding="utf-8")), sep="\n")
