"""The registry of models, the one extension point of the training side.

An entry is an architecture, or a `BasePredictor` of the documented Python API (training/model_interface.py), whose
`build_model` gives one. An architecture is an `nn.Module` class whose constructor takes `(channels, context, horizon,
*, ...)` and whose forward maps scaled values (B, L, F) to features (B, D) or (B, L, D), of which the last step is used.
Its keyword-only arguments are its hyper-parameters; each needs a default. Scaling, head, loss, training, export and
streaming come for free.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from enum import Enum
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from training.baselines import NAMES as BASELINES
from training.errors import ConfigError, nearest

ModelClass = TypeVar("ModelClass", bound=type)

_BUILT_IN = ("lstm", "gru", "dlinear", "transformer", "multiscale")
_SLOT = "custom"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_models: dict[str, type] = {}


def register_model(name: str | Enum) -> Callable[[ModelClass], ModelClass]:
    """Register an architecture or a `BasePredictor` under a name: one line above its class.

    Args:
        name: the name used in `fcast-train --model`, or a `ModelType`. `custom` is a slot for the user's own class: a
            second one replaces the first.

    Raises:
        ConfigError: the name is taken by another class, or the class is neither of the two.
    """
    key = name.value if isinstance(name, Enum) else name
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise ConfigError(
            f"register_model: expected a name of letters, digits, '_', '.' and '-', got {name!r}; "
            'write @register_model("my_model")'
        )

    if key in BASELINES:
        raise ConfigError(f"register_model: expected a new name, got '{key}' of a simple baseline; choose another")

    def register(cls: ModelClass) -> ModelClass:
        if not (isinstance(cls, type) and (issubclass(cls, nn.Module) or hasattr(cls, "build_model"))):
            raise ConfigError(
                f"register_model: expected a class of nn.Module or BasePredictor for '{key}', got {cls!r}; "
                "inherit from one of them"
            )
        taken = _models.get(key)
        if taken is None and key in _BUILT_IN and cls.__module__ != f"training.models.{key}":
            taken = model_class(key)
        if taken is not None and taken.__qualname__ != cls.__qualname__ and key != _SLOT:
            raise ConfigError(f"register_model: expected a new name, got '{key}' of {taken.__name__}; choose another")
        _models[key] = cls
        return cls

    return register


def model_names() -> list[str]:
    """Names of every architecture: the built-in ones, then those of installed packages and of the caller."""
    return [*_BUILT_IN, *sorted((set(_models) | {e.name for e in _plugins()}) - set(_BUILT_IN))]


def model_class(name: str) -> type[Any]:
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
    if name in BASELINES:
        raise ConfigError(
            f"{name}: expected an architecture, got a simple baseline; tune it with fcast-train --model {name}, "
            "and serve what fcast-export makes of it"
        )
    if name not in _models:
        known = [*model_names(), *BASELINES]
        raise ConfigError(f"--model: expected a known model, got '{name}'; {nearest(name, known)}")
    return _models[name]


def model_params(name: str) -> dict[str, Any]:
    """Hyper-parameters of a model with their defaults; a `BasePredictor` lists its own in `default_params`."""
    cls = model_class(name)
    if not issubclass(cls, nn.Module):
        return dict(cls.default_params)
    signature = inspect.signature(cls.__init__)
    return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def _plugins() -> list[Any]:
    return list(entry_points(group="fcast.models"))
