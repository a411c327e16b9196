"""What a checkpoint says about the data and the libraries that a run was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from training.series import UNITS

if TYPE_CHECKING:
    from training.run import Data

_LIBRARIES = ("fcast", "torch", "numpy", "lightning-fabric", "safetensors")


def library_versions() -> dict[str, str]:
    """Versions of Python and of what a run depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def data_facts(data: Data) -> dict[str, Any]:
    """What a checkpoint says about its series, as JSON values; the same for every model of one command."""
    series, config = data.series, data.config
    prior = np.quantile(series.values[: data.split.train_end], config.levels, axis=0).T
    return {
        "kind": series.kind,
        "channels": list(series.channels),
        "units": [UNITS[name] for name in series.channels],
        "clock": series.clock,
        "bin_s": series.bin_s,
        "step_s": data.wide.bin_s,
        "gap_s": series.gap_s,
        "context": config.context,
        "horizon": config.horizon,
        "levels": list(config.levels),
        "prior": prior.tolist(),
        "trace": {
            "fingerprint": data.trace.fingerprint(),
            "sources": list(data.trace.sources),
            "notes": list(data.trace.notes),
            "rows": len(data.trace),
            "steps": len(series),
            "segments": len(np.unique(series.segment)),
            "first_s": float(data.trace.time_s[0]),
            "last_s": float(data.trace.time_s[-1]),
            "clock": data.trace.clock,
        },
        "split": {
            "train": len(data.split.train),
            "validation": len(data.split.validation),
            "test": len(data.split.test),
            "validation_from_s": float(series.time_s[data.split.train_end]),
            "test_from_s": float(series.time_s[data.split.validation_end]) if len(data.split.test) else None,
        },
    }
