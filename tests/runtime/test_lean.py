"""What the runtime must not need, must not keep, and must survive: other libraries, memory, another package name."""

from __future__ import annotations

import ast
import gc
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import runtime
from runtime import Predictor
from tests.runtime.conftest import ARTIFACTS

RUNTIME = Path(runtime.__file__).parent
HEAVY = ("torch", "pandas", "onnx", "click", "training", "export", "rich", "scipy", "pyarrow")

RUN = """
import sys
from {package} import Predictor
p = Predictor({artifact!r}, device="cpu")
for i in range(20):
    p.observe(float(i), 10 + i, 20)
print(p.forecast().source, p.forecast().next_request().timestamp_s)
print(*[name for name in {heavy!r} if name in sys.modules])
"""


def run_alone(package: str, folder: Path) -> list[str]:
    code = RUN.format(package=package, artifact=str(ARTIFACTS / "requests"), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_importing_and_forecasting_load_nothing_heavy() -> None:
    source, loaded = run_alone("runtime", RUNTIME.parent)
    assert source.startswith("model ")
    assert loaded == ""


def test_the_folder_works_under_another_package_name(tmp_path: Path) -> None:
    shutil.copytree(RUNTIME, tmp_path / "acme_forecast", ignore=shutil.ignore_patterns("__pycache__"))
    assert run_alone("acme_forecast", tmp_path) == run_alone("runtime", RUNTIME.parent)


def test_a_process_that_forecasts_writes_nothing_anywhere(tmp_path: Path) -> None:
    """onnxruntime's telemetry, in its wheels from 1.29 on, would leave a cache and an identity of the machine."""
    homes = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    code = RUN.format(package="runtime", artifact=str(ARTIFACTS / "requests"), heavy=HEAVY)
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | homes
    subprocess.run([sys.executable, "-c", code], cwd=RUNTIME.parent, env=environment, check=True, capture_output=True)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("path", sorted(RUNTIME.glob("*.py")), ids=lambda path: path.name)
def test_modules_import_the_library_numpy_and_their_neighbours_alone(path: Path) -> None:
    allowed = {"numpy", "onnxruntime"} | set(sys.stdlib_module_names)
    if path.name.startswith("cli"):
        allowed.add("click")
    if path.name == "metrics.py":
        allowed.add("prometheus_client")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or (node.module or "").split(".")[0] in allowed


def test_a_long_stream_takes_no_more_memory_than_a_short_one() -> None:
    for name in ("requests", "load"):
        p = Predictor(ARTIFACTS / name, device="cpu")

        def feed(begin: int, end: int, p: Predictor = p) -> None:
            for i in range(begin, end):
                p.observe(i * 3.5, 100, 50)
                if i % 10 == 0:
                    p.forecast()

        feed(0, 1000)
        tracemalloc.start()
        feed(1000, 2000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        feed(2000, 12_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 16_384, name  # a single float kept per call would make 240,000
