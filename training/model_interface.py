"""`BasePredictor` of the documented Python API: one model, trained by the same engine as `fcast-train`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from training.checkpoint import Checkpoint, load_checkpoint
from training.checkpoint_file import save_checkpoint_file, with_facts
from training.device import resolve_device
from training.errors import CheckpointError, ConfigError
from training.forecaster import build_network
from training.model_config import ModelConfig, ModelDevice, ModelType, device_name, saved_config
from training.model_results import PredictionResult, TrainingResult
from training.registry import model_class, model_names, register_model
from training.request_forecast import RequestForecast, forecast_requests
from training.request_frame import frame_to_trace
from training.run import prepare, train_model
from training.trace import Trace
from training.world import this_world

if TYPE_CHECKING:
    import pandas as pd


_log = logging.getLogger(__name__)


class _ScaledValues(nn.Module):
    """A user's architecture, given the scaled values alone: the first C features."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.module = module
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x[..., : self.channels])


class BasePredictor:
    """One model: prepares data, trains, predicts, saves and loads.

    Subclass it and register the subclass for a model of your own. Overriding `build_model` alone is enough: all the
    rest is inherited, `fcast-train`, `fcast-export` and the runtime included. Whatever else a subclass overrides is
    used by the Python API in its place.
    """

    default_params: ClassVar[dict[str, Any]] = {}
    """Keys that `fcast-train --set` may give to this class, with their defaults; they arrive in `custom_params`."""

    def __init__(self, config: ModelConfig) -> None:
        """Make an untrained model.

        Raises:
            ConfigError: the configuration names no known model.
            DeviceError: its device is not there.
        """
        self.config = config
        self.device = resolve_device(device_name(config.device))
        self.model: nn.Module | None = None
        self.training_history: dict[str, Any] = {}
        """Once trained: `final_loss`, `best_loss`, `epochs_trained`, and `epochs`, one dict per epoch."""
        self._checkpoint: Checkpoint | None = None

    @property
    def model_name(self) -> str:
        """The name for people."""
        return self.config.model_name or self.config.type_name

    def prepare_data(self, data: pd.DataFrame) -> Trace:
        """Check a table of requests and read it; override to filter or mend rows first.

        Raises:
            TraceError: a column is missing or a value breaks a rule.
        """
        return frame_to_trace(data)

    def build_model(self) -> nn.Module:
        """The architecture, with random weights; override for your own.

        An override gives a module from (B, L, 3), the scaled inter-arrival times, request tokens and response tokens,
        to features (B, D), or (B, L, D), of which the last step is used. A head for the quantiles is added behind it.

        Raises:
            ConfigError: a registered subclass does not override it.
        """
        if not issubclass(model_class(self.config.type_name), nn.Module):
            raise ConfigError(
                f"{type(self).__name__}.build_model: expected it to be overridden, got none; return an nn.Module"
            )
        run = self.config.run_config()
        return build_network(
            run.model.model,
            run.model.params,
            channels=6,
            context=run.data.context,
            horizon=run.data.horizon,
            values=3,
        )

    @classmethod
    def network(cls, name: str, params: dict[str, Any], *, channels: int, context: int, horizon: int) -> nn.Module:
        """What the engine trains and exports: the module of `build_model`, given the first `channels` features.

        Raises:
            ConfigError: `build_model` gives no module.
        """
        config = ModelConfig(
            model_type=name,
            model_name=name,
            device="cpu",
            sequence_length=context,
            prediction_horizon=horizon,
            custom_params=params,
        )
        module = cls(config).build_model()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"{cls.__name__}.build_model: expected an nn.Module, got {module!r}; return the network")
        return _ScaledValues(module.to("cpu"), channels)

    def train(self, data: pd.DataFrame, validation_split: float = 0.2) -> TrainingResult:
        """Train on a table of requests.

        Args:
            data: see `training.request_frame`.
            validation_split: share of the requests, the last ones, that choose the best epoch.

        Raises:
            TraceError: the table is not one of requests, or too short.
            ConfigError: the configuration does not fit.
            TrainingError: the loss is no longer finite.
        """
        started = time.perf_counter()
        this_world().require_one("train")
        run = self.config.run_config(validation_split=validation_split)
        prepared = prepare(self._trace(data), run.data)
        epochs: list[dict[str, float]] = []

        def on_epoch(line: dict[str, float]) -> None:
            epochs.append(line)
            _log.info(
                "%s: epoch %d/%d, training loss %.4f, validation wQL %.4f",
                self.model_name,
                line["epoch"],
                run.fit.epochs,
                line["train_loss"],
                line["validation_wql"],
            )

        with tempfile.TemporaryDirectory(prefix="fcast-") as folder:
            fit = replace(run, fit=replace(run.fit, device=str(self.device)))
            checkpoint = train_model(prepared, fit, Path(folder), on_epoch=on_epoch)
        self._use(with_facts(checkpoint, model_config=self.config.to_dict(), epochs=epochs))
        facts = checkpoint.meta["training"]
        return TrainingResult(
            success=True,
            training_time=time.perf_counter() - started,
            final_loss=self.training_history["final_loss"],
            best_loss=self.training_history["best_loss"],
            epochs_trained=facts["epochs_trained"],
            early_stopped=facts["early_stopped"],
            metadata={
                "device": facts["device"],
                "best_epoch": facts["best_epoch"],
                "split": checkpoint.meta["split"],
                "skill": checkpoint.meta["skill"],
                "scores": checkpoint.meta["scores"]["validation"],
            },
        )

    def predict(self, data: pd.DataFrame, steps: int | None = None) -> PredictionResult:
        """Predict the requests after the last one of a table; may be called from several threads.

        Beyond `prediction_horizon` it goes on from its own medians. A history shorter than `sequence_length` gets the
        quantiles of its own requests, or of the training part when it is shorter than 8; `metadata["method"]` says so
        and the confidence is 0.

        Args:
            data: see `training.request_frame`.
            steps: requests to predict; `prediction_horizon` if None.

        Raises:
            ConfigError: the model is not trained, or `steps` is not positive.
            TraceError: the table is not one of requests.
        """
        started = time.perf_counter()
        checkpoint = self._trained()
        steps = checkpoint.meta["horizon"] if steps is None else steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ConfigError(f"steps: expected a whole number from 1, got {steps!r}; correct it")
        last_s = float(frame_to_trace(data).time_s[-1])
        trace = self._trace(data)
        forecast = forecast_requests(checkpoint.model, checkpoint.meta, trace, steps=steps, device=self.device)
        # A `prepare_data` may drop or shift rows; the answer counts from the caller's last one.
        times = forecast.time_s if trace.time_s[-1] == last_s else forecast.time_s - trace.time_s[-1] + last_s
        tokens = forecast.median.astype(float)
        return PredictionResult(
            timestamps=times.tolist(),
            request_tokens=tokens[:, 1].tolist(),
            response_tokens=tokens[:, 2].tolist(),
            confidence=_confidence(checkpoint.meta, forecast),
            model_name=self.model_name,
            prediction_time=time.perf_counter() - started,
            metadata={
                "method": self._method(forecast),
                "source": forecast.source,
                "levels": list(checkpoint.meta["levels"]),
                "channels": list(checkpoint.meta["channels"]),
                "quantiles": forecast.quantiles.tolist(),
            },
        )

    def save_model(self, path: str) -> bool:
        """Save weights, scaling and configuration as one file that `load_model` and `fcast-export` take.

        Raises:
            ConfigError: the model is not trained.
            OSError: the file can't be written.
        """
        save_checkpoint_file(Path(path), self._trained())
        return True

    def load_model(self, path: str) -> bool:
        """Load what `save_model` or `fcast-train` saved; sizes and hyper-parameters come from the file.

        Raises:
            CheckpointError: the file is missing, damaged, altered, of another kind of model, or holds anything but
                tensors and text; nothing in it is executed.
        """
        checkpoint = load_checkpoint(path)
        found, kind = checkpoint.meta["model"]["name"], checkpoint.meta["kind"]
        if found != self.config.type_name:
            raise CheckpointError(
                f"{path}: expected a model of type '{self.config.type_name}', got '{found}'; correct model_type"
            )
        if kind != "requests":
            raise CheckpointError(
                f"{path}: expected a model of single requests, got one of a '{kind}' series; serve it with runtime"
            )
        self.config = saved_config(checkpoint.meta, self.config)
        self._use(checkpoint)
        return True

    def to(self, device: str | ModelDevice) -> None:
        """Move the model to another device.

        Raises:
            DeviceError: it is not there.
        """
        self.device = resolve_device(device_name(device))
        self.config = replace(self.config, device=device_name(device))
        for module in (self.model, self._checkpoint and self._checkpoint.model):
            if isinstance(module, nn.Module):
                module.to(self.device)

    def get_model_info(self) -> dict[str, Any]:
        """What this model is: names, device, sizes, whether it is trained, and how well."""
        info: dict[str, Any] = {
            "model_name": self.model_name,
            "model_type": self.config.type_name,
            "class": type(self).__name__,
            "device": str(self.device),
            "sequence_length": self.config.sequence_length,
            "prediction_horizon": self.config.prediction_horizon,
            "custom_params": dict(self.config.custom_params),
            "is_trained": self._checkpoint is not None or bool(self.training_history),
            "parameters": sum(p.numel() for p in self.model.parameters())
            if isinstance(self.model, nn.Module)
            else None,
        }
        if self._checkpoint is not None:
            info |= {"training": self._checkpoint.meta["training"], "skill": self._checkpoint.meta.get("skill")}
        return info

    def _trace(self, data: pd.DataFrame) -> Trace:
        trace = self.prepare_data(data)
        if not isinstance(trace, Trace):
            raise ConfigError(
                f"{type(self).__name__}.prepare_data: expected a Trace, got {type(trace).__name__}; "
                "end it with return super().prepare_data(data)"
            )
        return trace

    def _trained(self) -> Checkpoint:
        if self._checkpoint is None:
            raise ConfigError(
                f"{self.model_name}: expected a trained model, got an untrained one; train or load it first"
            )
        return self._checkpoint

    def _use(self, checkpoint: Checkpoint) -> None:
        facts, epochs = checkpoint.meta["training"], checkpoint.meta.get("epochs") or []
        checkpoint.model.to(self.device)
        self.training_history = {
            "final_loss": epochs[-1]["validation_wql"] if epochs else facts["best_validation_wql"],
            "best_loss": facts["best_validation_wql"],
            "epochs_trained": facts["epochs_trained"],
            "epochs": epochs,
        }
        self.model, self._checkpoint = checkpoint.model, checkpoint

    def _method(self, forecast: RequestForecast) -> str:
        name, rows = self.config.type_name, self.config.sequence_length + 1
        if forecast.source == "model":
            return f"quantile median of {name}"
        what = "the training part" if forecast.source == "fallback:prior" else f"the last {forecast.seen} requests"
        return f"median of {what}, as {name} needs {rows} requests without a gap"


