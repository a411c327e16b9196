"""What `fcast-train --tune` tries: a small space around the defaults of any registered model.

    a whole number    half of the default, the default, twice the default; 0 and less stay
    a positive float  an eighth to eight times the default, on a log scale
    a dropout         0 to 0.5
    true or false     both
    anything else     stays as it is

This holds for the model's hyper-parameters, `learning_rate`, `weight_decay` and `batch_size`; the context may be half,
the same, twice or four times as long, where the trace is long enough. What the user gave is not searched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.config import DataConfig, RunConfig
from training.errors import ConfigError, TraceError
from training.registry import model_params
from training.run import Data, prepare
from training.trace import Trace

_FIT = ("learning_rate", "weight_decay", "batch_size")
_CONTEXTS = (0.5, 2, 4)
_WINDOWS_LEFT = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """What one setting may be.

    Attributes:
        default: its value in the first trial.
        values: the choices; empty for a range.
        low, high: the range.
        log: whether the range is searched on a log scale.
    """

    default: Any
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False


def search_space(run: RunConfig, *, given: Collection[str], contexts: Sequence[int]) -> dict[str, Dimension]:
    """The settings to search for a model.

    Args:
        run: of the model, as the user gave it.
        given: keys that the user set.
        contexts: contexts that the trace allows.

    Raises:
        ConfigError: everything is given.
    """
    defaults = {key: getattr(run.fit, key) for key in _FIT} | model_params(run.model.model)
    space = {key: _around(key, value) for key, value in defaults.items() if key not in given}
    found = {key: dimension for key, dimension in space.items() if dimension is not None}
    if len(contexts) > 1 and "context" not in given:
        found["context"] = Dimension(default=run.data.context, values=tuple(sorted(contexts)))
    if not found:
        raise ConfigError(
            f"--tune: expected a setting of {run.model.model} to search, got all of them given; leave one out"
        )
    return found


def _around(key: str, default: Any) -> Dimension | None:
    if isinstance(default, bool):
        return Dimension(default=default, values=(False, True))
    if isinstance(default, int) and default > 0:
        return Dimension(default=default, values=tuple(sorted({max(1, default // 2), default, 2 * default})))
    if isinstance(default, float) and "dropout" in key and 0 <= default <= 0.5:
        return Dimension(default=default, high=0.5)
    if isinstance(default, float) and default > 0:
        return Dimension(default=default, low=default / 8, high=default * 8, log=True)
    return None


def settings_of(params: dict[str, Any]) -> dict[str, Any]:
    """A point of the space as settings: floats with three digits, so that what is printed is what is trained."""
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in params.items()}


def searched_contexts(trace: Trace, config: DataConfig, *, vary: bool) -> dict[int, Data]:
    """The data of every context to try, the longest one's windows in all of them, so that scores compare.

    Args:
        trace: the trace.
        config: with the context around which to search.
        vary: whether to search at all.

    Raises:
        TraceError: the trace is too short for the context as given.
    """
    found = {config.context: prepare(trace, config)}
    enough = _WINDOWS_LEFT * len(found[config.context].split.train)
    for factor in _CONTEXTS if vary else ():
        context = int(config.context * factor)
        try:
            data = prepare(trace, replace(config, context=context))
        except (TraceError, ConfigError):  # too long for the trace, or no whole number of forecast steps
            continue
        if len(data.split.train) >= enough:
            found[context] = data
    longest = found[max(found)]
    return {context: replace(longest, config=data.config) for context, data in found.items()}
