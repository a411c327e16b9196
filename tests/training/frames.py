"""Tables of requests that the tests of the documented Python API share."""

from __future__ import annotations

import pandas as pd

from tests.training.traces import request_trace
from training.model_config import ModelConfig
from training.request_frame import trace_to_frame


def request_frame(rows: int = 300, *, seed: int = 0, start_s: float = 0.0) -> pd.DataFrame:
    """Poisson arrivals with lognormal tokens, under BurstGPT's column names."""
    return trace_to_frame(request_trace(rows, seed=seed, start_s=start_s))


def small(**settings) -> ModelConfig:
    """A configuration that trains in a moment."""
    return ModelConfig(**{"sequence_length": 16, "prediction_horizon": 3, "epochs": 1, "batch_size": 64, **settings})
