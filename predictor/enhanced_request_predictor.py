"""Several models side by side on one table of requests; see `training.request_predictor`."""

from training.model_config import ModelConfig, ModelDevice, ModelType
from training.model_results import PredictionResult, TrainingResult
from training.monitor import monitor_gpu_performance, monitor_training_progress
from training.request_predictor import EnhancedRequestPredictor, ModelManager, create_enhanced_predictor

__all__ = [
    "EnhancedRequestPredictor",
    "ModelConfig",
    "ModelDevice",
    "ModelManager",
    "ModelType",
    "PredictionResult",
    "TrainingResult",
    "create_enhanced_predictor",
    "monitor_gpu_performance",
    "monitor_training_progress",
]
