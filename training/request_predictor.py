"""`EnhancedRequestPredictor` of the documented Python API: several models side by side on one table of requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.checkpoint import load_checkpoint
from training.device import resolve_device
from training.errors import ConfigError, nearest
from training.model_comparison import checked_prediction, compare
from training.model_config import ModelConfig, ModelDevice, device_name
from training.model_interface import BasePredictor, ModelRegistry
from training.model_results import PredictionResult, TrainingResult
from training.registry import model_class, model_names
from training.request_frame import frame_to_trace, row_count

if TYPE_CHECKING:
    import pandas as pd


MIN_ROWS = 10
"""Fewest rows of history for a prediction."""
DEFAULT_MODELS = ("lstm", "dlinear")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ModelManager:
    """The models of a predictor.

    Attributes:
        active_models: by name, in the order they were added.
    """

    active_models: dict[str, BasePredictor] = field(default_factory=dict)


class EnhancedRequestPredictor:
    """Trains several models on a table of requests and predicts the next ones with each.

    A model that fails does not take the others down: its error is logged and stands in the result. Predicting changes
    nothing, so several threads may share one predictor.

    Args:
        device: None or "auto" (CUDA where it works, otherwise the CPU), "cpu", "cuda", "cuda:N", "mps", or a
            `ModelDevice`.

    Raises:
        ConfigError: no such device name.
        DeviceError: the device is not there.
    """

    def __init__(self, device: str | ModelDevice | None = None) -> None:
        self.device = resolve_device(device_name(device))
        self.model_manager = ModelManager()

    def add_model(self, name: str, config: ModelConfig | None = None) -> bool:
        """Add an untrained model under a name; one that has the name already gives way to it.

        Args:
            name: a name of your own when `config` has a `model_type`, otherwise a registered model.
            config: its settings; the defaults if None. Device `auto` takes that of the predictor.

        Returns:
            True.

        Raises:
            ConfigError: an unknown model or `custom_params` key; the nearest is named.
            DeviceError: the device asked for is not there.
        """
        self.model_manager.active_models[name] = ModelRegistry.create(self._settled(name, config))
        return True

    def add_models(self, names: Sequence[str]) -> dict[str, bool]:
        """Add several models with default settings; those that are active already stay as they are.

        Returns:
            By name: True when it is active now, False when there is no such model (the log says so).
        """
        added = {}
        for name in _names(names):
            try:
                added[name] = name in self.model_manager.active_models or self.add_model(name)
            except ConfigError as error:
                _log.error("%s", error)
                added[name] = False
        return added

    def train_models(self, data: pd.DataFrame, validation_split: float = 0.2) -> dict[str, TrainingResult]:
        """Train every active model.

        Args:
            data: `Timestamp` (seconds), `Request tokens` and `Response tokens`, sorted by time.
            validation_split: share of the requests, the last ones, that choose the best epoch of each model.

        Returns:
            By name. `success` is False, and `metadata["error"]` says why, for a model that failed.

        Raises:
            TraceError: the table is not one of requests.
            ConfigError: there is no model, or the split is no share.
        """
        self._require_models()
        if not isinstance(validation_split, (int, float)) or not 0.0 < validation_split < 1.0:
            raise ConfigError(
                f"validation_split: expected a share between 0 and 1, got {validation_split!r}; correct it"
            )
        frame_to_trace(data)
        return {name: _train(name, model, data, validation_split) for name, model in self._models.items()}

    def predict_next_request(self, historical_data: pd.DataFrame) -> dict[str, Any]:
        """Predict when the next request comes and how big it is, with every active model.

        Args:
            historical_data: as for `train_models`.

        Returns:
            `predictions` by name: `timestamp`, `request_tokens`, `response_tokens`, `confidence` (the model's measured
            skill over repeating the last request, 0 to 1) and `method`; `summary`: `models`, `failed` (name -> why),
            `most_confident`, `avg_confidence`, `last_timestamp`, `historical_data_size`; `model_info` by name. With
            fewer than 10 rows: `error`, `min_required`, `actual`.

        Raises:
            TraceError: the table is not one of requests.
            ConfigError: there is no model.
        """
        short = self._too_short(historical_data)
        if short:
            return short
        found, failed = self._predict(historical_data, steps=1)
        predictions = {
            name: {**_step(result, 0), "method": result.metadata.get("method", f"predict of {name}")}
            for name, result in found.items()
        }
        confidence = {name: row["confidence"] for name, row in predictions.items()}
        return {
            "predictions": predictions,
            "summary": {
                "models": len(predictions),
                "failed": failed,
                "most_confident": max(confidence, key=lambda name: confidence[name]) if confidence else None,
                "avg_confidence": sum(confidence.values()) / len(confidence) if confidence else 0.0,
                "last_timestamp": float(frame_to_trace(historical_data).time_s[-1]),
                "historical_data_size": len(historical_data),
            },
            "model_info": {name: _info(name, self._models[name]) for name in predictions},
        }

    def predict_multiple_requests(self, historical_data: pd.DataFrame, num_requests: int = 5) -> dict[str, Any]:
        """Predict the next requests with every active model.

        Up to the model's `prediction_horizon` they come from one forecast; beyond it the model goes on from its own
        medians.

        Args:
            historical_data: as for `train_models`.
            num_requests: how many.

        Returns:
            `predictions` by name, a list of `timestamp`, `request_tokens`, `response_tokens`, `confidence` and `step`
            (from 1); `failed` (name -> why); `num_requests`; `historical_data_size`. With fewer than 10 rows: `error`,
            `min_required`, `actual`.

        Raises:
            TraceError: the table is not one of requests.
            ConfigError: there is no model, or the number is not positive.
        """
        _check_count("num_requests", num_requests)
        short = self._too_short(historical_data)
        if short:
            return short
        found, failed = self._predict(historical_data, steps=num_requests)
        return {
            "predictions": {
                name: [{**_step(result, i), "step": i + 1} for i in range(num_requests)]
                for name, result in found.items()
            },
            "failed": failed,
            "num_requests": num_requests,
            "historical_data_size": len(historical_data),
        }

    def compare_models(self, historical_data: pd.DataFrame, steps: int = 1) -> dict[str, Any]:
        """Rank the active models by their measured error on a history; see `training.model_comparison`.

        Returns:
            By name the scores, and `performance_summary` with `best_model` (lowest wQL) and `avg_confidence`. With
            fewer than 10 rows before the first forecast: `error`, `min_required`, `actual`.

        Raises:
            TraceError: the table is not one of requests.
            ConfigError: there is no model, or `steps` is not positive.
        """
        _check_count("steps", steps)
        short = self._too_short(historical_data, rows=MIN_ROWS + steps)
        return short or compare(self._models, historical_data, steps=steps, first=MIN_ROWS)

    def save_model(self, name: str, path: str) -> bool:
        """Save a trained model; the folder is made.

        Returns:
            True; False when no such model is active (the log says so), or what a custom `save_model` returns.

        Raises:
            ConfigError: the model is not trained.
        """
        model = self._models.get(name)
        if model is None:
            _log.error("save_model: expected an active model, got '%s'; %s", name, nearest(name, self._models))
            return False
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return bool(model.save_model(path))

    def load_model(self, name: str, path: str, config: ModelConfig | None = None) -> bool:
        """Load a saved model under a name, ready to predict.

        Args:
            name: a registered model, or a name of your own; the type is then that of `config`, or of the file.
            path: file of `save_model`, or a run folder of `fcast-train`.
            config: type, device and name for people; the rest comes from the file.

        Returns:
            True; False when there is nothing at `path` (the log says so), or what a custom `load_model` returns.

        Raises:
            CheckpointError: the file is damaged, altered, of another model, or holds more than tensors and text;
                nothing in it is executed.
            ConfigError: an unknown model.
            DeviceError: the device asked for is not there.
        """
        config = ModelConfig() if config is None else config
        if config.model_type is None and name not in model_names() and Path(path).exists():
            config = replace(config, model_type=load_checkpoint(path).meta["model"]["name"])
        model = ModelRegistry.create(self._settled(name, config))
        if not Path(path).exists():
            beside = [str(found) for found in Path(path).parent.glob("*.pth")]
            remedy = nearest(path, beside) if beside else "save one with save_model first"
            _log.error("load_model: expected a saved model, got nothing at '%s'; %s", path, remedy)
            return False
        loaded = bool(model.load_model(path))
        if loaded:
            self.model_manager.active_models[name] = model
        return loaded

    def get_active_models(self) -> list[str]:
        """Names of the models that were added or loaded."""
        return list(self._models)

    def get_available_models(self) -> list[str]:
        """Names of every registered model."""
        return model_names()

    def switch_device(self, device: str | ModelDevice) -> bool:
        """Move every active model, and those added later, to another device.

        Returns:
            True.

        Raises:
            DeviceError: it is not there; nothing was moved.
        """
        self.device = resolve_device(device_name(device))
        for model in self._models.values():
            model.to(device_name(device))
        return True

    @property
    def _models(self) -> dict[str, BasePredictor]:
        return self.model_manager.active_models

    def _settled(self, name: str, config: ModelConfig | None) -> ModelConfig:
        """The configuration with type, name and device filled in."""
        config = ModelConfig() if config is None else config
        if not isinstance(config, ModelConfig):
            raise ConfigError(f"config: expected a ModelConfig, got {type(config).__name__}; make one")
        if config.model_type is None:
            model_class(name)
        return replace(
            config,
            model_type=name if config.model_type is None else config.model_type,
            model_name=config.model_name or name,
            device=str(self.device) if device_name(config.device) == "auto" else config.device,
        )

    def _require_models(self) -> None:
        if not self._models:
            raise ConfigError("predictor: expected at least one active model, got none; call add_model or load_model")

    def _too_short(self, data: pd.DataFrame, *, rows: int = MIN_ROWS) -> dict[str, Any] | None:
        self._require_models()
        if row_count(data) >= rows:
            return None
        return {
            "error": f"historical_data: expected at least {rows} rows, got {len(data)}; pass a longer history",
            "min_required": rows,
            "actual": len(data),
        }

    def _predict(self, data: pd.DataFrame, *, steps: int) -> tuple[dict[str, PredictionResult], dict[str, str]]:
        frame_to_trace(data)
        found, failed = {}, {}
        for name, model in list(self._models.items()):
            try:
                found[name] = checked_prediction(model, data, steps)
            except Exception as error:  # a user's class may fail in any way; the others predict all the same
                _log.exception("%s: no prediction", name)
                failed[name] = f"{type(error).__name__}: {error}"
        return found, failed


def _names(models: Sequence[str] | str) -> list[str]:
    """Names of models from names or `ModelType`s, or from a single one."""
    listed = [models] if isinstance(models, (str, Enum)) else list(models)
    return [str(name.value) if isinstance(name, Enum) else str(name) for name in listed]


def _info(name: str, model: BasePredictor) -> dict[str, Any]:
    try:
        return model.get_model_info()
    except Exception as error:  # a user's class may fail in any way; its prediction stands
        _log.exception("%s: no model info", name)
        return {"error": f"{type(error).__name__}: {error}"}


def _train(name: str, model: BasePredictor, data: pd.DataFrame, validation_split: float) -> TrainingResult:
    try:
        result = model.train(data.copy(), validation_split)  # a custom model may mend its rows in place
        if not isinstance(result, TrainingResult):
            raise ConfigError(
                f"{type(model).__name__}.train: expected a TrainingResult, got {type(result).__name__}; return one"
            )
    except Exception as error:  # a user's class may fail in any way; the others are trained all the same
        _log.exception("%s: training failed", name)
        return TrainingResult(success=False, metadata={"error": f"{type(error).__name__}: {error}"})
    if result.success and not getattr(model, "training_history", None):
        parts = ("final_loss", "best_loss", "epochs_trained")
        model.training_history = {part: getattr(result, part) for part in parts}
    return result


def _step(result: PredictionResult, step: int) -> dict[str, float]:
    return {
        "timestamp": result.timestamps[step],
        "request_tokens": result.request_tokens[step],
        "response_tokens": result.response_tokens[step],
        "confidence": result.confidence[step],
    }


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: expected a whole number from 1, got {value!r}; correct it")


def create_enhanced_predictor(
    models: Sequence[str] | None = None, device: str | ModelDevice | None = None
) -> EnhancedRequestPredictor:
    """A predictor with some models added, untrained.

    Args:
        models: registered names; lstm and dlinear if None.
        device: see `EnhancedRequestPredictor`.

    Raises:
        ConfigError: an unknown model; the nearest is named.
        DeviceError: the device is not there.
    """
    predictor = EnhancedRequestPredictor(device=device)
    for name in _names(DEFAULT_MODELS if models is None else models):
        predictor.add_model(name)
    return predictor
