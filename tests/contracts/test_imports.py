"""Who may import whom: over the AST of every module, and in fresh processes.

That the runtime forecasts with nothing else loaded, and under another name, stands in tests/runtime/test_lean.py.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "training", "export", "predictor", "benchmarks", "examples")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

RUNTIME_MAY = sys.stdlib_module_names | {"numpy", "onnxruntime"}
RUNTIME_MAY_IN = {"runtime/metrics.py": "prometheus_client"}
"""Behind an extra, imported inside functions."""
PANDAS_MAY = (
    *("training/readers.py", "training/formats.py", "training/trace_", "predictor/"),
    *("training/request_frame.py", "training/request_predictor.py", "training/model_interface.py"),
    "training/model_comparison.py",
)
"""Where traces are read, and the documented Python API."""
EXECUTES_CODE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def violations(source: str, module: str) -> list[str]:
    """What `source` does that a module at `module` (`runtime/ring.py`) must not do."""
    found = []
    package, *inner = module.split("/")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level > len(inner):
            found.append(f"line {node.lineno}: a relative import that leaves {package}")
        found += [f"line {node.lineno}: {what}" for what in _unsafe(node)]
        for name in _imported(node):
            top = name.partition(".")[0]
            if top in EXECUTES_CODE:
                found.append(f"line {node.lineno}: {name} runs what it reads")
            if not _may_import(top, package, module):
                found.append(f"line {node.lineno}: {module} must not import {name}")
    return found


def _may_import(top: str, package: str, module: str) -> bool:
    if package == "runtime":
        cli = top == "click" and module.rpartition("/")[2].startswith("cli")
        return cli or top in RUNTIME_MAY or top == RUNTIME_MAY_IN.get(module)
    if package == "training" and top in ("export", "runtime", "predictor"):
        return False
    return package not in ("training", "export", "predictor") or top != "pandas" or module.startswith(PANDAS_MAY)


def _imported(node: ast.AST) -> list[str]:
    """Absolute names that a node imports, `importlib.import_module("name")` included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


def _unsafe(node: ast.AST) -> list[str]:
    """Calls that may run code from a file: both switches must stand at their safe value, literally."""
    if not isinstance(node, ast.Call):
        return []
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    found = []
    if said.get("weights_only", "True") != "True":
        found.append(f"weights_only={said['weights_only']}")
    if said.get("allow_pickle", "False") != "False":
        found.append(f"allow_pickle={said['allow_pickle']}")
    if ast.unparse(node.func) == "torch.load" and "weights_only" not in said:
        found.append("torch.load without weights_only=True")
    return found


def test_there_are_modules_to_check() -> None:
    assert {"runtime", "training", "export"} <= {path.relative_to(ROOT).parts[0] for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_keeps_the_import_rules(path: Path) -> None:
    module = path.relative_to(ROOT).as_posix()
    assert violations(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("runtime/a.py", "import torch"),
        ("runtime/a.py", "import numpy, pandas"),
        ("runtime/a.py", "def f():\n    from onnx import helper"),
        ("runtime/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("runtime/a.py", "import runtime.forecast"),
        ("runtime/a.py", "from training import series"),
        ("runtime/a.py", "from export.parity import check"),
        ("runtime/a.py", "from ..training import series"),
        ("runtime/inner/a.py", "from ...training import series"),
        ("runtime/a.py", "import click"),
        ("runtime/client.py", "import importlib\nimportlib.import_module('torch.nn')"),
        ("runtime/a.py", "__import__('pandas')"),
        ("training/a.py", "import runtime"),
        ("training/a.py", "from runtime.manifest import SCHEMA"),
        ("training/a.py", "def f():\n    import export.parity"),
        ("training/fit.py", "import pandas as pd"),
        ("export/a.py", "import pandas"),
        ("export/a.py", "import pickle"),
        ("training/a.py", "from pickle import load"),
        ("training/a.py", "torch.load(path)"),
        ("training/a.py", "torch.load(path, weights_only=False)"),
        ("training/a.py", "torch.load(path, weights_only=safe)"),
        ("runtime/a.py", "np.load(path, allow_pickle=True)"),
        ("benchmarks/a.py", "import joblib"),
    ],
)
def test_checker_catches(module: str, source: str) -> None:
    assert violations(source, module) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("runtime/a.py", "import json, numpy.typing\nfrom .ring import Ring\nimport onnxruntime as ort"),
        ("runtime/cli_verify.py", "import click"),
        ("runtime/inner/a.py", "from ..ring import Ring"),
        ("training/readers.py", "import pandas as pd"),
        ("predictor/model_interface.py", "import pandas, training.registry"),
        ("export/a.py", "from runtime import Predictor\nimport training.series, onnx, torch"),
        ("training/a.py", "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)"),
    ],
)
def test_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


def run_python(code: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def loaded_after(code: str, *, cwd: Path) -> set[str]:
    """Top-level names in sys.modules after `code` in a fresh process."""
    done = run_python(f"{code}\nimport json, sys; print(json.dumps([*sys.modules]))", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


HEAVY = {"torch", "pandas", "onnx", "click", "training", "export", "predictor", "rich", "matplotlib", "pyarrow"}


def test_importing_the_runtime_loads_not_even_onnxruntime(tmp_path: Path) -> None:
    loaded = loaded_after("import runtime.predictor", cwd=tmp_path)
    assert "numpy" in loaded
    assert loaded & (HEAVY | {"onnxruntime"}) == set()


@pytest.mark.parametrize("package", ["runtime", "training", "export", "predictor"])
def test_importing_a_package_changes_nothing(package: str, tmp_path: Path) -> None:
    code = f"""
    import logging, os, signal, sys, threading, warnings
    import numpy  # it adds to the filters of warnings
    def state():
        return (
            dict(os.environ), os.getcwd(), list(sys.path), list(warnings.filters), list(logging.root.handlers),
            logging.root.level, threading.active_count(), [signal.getsignal(s) for s in signal.valid_signals()],
        )
    before = state()
    import {package}
    assert state() == before
    assert "torch" not in sys.modules and "pandas" not in sys.modules
    """
    done = run_python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
