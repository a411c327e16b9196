"""What users' programs and scripts rely on. A change here breaks somebody: it belongs into the CHANGELOG."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import runtime
from runtime import Forecast, Predictor
from runtime.live import LiveStream

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS: dict[str, str] = PROJECT["scripts"]


def parameters(function: Callable[..., Any]) -> str:
    """A signature without annotations: `path, *, device='auto'`."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for n, p in signature.parameters.items() if n != "self"]
    return str(inspect.Signature(bare))[1:-1]


def command(script: str) -> click.Command:
    module, _, name = SCRIPTS[script].partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, click.Command), found
    return found


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            Predictor.__init__,
            "path, *, version=None, device='auto', threads=1, adapt=False, breaker=True, max_streams=10000, cuda=None",
        ),
        (Predictor.observe, "timestamp_s, request_tokens=None, response_tokens=None"),
        (Predictor.observe_bin, "start_s, requests, request_tokens=None, response_tokens=None"),
        (Predictor.forecast, "now_s=None, deadline_s=None"),
        (Predictor.predict, "context, time_s=None"),
        (Predictor.predict_outputs, "context, time_s=None"),
        (Predictor.stream, "key"),
        (Predictor.forecast_many, "keys, now_s=None"),
        (Predictor.forget, "key"),
        (Predictor.keys, ""),
        (Predictor.stats, ""),
        (Predictor.snapshot, ""),
        (Predictor.restore, "data"),
        (Predictor.reload, "version=None"),
        (Predictor.rollback, ""),
        (Predictor.watch, "every_s=60.0"),
        (Predictor.close, ""),
        (LiveStream.observe, "timestamp_s, request_tokens=None, response_tokens=None"),
        (LiveStream.observe_bin, "start_s, requests, request_tokens=None, response_tokens=None"),
        (LiveStream.forecast, "now_s=None, deadline_s=None"),
        (LiveStream.snapshot, ""),
        (LiveStream.restore, "data"),
        (Forecast.at, "level"),
        (Forecast.next_request, "level=0.5"),
        (Forecast.demand, "lead_time_s, *, level=0.9"),
        (Forecast.peak, "lead_time_s, *, level=0.9"),
        (Forecast.to_dict, ""),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_signature(method: Callable[..., Any], expected: str) -> None:
    assert parameters(method) == expected


@pytest.mark.parametrize("name", ["manifest", "device", "providers", "reload_error"])
def test_predictor_has_the_read_only_property(name: str) -> None:
    assert inspect.getattr_static(Predictor, name).fset is None


def test_forecast_has_what_a_scheduler_reads() -> None:
    forecast = Predictor(ROOT / "tests/runtime/artifacts/requests", device="cpu").forecast()
    shape = (4, 3, 7)
    assert (forecast.values.shape, forecast.values.dtype) == (shape, np.float32)
    assert (len(forecast.channels), len(forecast.levels)) == shape[1:]
    assert forecast.step_s is None
    assert forecast.at(0.9).shape == shape[:2]
    assert re.fullmatch(r"model(\+adaptive)?|fallback:\w+", forecast.source)
    following = forecast.next_request()
    assert {"timestamp_s", "request_tokens", "response_tokens"} <= set(dir(following))


def test_runtime_exports_its_public_names() -> None:
    assert {
        "ArtifactError",
        "CudaOptions",
        "DeviceError",
        "FcastError",
        "Forecast",
        "InputError",
        "MissingDependencyError",
        "Predictor",
        "__version__",
    } <= set(runtime.__all__)
    assert all(hasattr(runtime, name) for name in runtime.__all__)


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (runtime.ArtifactError, ValueError),
        (runtime.InputError, ValueError),
        (runtime.DeviceError, OSError),
        (runtime.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_ours_and_of_a_built_in_kind(error: type[Exception], built_in: type[Exception]) -> None:
    assert issubclass(error, runtime.FcastError)
    assert issubclass(error, built_in)


def test_version_is_that_of_the_distribution() -> None:
    assert runtime.__version__ == PROJECT["version"]


def test_scripts_exist() -> None:
    documented = "trace train export verify predict bench backtest bundle doctor"
    assert {f"fcast-{verb}" for verb in documented.split()} <= set(SCRIPTS)


def every_command(script: str) -> list[tuple[list[str], click.Command]]:
    """The command of a script and, where it is a group, its subcommands: (arguments that reach it, command)."""
    top = command(script)
    below = top.commands.items() if isinstance(top, click.Group) else ()
    return [([], top), *(([name], sub) for name, sub in below)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches(script: str) -> None:
    for arguments, what in every_command(script):
        result = CliRunner().invoke(command(script), [*arguments, "--help"], prog_name=script)
        assert result.exit_code == 0
        if arguments:
            continue
        examples = re.search(r"Examples?:\n(.*)", result.output, re.DOTALL)
        assert examples, result.output
        assert f"\n  {script} " in "\n" + examples[1].replace("    ", "  "), result.output
        assert what.help


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_is_explained(script: str) -> None:
    for _, what in every_command(script):
        silent = [p.opts for p in what.params if isinstance(p, click.Option) and not p.help]
        assert silent == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_usage_exits_2_and_says_so_on_stderr(script: str) -> None:
    for arguments, _ in every_command(script):
        result = CliRunner().invoke(command(script), [*arguments, "--no-such-option"], prog_name=script)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--no-such-option" in result.stderr


# --precision of fcast-export, documented too, comes with the first reduced precision.
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (
            "fcast-train",
            "--trace --model --series --bin --context --horizon --epochs --device --out --config --set --json "
            "--from --tune --list --tensorboard",
        ),
        ("fcast-export", "--best --format --out --name --opset --atol --rtol --json"),
        ("fcast-verify", "--device --json"),
        ("fcast-predict", "--device"),
        ("fcast-bench", "--device --threads --batch --calls --paced --streams --checkpoint --plot --json"),
        ("fcast-doctor", "--selftest --out --artifact --json"),
        (
            "fcast-bundle",
            "--out --python --platform --cuda --driver --compute-capability --role --artifact --dry-run --json",
        ),
        ("fcast-backtest", "--trace --each --refit --lead-time --html --device --json"),
    ],
)
def test_documented_options_exist(script: str, options: str) -> None:
    found = {opt for parameter in command(script).params for opt in parameter.opts}
    assert set(options.split()) <= found


def test_export_formats_are_the_documented_ones() -> None:
    choices = {p.name: p.type for p in command("fcast-export").params}["formats"]
    assert isinstance(choices, click.Choice)
    assert set(choices.choices) == {"onnx", "torchscript"}
