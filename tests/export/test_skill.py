"""The loss of forecast quality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.skill import losses, mean_wql, skill_loss, windows_by_part
from training.checkpoint import load_checkpoint
from training.metrics import wql

LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture
def target() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 5.0, (20, 4, 2))


@pytest.fixture
def outputs(target: np.ndarray) -> dict[str, np.ndarray]:
    sums, peaks = target.cumsum(1), np.maximum.accumulate(target, 1)
    demand = np.concatenate((sums, peaks), 2)
    return {"forecast": target[..., None] * (0.8, 1.0, 1.2), "demand": demand[..., None] * (0.8, 1.0, 1.2)}


def test_the_quality_of_each_output_is_its_wql(target: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    found = mean_wql(outputs, target, LEVELS)
    assert found["forecast"] == pytest.approx(wql(outputs["forecast"], target, LEVELS).mean())
    perfect = {name: np.repeat(output[..., 1:2], 3, axis=-1) for name, output in outputs.items()}
    assert mean_wql(perfect, target, LEVELS) == pytest.approx({"forecast": 0.0, "demand": 0.0})


def test_the_same_forecasts_lose_nothing_and_worse_ones_what_they_lose(
    target: np.ndarray, outputs: dict[str, np.ndarray]
) -> None:
    assert losses([outputs], outputs, target, LEVELS)["loss"] == 0.0
    far = {name: output * (0.5, 1.0, 2.0) for name, output in outputs.items()}
    found = losses([outputs, {**outputs, "demand": far["demand"]}], outputs, target, LEVELS)
    expected = mean_wql(far, target, LEVELS)["demand"] / mean_wql(outputs, target, LEVELS)["demand"] - 1
    assert found["loss"] == pytest.approx(expected)  # the worst output of the worst run


def test_a_loss_over_a_perfect_forecast_is_infinite() -> None:
    assert skill_loss({"forecast": 0.0}, {"forecast": 0.0}) == 0.0
    assert skill_loss({"forecast": 0.1}, {"forecast": 0.0}) == np.inf


@pytest.mark.parametrize("kept", [277, 50, 1])
def test_windows_know_their_part(load_run: Path, kept: int) -> None:
    checkpoint = load_checkpoint(load_run)
    split, time_s = checkpoint.meta["split"], checkpoint.windows["time_s"]
    picked = np.linspace(0, len(time_s) - 1, kept).astype(np.int64)
    windows = {name: array[picked] for name, array in checkpoint.windows.items()}
    parts = windows_by_part(replace(checkpoint, windows=windows))
    last_bin_s = split["test_from_s"] - checkpoint.meta["bin_s"]  # of the context of the first test window
    np.testing.assert_array_equal(parts["test"], windows["time_s"] >= last_bin_s)
    np.testing.assert_array_equal(parts["validation"], ~parts["test"])
