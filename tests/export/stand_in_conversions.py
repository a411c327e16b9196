"""Conversions that go wrong, to be imported by name in the child process that tries them."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np

from export.precision import to_fp16


def segfault(model: Any) -> Any:
    ctypes.string_at(0)  # reads address 0
    return model


def hang(model: Any) -> Any:
    time.sleep(60)
    return model


def fail(model: Any) -> Any:
    raise RuntimeError("no such kernel")


def ruin(model: Any) -> Any:
    """A valid graph whose head has weights of nothing."""
    return _times(to_fp16(model), "head.head.weight", 0.0)


def blind(model: Any) -> Any:
    """A valid graph whose forecasts are no numbers."""
    return _times(to_fp16(model), "quantiles.unit", float("inf"))


def _times(model: Any, ending: str, factor: float) -> Any:
    from onnx import numpy_helper

    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith(ending))
    values = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model
