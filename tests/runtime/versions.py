"""Versions of `requests` in an artifact of a test's own: put there, damaged, fed, told apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime import Predictor
from runtime.live import LiveStream
from tests.runtime.conftest import ARTIFACTS, seal

Publish = Callable[..., Path]


def publish_under(
    folder: Path, version: int, *, of: int = 1, damage: Callable[[Path], None] | None = None, **changes: Any
) -> Path:
    """Put a version there, whole as the exporter does it; the artifact's folder."""
    root, staged = folder / "requests", folder / f"staged-{version}"
    root.mkdir(exist_ok=True)
    shutil.copytree(ARTIFACTS / "requests" / str(of), staged)
    manifest = json.loads((staged / "manifest.json").read_text())
    seal(staged, manifest | {"version": version} | changes)
    if damage is not None:
        damage(staged)
    staged.rename(root / str(version))
    return root


def feed(stream: LiveStream | Predictor, steps: int = 20, start: int = 0) -> None:
    for i in range(start, start + steps):
        stream.observe(float(i), 100 + i, 50)


def cut_model(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-10])


def assert_forecasts_of(p: Predictor, version: int, *streams: LiveStream | Predictor) -> None:
    """That these streams say what the version says for the windows they hold."""
    alone = Predictor(ARTIFACTS / "requests", version=version, device="cpu")
    for stream in streams:
        live = stream._live if isinstance(stream, Predictor) else stream
        window = live._stream.steps.last(16)
        np.testing.assert_array_equal(stream.forecast().values, alone.predict(window))
        np.testing.assert_array_equal(p.predict(window), alone.predict(window))
