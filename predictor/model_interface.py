"""One model, its settings and the registry; see `training.model_interface`."""

from training.model_config import ModelConfig, ModelDevice, ModelType
from training.model_interface import BasePredictor, ModelRegistry
from training.model_results import PredictionResult, TrainingResult
from training.registry import register_model

__all__ = [
    "BasePredictor",
    "ModelConfig",
    "ModelDevice",
    "ModelRegistry",
    "ModelType",
    "PredictionResult",
    "TrainingResult",
    "register_model",
]
