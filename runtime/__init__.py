"""The runtime of fcast: an artifact in, forecasts out, with numpy and onnxruntime alone.

>>> from runtime import Predictor
>>> p = Predictor("artifacts/gru")
>>> p.observe(12.5, 310, 128)
>>> p.forecast().next_request()
"""

from __future__ import annotations

from .cuda_options import CudaOptions
from .errors import ArtifactError, DeviceError, FcastError, InputError, MissingDependencyError
from .forecast import Forecast, NextRequest
from .manifest import Manifest
from .predictor import Predictor

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "CudaOptions",
    "DeviceError",
    "FcastError",
    "Forecast",
    "InputError",
    "Manifest",
    "MissingDependencyError",
    "NextRequest",
    "Predictor",
    "__version__",
]
