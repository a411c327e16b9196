"""What training and prediction return in the documented Python API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class TrainingResult:
    """What training came to. A loss is the wQL of the forecasts on the validation part, lower is better."""

    success: bool
    training_time: float = 0.0
    """Seconds."""
    final_loss: float | None = None
    """After the last epoch; None when training failed."""
    best_loss: float | None = None
    """Of the epoch that was kept."""
    epochs_trained: int = 0
    early_stopped: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    """`error` says why when `success` is False; otherwise device, scores and `skill`."""


@dataclass(slots=True)
class PredictionResult:
    """The next requests, oldest first: one entry of each list per request."""

    timestamps: list[float]
    """Predicted arrivals, seconds on the clock of the history."""
    request_tokens: list[float]
    response_tokens: list[float]
    confidence: list[float]
    """Measured skill over repeating the last request, 0 to 1, that many steps ahead; see `training.skill`."""
    model_name: str = ""
    prediction_time: float = 0.0
    """Seconds that the prediction took."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """`method` says where the numbers come from, `quantiles` [step][channel][level] at `levels`."""
