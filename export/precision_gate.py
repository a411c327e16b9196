"""What must hold of a converted graph before it is published, and what its conversion cost, measured.

The tolerance of the fp32 proof cannot hold here. In its place: sound forecasts on real and edge windows, the same ones
in every batch size within `TOLERANCES`, and a budget for the loss of forecast quality. docs/parity.md has the reasons.

Axes: n windows, H steps, C channels, Q levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from export import parity
from export.candidates import ONNX
from export.edge_windows import edge_windows
from export.errors import ExportError, ParityError
from export.precision import CONVERSIONS, FP32, PRECISIONS, converted_share
from export.precision_trial import BATCHES, convert_apart
from export.publish import write_file
from export.skill import losses, targets, windows_by_part
from export.steadiness import Steadiness, golden_windows, require_steady, run, run_beside
from runtime import Predictor
from runtime.manifest import output_channels
from training.checkpoint import Checkpoint
from training.errors import ConfigError

MAX_SKILL_LOSS = 0.01
TOLERANCES = {"fp16": {"rtol": 0.01, "atol": 0.001}, "int8": {"rtol": 0.05, "atol": 0.02}}
"""Between batch sizes here, and between machines later; atol in units of a channel's mean."""
_TIMED = {1: 300, 256: 8}  # batch -> calls of each graph
_WARM_UP = 4

Outputs = dict[str, np.ndarray]


def check_precision(precision: str, *, formats: Sequence[str], static_batch: int | None, max_skill_loss: float) -> None:
    """Check that a precision can be asked for.

    Raises:
        ConfigError: there is no such one, not together with TorchScript or a static batch, or the budget is no number.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision: expected {', '.join(PRECISIONS)}, got {precision}; correct it")
    if precision != FP32 and "torchscript" in formats:
        raise ConfigError(
            f"--format torchscript: expected --precision {FP32}, got {precision}; only ONNX graphs are converted, "
            "export TorchScript by itself"
        )
    if precision != FP32 and static_batch is not None:
        raise ConfigError(
            f"--static-batch: expected --precision {FP32}, got {precision}; only model.onnx is converted, "
            "export the static graph by itself"
        )
    if not math.isfinite(max_skill_loss):
        raise ConfigError(f"--max-skill-loss: expected a finite share such as 0.01, got {max_skill_loss}; correct it")


def convert_staged(
    checkpoint: Checkpoint,
    staged: Path,
    inputs: dict[str, np.ndarray],
    *,
    precision: str,
    max_skill_loss: float,
    golden_most: int,
    seal: Callable[[], None],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Put a converted graph in the place of a staged fp32 one that has been proven, and judge it.

    Args:
        checkpoint: the trained model.
        staged: a folder with a manifest and model.onnx in fp32.
        inputs: real windows by input name.
        precision: of `CONVERSIONS`.
        max_skill_loss: how much wQL on validation windows may rise, as a share.
        golden_most: how many golden windows to choose at most.
        seal: writes the manifest again, for the graph that is there now.

    Returns:
        Golden windows with the converted graph's own forecasts, and its keys for parity.json.

    Raises:
        ExportError: the conversion failed, or costs more quality than allowed.
        ParityError: a forecast is not sound, or depends on the batch.
    """
    target = targets(checkpoint)
    names, edges = edge_windows(inputs, checkpoint.meta["channels"])
    everything = {key: np.concatenate((array, edges[key])) for key, array in inputs.items()}
    fp32 = Predictor(staged, device="cpu")
    before = (staged / ONNX).stat().st_size
    scratch = staged.parent / "trial"
    scratch.mkdir()
    graph = convert_apart(CONVERSIONS[precision], staged, scratch, everything, precision=precision)
    write_file(staged / ONNX, graph)
    seal()
    converted = Predictor(staged, device="cpu")

    found = {batch: run(converted, inputs, batch) for batch in BATCHES}
    for batch, outputs in found.items():
        _require_sound(outputs, None, where=f"{precision} at batch {batch}")
        _require_sound(run(converted, edges, batch), names, where=f"{precision} at batch {batch}")
    least = checkpoint.trained.scaling.least.numpy()
    allowed = Steadiness(**TOLERANCES[precision], scale=parity.channel_scale(inputs["context"]), least=least)
    levels = checkpoint.meta["levels"]
    source = run(fp32, inputs, BATCHES[-1])
    parts = windows_by_part(checkpoint)

    def loss(runs: Iterable[Outputs], part: str) -> dict[str, Any]:
        rows = parts[part]
        return losses([_rows(outputs, rows) for outputs in runs], _rows(source, rows), target[rows], levels)

    skill = {part: loss(found.values(), part) for part, rows in parts.items() if rows.any()}
    _require_skill(skill["validation"], precision, max_skill_loss)
    report = {
        "precision": precision,
        "weights_converted": converted_share(graph),
        "size_ratio": len(graph) / before,
        "latency_ratio": {str(batch): _latency_ratio(fp32, converted, inputs, batch, n) for batch, n in _TIMED.items()},
        "max_skill_loss": max_skill_loss,
        "skill_loss": skill,
        "skill_loss_beside_edge_windows": loss([run_beside(converted, inputs, edges)], "validation")["loss"],
        "batches": {"compared": list(BATCHES), "used": require_steady(found, allowed, precision=precision)},
        "difference": _differences(checkpoint, found[BATCHES[-1]], inputs),
    }
    scale = dict(zip(checkpoint.meta["channels"], allowed.scale, strict=True))
    golden = golden_windows(converted, inputs, found, allowed, most=golden_most)
    return golden, {"tolerances": TOLERANCES[precision] | {"channel_scale": scale}, "precision": report}


