"""The registry of architectures, the one extension point of the training side.

An architecture is an `nn.Module` class whose constructor takes `(channels, context, horizon, *, ...)` and whose
forward maps scaled values (B, L, F) to features (B, D) or (B, L, D), of which the last step is used. Its
keyword-only arguments are its hyper-parameters; each needs a default. Scaling, head, loss, training, export and
streaming come for free.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from training.errors import ConfigError, nearest

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])

_BUILT_IN = ("lstm", "gru", "dlinear", "transformer")
_models: dict[str, type[nn.Module]] = {}


def register_model(name: str) -> Callable[[ModuleClass], ModuleClass]:
    """Register an architecture under a name: one line above its class.

    Args:
        name: the name used in `fcast-train --model`.

    Raises:
        ConfigError: the name is taken by another class.
    """

    def register(cls: ModuleClass) -> ModuleClass:
        taken = _models.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise ConfigError(f"register_model: expected a new name, got '{name}' of {taken.__name__}; choose another")
        _models[name] = cls
        return cls

    return register


def model_names() -> list[str]:
    """Names of every architecture: the built-in ones, then those of installed packages and of the caller."""
    return [*_BUILT_IN, *sorted((set(_models) | {e.name for e in _plugins()}) - set(_BUILT_IN))]


def model_class(name: str) -> type[nn.Module]:
    """The class registered under a name; built-in and plug-in modules are imported on first use.

    Raises:
        ConfigError: no such model; the message names the nearest.
    """
    if name not in _models:
        if name in _BUILT_IN:
            importlib.import_module(f"training.models.{name}")
        for plugin in _plugins():
            if plugin.name == name:
                try:
                    register_model(name)(plugin.load())
                except (ImportError, AttributeError) as error:
                    raise ConfigError(
                        f"--model {name}: expected to import {plugin.value}, got {error}; repair that package"
                    ) from error
    if name not in _models:
        raise ConfigError(f"--model: expected a known model, got '{name}'; {nearest(name, model_names())}")
    return _models[name]


def model_params(name: str) -> dict[str, Any]:
    """Hyper-parameters of an architecture with their defaults."""
    signature = inspect.signature(model_class(name).__init__)
    return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def _plugins() -> list[Any]:
    return list(entry_points(group="fcast.models"))
