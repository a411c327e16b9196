"""`ModelConfig` of the documented Python API, and how it becomes the `RunConfig` that training runs on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from torch import nn

from training.config import DataConfig, FitConfig, ForecasterConfig, RunConfig
from training.errors import ConfigError, nearest
from training.forecaster import check_params
from training.registry import model_class, model_params

_FIT, _DATA = FitConfig(), DataConfig()
_AMP = ("amp", "mixed_precision")
_ENGINE = {"gradient_checkpointing": "fit", "seed": "fit", "weight_decay": "fit", "clip_norm": "fit"} | {
    "stride": "data",
    "gap_s": "data",
    "log": "model",
    "center": "model",
}


class ModelType(str, Enum):
    """The models that the guide names; `CUSTOM` is the slot for the user's own class."""

    LSTM = "lstm"
    DLINEAR = "dlinear"
    TRANSFORMER = "transformer"
    GRU = "gru"
    CUSTOM = "custom"


class ModelDevice(str, Enum):
    """Where a model runs: AUTO takes CUDA where it works, otherwise the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def device_name(device: str | ModelDevice | None) -> str:
    """The name that `training.device.resolve_device` takes; None is `auto`."""
    return "auto" if device is None else str(device.value if isinstance(device, ModelDevice) else device)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of one model; every default is valid.

    Raises:
        ConfigError: a value does not fit, or `custom_params` has a key that a built-in model does not know.
    """

    model_type: ModelType | str | None = None
    """A `ModelType` or any registered name; None takes the name given to `add_model`."""
    model_name: str = ""
    """A name for people; empty takes the name given to `add_model`."""
    device: ModelDevice | str = ModelDevice.AUTO
    """auto, cpu, cuda, cuda:N or mps; auto takes the device of the predictor. Checked when a model is made."""
    sequence_length: int = _DATA.context
    """Requests seen."""
    prediction_horizon: int = _DATA.horizon
    """Requests forecast at once."""
    epochs: int = _FIT.epochs
    """Most passes over the training windows."""
    batch_size: int = _FIT.batch_size
    """Windows per step."""
    learning_rate: float = _FIT.learning_rate
    """Peak of the learning rate."""
    early_stopping: bool = True
    """Stop when the validation score no longer gets better."""
    patience: int = _FIT.patience
    """Epochs without a better validation score before stopping early."""
    custom_params: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the architecture (`d_model`, `nhead`, `num_layers`, `dropout`, `hidden_size`,
    `kernel_size`), and of training: `amp` or `mixed_precision`, `gradient_checkpointing`, `seed`, `weight_decay`,
    `clip_norm`, `stride`, `gap_s`, `log`, `center`. A custom model may have any other key."""

    def __post_init__(self) -> None:
        kind = self.model_type
        if isinstance(kind, str) and not isinstance(kind, ModelType) and kind in {known.value for known in ModelType}:
            object.__setattr__(self, "model_type", ModelType(kind))
        if not isinstance(self.custom_params, Mapping):
            raise ConfigError(f"custom_params: expected a dict, got {self.custom_params!r}; correct it")
        object.__setattr__(self, "custom_params", dict(self.custom_params))
        for name in ("sequence_length", "prediction_horizon", "epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name}: expected a whole number, got {value!r}; correct it")
        for name, low, high in (("sequence_length", 2, 10_000), ("prediction_horizon", 1, 1_000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, got {getattr(self, name)}; correct it")
        self._fit_config()
        if isinstance(self.model_type, ModelType) and self.model_type is not ModelType.CUSTOM:
            self.run_config()

    @property
    def type_name(self) -> str:
        """Registered name of the model; empty when none was given."""
        kind = self.model_type
        return "" if kind is None else str(kind.value if isinstance(kind, ModelType) else kind)

    def run_config(self, *, validation_split: float = 0.2) -> RunConfig:
        """The same settings as `fcast-train` would have them: a `requests` series, split by time, no test part.

        Args:
            validation_split: share of the steps, the last ones, that choose the best epoch.

        Raises:
            ConfigError: an unknown model or `custom_params` key, or a value that does not fit.
        """
        if not 0.0 < validation_split < 1.0:
            raise ConfigError(f"validation_split: expected a share between 0 and 1, got {validation_split}; correct it")
        parts: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "fit": {}}
        for key, value in self.custom_params.items():
            if key in _ENGINE:
                parts[_ENGINE[key]][key] = value
        params = self._architecture_params()
        try:
            json.dumps(params)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"custom_params: expected values that JSON can hold, got {error}; store names") from error
        return RunConfig(
            data=DataConfig(
                series="requests",
                context=self.sequence_length,
                horizon=self.prediction_horizon,
                split=(1.0 - validation_split, validation_split, 0.0),
                **parts["data"],
            ),
            model=ForecasterConfig(model=self.type_name, params=params, calendar="none", **parts["model"]),
            fit=self._fit_config(),
        )

    def _fit_config(self) -> FitConfig:
        for key in (*_AMP, "gradient_checkpointing", "log", "center"):
            if not isinstance(self.custom_params.get(key, False), bool):
                raise ConfigError(f"{key}: expected True or False, got {self.custom_params[key]!r}; correct it")
        return FitConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience if self.early_stopping else max(self.epochs, 1),
            device=device_name(self.device),
            precision="amp" if any(self.custom_params.get(key) for key in _AMP) else "fp32",
            **{
                key: self.custom_params[key]
                for key, part in _ENGINE.items()
                if part == "fit" and key in self.custom_params
            },
        )

    def _architecture_params(self) -> dict[str, Any]:
        """`custom_params` without those of training, checked against what the architecture takes."""
        params = {key: value for key, value in self.custom_params.items() if key not in (*_ENGINE, *_AMP)}
        if issubclass(model_class(self.type_name), nn.Module):
            known = [*model_params(self.type_name), *_ENGINE, *_AMP]
            for key in params:
                if key not in known:
                    raise ConfigError(
                        f"custom_params of {self.type_name}: expected a known key, got '{key}'; {nearest(key, known)}"
                    )
            check_params(self.type_name, params)
        return params

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"model_type": self.type_name or None, "device": device_name(self.device)}


def saved_config(meta: dict[str, Any], asked: ModelConfig) -> ModelConfig:
    """The configuration in a checkpoint, on the device and under the name asked for."""
    saved = meta.get("model_config")
    if saved is None:  # from fcast-train
        run = meta["config"]
        saved = {
            "model_type": meta["model"]["name"],
            "sequence_length": run["data"]["context"],
            "prediction_horizon": run["data"]["horizon"],
            "epochs": run["fit"]["epochs"],
            "batch_size": run["fit"]["batch_size"],
            "learning_rate": run["fit"]["learning_rate"],
            "patience": run["fit"]["patience"],
            "custom_params": run["model"]["params"],
        }
    return replace(
        ModelConfig(**saved), device=asked.device, model_name=asked.model_name or str(saved.get("model_name", ""))
    )