def _rows(outputs: Outputs, rows: np.ndarray) -> Outputs:
    return {name: output[rows] for name, output in outputs.items()}


def _require_sound(outputs: Outputs, edges: Sequence[str] | None, *, where: str) -> None:
    """Pass when every forecast, of real windows or of named edge windows, is finite, not negative and in order."""
    for name, output in outputs.items():
        with np.errstate(invalid="ignore"):
            good = np.isfinite(output) & (output >= 0)
            good[..., 1:] &= np.diff(output, axis=-1) >= 0
        if not good.all():
            row, step, channel, level = (int(i) for i in np.argwhere(~good)[0])
            window = f"window {row}" if edges is None else f"the edge window '{edges[row]}'"
            raise ParityError(
                f"precision: expected finite, non-negative, ordered quantiles from {where}, got "
                f"{output[row, step, channel, level]:.7g} in {window}, {name}, step {step + 1}, channel {channel}, "
                f"level {level}; nothing was published: export it as fp32"
            )


def _require_skill(found: dict[str, Any], precision: str, most: float) -> None:
    if not found["loss"] <= most:
        raise ExportError(
            f"--precision {precision}: expected wQL to rise by at most {most:.2%} over fp32, got {found['loss']:+.2%} "
            f"on {found['windows']} validation windows; nothing was published: export it as fp32, or allow more with "
            "--max-skill-loss"
        )


def _differences(checkpoint: Checkpoint, found: Outputs, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """By output and channel: differences to the trained model, in raw units and as shares of the mean IQR."""
    expected = parity.torch_forecast(checkpoint.model)(*inputs.values())
    levels = checkpoint.meta["levels"]
    low, high = (int(np.abs(np.subtract(levels, level)).argmin()) for level in (0.25, 0.75))
    report: dict[str, Any] = {}
    for name, output in found.items():
        report[name] = {}
        for c, channel in enumerate(output_channels(name, checkpoint.meta["channels"])):
            want = expected[name][:, :, c].astype(np.float64)
            difference = np.abs(output[:, :, c] - want)
            iqr = float((want[..., high] - want[..., low]).mean())
            figures = {"max": difference.max(), "p99": np.quantile(difference, 0.99), "mean": difference.mean()}
            report[name][channel] = {key: float(value) for key, value in figures.items()} | {
                f"{key}_of_iqr": float(value) / iqr if iqr > 0 else None for key, value in figures.items()
            }
    return report


def _latency_ratio(
    fp32: Predictor, converted: Predictor, inputs: dict[str, np.ndarray], batch: int, calls: int
) -> float:
    """Median time of a call over that of fp32; they take turns at being first, as the second finds a warm cache."""
    picked = np.arange(batch) % len(inputs["context"])
    arrays = [np.ascontiguousarray(array[picked]) for array in inputs.values()]
    pair = [fp32, converted]
    taken: list[list[int]] = [[], []]
    for call in range(calls + _WARM_UP):
        for which in (0, 1) if call % 2 else (1, 0):
            started = perf_counter_ns()
            pair[which].predict_outputs(*arrays)
            taken[which].append(perf_counter_ns() - started)
    return median(taken[1][_WARM_UP:]) / median(taken[0][_WARM_UP:])
