"""Run the Python blocks of a Markdown page in order, in one namespace, in the current folder.

python -m tests.contracts.run_blocks PAGE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def python_blocks(page: Path) -> list[str]:
    """The blocks, each preceded by blank lines so that errors show the line of the page."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text[: match.start(1)].count("\n") + match[1] for match in _BLOCK.finditer(text)]


def run(block: str, page: Path, namespace: dict[str, Any]) -> None:
    exec(compile(block, str(page), "exec"), namespace)


if __name__ == "__main__":
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(python_blocks(Path(sys.argv[1])), start=1):
        run(code, Path(sys.argv[1]), names)
        print(f"block {number} ran", file=sys.stderr)
