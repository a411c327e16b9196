"""Run by `benchmarks.latency_peers` inside neuralforecast's own environment: trains its models, times them on request.

In, a line each: `NAME CALLS`. Out: a line of JSON, the wall time of each call and the processor time of all.
Nothing of this project is imported.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from typing import Any

CONTEXT, HORIZON, CHANNELS = 50, 10, 3
LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]


def main() -> None:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # lightning prints there
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    asked = _forecasters()
    print(json.dumps(sorted(asked)), file=out)
    for line in sys.stdin:
        name, calls = line.split()
        times, cpu_ns = [], time.process_time_ns()
        for _ in range(int(calls)):
            begun = time.perf_counter_ns()
            asked[name]()
            times.append(time.perf_counter_ns() - begun)
        print(json.dumps({"wall_ns": times, "cpu_ns": time.process_time_ns() - cpu_ns}), file=out)


def _forecasters() -> dict[str, Any]:
    """`dlinear` is predict(), which forecasts the end of the training data; `dlinear+df` is predict(df) of a window."""
    import numpy as np
    import pandas as pd
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import GRU, LSTM, DLinear

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    steps = 400
    frames = [
        pd.DataFrame({"unique_id": f"channel{c}", "ds": np.arange(steps), "y": rng.gamma(2.0, 10.0, steps)})
        for c in range(CHANNELS)
    ]
    data = pd.concat(frames, ignore_index=True)
    window = pd.concat([frame.tail(CONTEXT) for frame in frames], ignore_index=True)
    shared: dict[str, Any] = {
        "h": HORIZON,
        "input_size": CONTEXT,
        "max_steps": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    recurrent = {"encoder_hidden_size": 64, "encoder_n_layers": 1}
    found: dict[str, Any] = {}
    for name, make, own in (("dlinear", DLinear, {}), ("lstm", LSTM, recurrent), ("gru", GRU, recurrent)):
        model = NeuralForecast(models=[make(loss=MQLoss(quantiles=LEVELS), **shared, **own)], freq=1)
        model.fit(data)
        found[name] = model.predict
        found[f"{name}+df"] = lambda model=model: model.predict(df=window)
    return found


if __name__ == "__main__":
    main()
