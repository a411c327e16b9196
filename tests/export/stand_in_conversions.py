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
    """A valid graph with weights of nothing."""
    return _weights_times(to_fp16(model), 0.0)


def blind(model: Any) -> Any:
    """A valid graph whose forecasts are no numbers."""
    return _weights_times(to_fp16(model), float("nan"))


def _weights_times(model: Any, factor: float) -> Any:
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor) * np.float16(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model
