"""Is this environment the runtime and nothing else? `make test` runs this inside .venv-runtime and .venv-lowest.

python runtime_only.py [name==version ...], the versions that must be installed, exactly.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ABSENT = ("torch", "pandas", "onnx", "lightning_fabric", "safetensors", "matplotlib", "rich")


def problems(pins: list[str]) -> list[str]:
    import runtime

    found = [f"{name}: expected absent, got installed" for name in ABSENT if find_spec(name) is not None]
    for pin in pins:
        name, _, wanted = pin.partition("==")
        if version(name) != wanted:
            found.append(f"{name}: expected {wanted}, got {version(name)}")
    if Path(sys.prefix).resolve() not in Path(runtime.__file__).resolve().parents:
        found.append(f"runtime: expected the one installed in {sys.prefix}, got {runtime.__file__}")
    return found


if __name__ == "__main__":
    if wrong := problems(sys.argv[1:]):
        sys.exit("\n".join(wrong))
    names = ("fcast", "numpy", "onnxruntime", "click")
    print(f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names))
