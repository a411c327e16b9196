"""Training that starts from the weights of an earlier run: `fcast-train --from`.

What a network sees is centred per window and divided by the spread of the series (training/scaling.py), so weights that
were found on one service mean the same on another, once the statistics are those of the new trace.
"""

from __future__ import annotations

from typing import Any

from training.checkpoint import Checkpoint, set_weights
from training.errors import ConfigError
from training.forecaster import Forecaster
from training.registry import model_params

REFITTED = ("scaling.unit", "scaling.spread", "scaling.level_mean", "scaling.level_spread", "offset")
"""Buffers that are not taken over: the new trace's own statistics, and a calibration that starts at zero."""
LEARNING_RATE = 0.0005
"""Peak of the learning rate unless another is given: a quarter of the usual one."""


def inherited_settings(start: Checkpoint) -> dict[str, Any]:
    """Flat settings that a run must share with the one it starts from, and its learning rate.

    Raises:
        ConfigError: the checkpoint is an ensemble.
    """
    model, data = start.meta["model"], start.meta["config"]["data"]
    if "members" in model:
        members = ", ".join(member["name"] for member in model["members"])
        raise ConfigError(f"--from: expected one architecture, got an ensemble of {members}; give the run of a member")
    settings = {key: data[key] for key in ("series", "bin_s", "step_s", "gap_s", "context", "horizon", "levels")}
    settings |= {"log": model["log"], "center": model["center"], "calendar": "+".join(model["calendar"]) or "none"}
    settings |= {"learning_rate": LEARNING_RATE, **model["params"]}
    return {key: value for key, value in settings.items() if value is not None}


def check_fits(start: Checkpoint, facts: dict[str, Any]) -> None:
    """Check that weights mean the same in the run to train.

    The width of a bin may differ: nothing in the weights depends on it.

    Args:
        start: the checkpoint to start from.
        facts: of the run to train, as in `checkpoint.json`.

    Raises:
        ConfigError: naming the first difference of architecture, shapes or scaling.
    """
    ours = _shape(facts)
    for key, value in _shape(start.meta).items():
        if ours.get(key) != value:
            raise ConfigError(
                f"--from: expected {key} = {value} as in that checkpoint, got {ours.get(key)}; "
                "leave the setting out to take the checkpoint's, or train without --from"
            )


def start_from(model: Forecaster, start: Checkpoint) -> None:
    """Give a forecaster, its scaling fitted to the new trace, the weights of another that `check_fits` let through.

    Raises:
        CheckpointError: they do not fit.
    """
    own = model.state_dict()
    tensors = {name: own[name] if name in REFITTED else tensor for name, tensor in start.model.state_dict().items()}
    set_weights(model, tensors, where="--from")


def _shape(facts: dict[str, Any]) -> dict[str, Any]:
    model = facts["model"]
    return {
        "model": model["name"],
        **model_params(model["name"]),
        **model["params"],
        "series": facts["kind"],
        "channels": list(facts["channels"]),
        "context": facts["context"],
        "horizon": facts["horizon"],
        "levels": list(facts["levels"]),
        "bins per forecast step": 1 if facts["bin_s"] is None else round(facts["step_s"] / facts["bin_s"]),
        "log": model["log"],
        "center": model["center"],
        "calendar": "+".join(model["calendar"]) or "none",
    }
