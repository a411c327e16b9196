"""Load saved models and predict the next request: the user guide's service, with options.

    python -m examples.inference_service --trace BurstGPT_1.csv --models models

`python -m examples.offline_gpu_training` saves the models. A scheduler should rather embed `runtime.Predictor`: no
torch, microseconds a forecast.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from predictor.enhanced_request_predictor import EnhancedRequestPredictor
from predictor.model_interface import ModelConfig
from training.cli import Command
from training.errors import CheckpointError, TraceError
from training.readers import read_trace
from training.request_frame import trace_to_frame

if TYPE_CHECKING:
    import pandas as pd


class InferenceService:
    """Predictions from every model of a folder."""

    def __init__(self, models: Path, *, device: str) -> None:
        """Load the models.

        Args:
            models: folder of `<type>.pth` files.
            device: see `EnhancedRequestPredictor`.

        Raises:
            CheckpointError: a file is refused, or there is none.
        """
        self.predictor = EnhancedRequestPredictor(device=device)
        paths = sorted(models.glob("*.pth"))
        if not paths:
            raise CheckpointError(f"{models}: expected saved models, got none; run examples.offline_gpu_training first")
        for path in paths:
            self.predictor.load_model(path.stem, str(path), ModelConfig(model_name=f"inference_{path.stem}"))

    def predict_next_request(self, historical_data: pd.DataFrame) -> dict[str, Any]:
        """When the next request comes and how big it is, by each model."""
        return self.predictor.predict_next_request(historical_data)

    def get_model_info(self) -> dict[str, Any]:
        """What is loaded."""
        return {name: model.get_model_info() for name, model in self.predictor.model_manager.active_models.items()}


@click.command(cls=Command)
@click.option("--trace", type=click.Path(exists=True, path_type=Path), required=True, help="A trace of requests.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Rows of the trace taken for the history.",
)
@click.option(
    "--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True, help="Folder of models."
)
def main(trace: Path, device: str, rows: int, models: Path) -> None:
    """Predict the request that follows the first rows of a trace."""
    service = InferenceService(models, device=device)
    for name, info in service.get_model_info().items():
        click.echo(f"Loaded {name}: {info['parameters']} parameters on {info['device']}", err=True)
    history = trace_to_frame(read_trace([trace])).head(rows)
    found = service.predict_next_request(history)
    if "error" in found:
        raise TraceError(found["error"])
    click.echo(json.dumps(found["predictions"], indent=1))


if __name__ == "__main__":
    main()
