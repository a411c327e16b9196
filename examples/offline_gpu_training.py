"""Train models on a GPU box without a network and save them: the user guide's script, with options.

    python -m examples.offline_gpu_training --trace BurstGPT_1.csv --device cuda --out models

Then: python -m examples.inference_service --trace BurstGPT_1.csv --models models
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from predictor.enhanced_request_predictor import EnhancedRequestPredictor, monitor_training_progress
from predictor.model_interface import ModelConfig, ModelType
from training.cli import Command
from training.readers import read_trace
from training.request_frame import trace_to_frame


@click.command(cls=Command)
@click.option("--trace", type=click.Path(exists=True, path_type=Path), required=True, help="A trace of requests.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--epochs", type=int, default=50, show_default=True, help="Most training epochs.")
@click.option("--rows", type=click.IntRange(min=1), help="Use the first rows of the trace only.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("models"), show_default=True, help="Where to save."
)
def main(trace: Path, device: str, epochs: int, rows: int | None, out: Path) -> None:
    """Train an LSTM and a Transformer and save both."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    predictor = EnhancedRequestPredictor(device=device)
    click.echo(f"Using device: {predictor.device}")
    predictor.add_model(
        "lstm",
        ModelConfig(
            model_type=ModelType.LSTM, sequence_length=100, prediction_horizon=20, epochs=epochs, batch_size=128
        ),
    )
    predictor.add_model(
        "transformer",
        ModelConfig(
            model_type=ModelType.TRANSFORMER,
            sequence_length=100,
            prediction_horizon=20,
            epochs=epochs,
            batch_size=64,
            custom_params={"d_model": 128, "nhead": 4},
        ),
    )
    data = trace_to_frame(read_trace([trace])).iloc[:rows]
    click.echo(f"Loaded {len(data)} records")
    results = predictor.train_models(data, validation_split=0.2)
    monitor_training_progress(predictor)
    failed = {name: result.metadata["error"] for name, result in results.items() if not result.success}
    for name in results:
        if name not in failed:
            path = out / f"{name}.pth"
            predictor.save_model(name, str(path))
            click.echo(f"Saved {name} to {path}")
    if failed:
        click.echo(f"Failed: {failed}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