def _confidence(meta: dict[str, Any], forecast: RequestForecast) -> list[float]:
    """Per step; beyond the horizon that of the last step, 0 where the model was not asked or never measured."""
    steps = len(forecast.time_s)
    measured: list[float] = meta["skill"]["confidence"] if "skill" in meta and forecast.source == "model" else [0.0]
    return [measured[min(step, len(measured) - 1)] for step in range(steps)]


class ModelRegistry:
    """The registry of models, as one class; the same registry as `training.registry`."""

    @staticmethod
    def register(name: str | ModelType, cls: type | None = None) -> Callable[[type], type] | type:
        """Register a class under a name, or decorate it when `cls` is left out; see `register_model`."""
        return register_model(name) if cls is None else register_model(name)(cls)

    @staticmethod
    def get(name: str | ModelType) -> type[Any]:
        """The class registered under a name: an `nn.Module` architecture or a `BasePredictor`.

        Raises:
            ConfigError: no such model; the nearest is named.
        """
        return model_class(str(name.value if isinstance(name, ModelType) else name))

    @staticmethod
    def create(config: ModelConfig) -> BasePredictor:
        """Make the untrained model that a configuration describes.

        Raises:
            ConfigError: an unknown model or `custom_params` key.
            DeviceError: the device is not there.
        """
        if config.model_type is None:
            raise ConfigError("model_type: expected a ModelType or a registered name, got None; give one")
        cls = model_class(config.type_name)
        if issubclass(cls, BasePredictor):
            return cls(config)
        config.run_config()
        return BasePredictor(config)

    @staticmethod
    def available() -> list[str]:
        """Names of every model: the built-in ones, then those of installed packages and of the caller."""
        return model_names()
