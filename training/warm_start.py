"""Training that starts from the weights of an earlier run: `fcast-train --from`.

A network sees windows centred on their own level and divided by a spread, so weights found on one service mean the same
on another. The statistics of that front end are the source's or the new trace's: whichever forecasts validation better
before any training. The source's win on newer data of the same service, where the level itself tells the hour; the new
trace's win on a service of another size, where the source's level feature would be far outside of what it has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from training.backtest import rolling_forecasts, thin
from training.baseline_model import BaselineModel
from training.checkpoint import Checkpoint, set_weights
from training.config import RunConfig, build_runs
from training.errors import ConfigError
from training.forecaster import Forecaster
from training.metrics import wql
from training.registry import model_params
from training.series import Series
from training.windows import Split, WindowSource

_RUNNING = ("means.decay", "means.prior", "means.worth", "above", "wide")  # of a stateful model
_MOVED = ("scaling.unit", "scaling.alpha", "scaling.least", "scaling.spread", "scaling.level_mean", *_RUNNING)
_REFITTED = {"kept": (), "moved": _MOVED, "new": (*_MOVED, "scaling.level_spread")}
"""Buffers that are the new trace's, by choice of the statistics; a model need not have all of them."""
_MOST_WINDOWS = 2_000
LEARNING_RATE = 0.001
"""Peak of the learning rate unless another is given: half the usual one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How a warm start begins.

    Attributes:
        statistics: whose they are: "kept" for the checkpoint's, "new" for those of the new trace, "moved" for the
            latter but with the checkpoint's spread of levels, which a short trace knows badly.
        wql: on validation, before training.
        random_wql: the same for random weights.
    """

    statistics: str
    wql: float
    random_wql: float

    def warn(self) -> None:
        """Say so where the weights are no help."""
        if self.wql >= self.random_wql:
            _log.warning(
                "--from: expected weights that are ahead of random ones on validation, got wQL %.4f against %.4f "
                "before training; compare with a run without --from",
                self.wql,
                self.random_wql,
            )


def warm_run(start: Checkpoint, models: Sequence[str], given: Mapping[str, Any]) -> RunConfig:
    """The run that begins with a checkpoint's weights: its architecture, shapes and scaling, and what is given.

    Args:
        start: the checkpoint.
        models: names asked for; none for the checkpoint's.
        given: flat settings; those that must be the same are checked by `check_fits`.

    Raises:
        ConfigError: the checkpoint is an ensemble or a simple baseline, or other models are asked for.
    """
    model, data = start.meta["model"], start.meta["config"]["data"]
    if isinstance(start.model, BaselineModel):
        raise ConfigError(
            f"--from: expected a trained model, got the baseline {model['name']}; tune it anew, without --from"
        )
    if "members" in model:
        members = ", ".join(member["name"] for member in model["members"])
        raise ConfigError(f"--from: expected one architecture, got an ensemble of {members}; give the run of a member")
    if models and list(models) != [model["name"]]:
        raise ConfigError(f"--from: expected --model {model['name']} as in that checkpoint, got {', '.join(models)}")
    settings = {key: data[key] for key in ("series", "bin_s", "step_s", "gap_s", "context", "horizon", "levels")}
    settings |= {"log": model["log"], "center": model["center"], "calendar": "+".join(model["calendar"]) or "none"}
    settings |= {"anchor": start.meta["config"]["model"]["anchor"], "recent": model["recent"]}
    settings |= {"stateful": model.get("stateful", False)}
    settings |= {"learning_rate": LEARNING_RATE, **model["params"]}
    known = {key: value for key, value in settings.items() if value is not None}
    (run,) = build_runs([model["name"]], {**known, **given})
    return replace(run, fit=replace(run.fit, start=start.sha256))


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


def start_from(model: Forecaster, start: Checkpoint, source: WindowSource, split: Split) -> Begun:
    """Give a forecaster, its scaling fitted to the new trace, the weights of another that `check_fits` let through.

    Args:
        model: with random weights; set to the checkpoint's, uncalibrated, with the statistics that suit them.
        start: the checkpoint.
        source: windows of the new series.
        split: its origins; only validation is read.

    Raises:
        CheckpointError: the weights do not fit.
    """
    own, theirs = ({name: t.clone() for name, t in m.state_dict().items()} for m in (model, start.model))
    theirs["offset"] = own["offset"]  # zeros: calibration is the last step of a run
    origins = thin(split.validation, _MOST_WINDOWS)

    def score() -> float:
        return float(wql(*rolling_forecasts(model, source, origins), model.levels).mean())

    random_wql = score()
    found: dict[str, float] = {}
    for kind, names in _REFITTED.items():
        set_weights(model, theirs | {name: own[name] for name in names if name in own}, where="--from")
        found[kind] = score()
    best = min(found, key=lambda kind: found[kind])
    set_weights(model, theirs | {name: own[name] for name in _REFITTED[best] if name in own}, where="--from")
    return Begun(statistics=best, wql=found[best], random_wql=random_wql)


def has_seen(meta: Mapping[str, Any], series: Series, test: np.ndarray) -> bool:
    """Whether weights were trained on days of a test part; times without a date can't tell.

    Args:
        meta: of their checkpoint.
        series: with the test part.
        test: (n,) its origins.
    """
    seen_to_s = meta["split"]["test_from_s"] or meta["trace"]["last_s"]
    if not len(test) or not series.clock == meta["trace"]["clock"] == "epoch":
        return False
    from_s, to_s = (float(series.time_s[test[place]]) for place in (0, -1))
    return from_s < float(seen_to_s) and to_s > float(meta["trace"]["first_s"])


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
        "anchor": model["anchored"],
        "recent": model["recent"],
        "stateful": model.get("stateful", False),
    }
