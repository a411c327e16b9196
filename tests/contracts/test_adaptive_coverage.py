"""The benchmark of the adaptive layer counts what it says it counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.adaptive_coverage import adapted, windows
from runtime.adaptive import AdaptiveQuantiles
from training.series import Series

LEVELS = (0.1, 0.5, 0.9)


def series(n: int, *, gap_at: int) -> Series:
    return Series(
        kind="load",
        channels=("requests",),
        values=np.random.default_rng(0).gamma(2.0, 20.0, (n, 1)).astype(np.float32),
        time_s=np.arange(n) * 10.0,
        segment=(np.arange(n) >= gap_at).astype(np.int32),
        clock="epoch",
        bin_s=10.0,
        gap_s=21600.0,
    )


def test_a_window_holds_all_forecasts_of_the_same_steps() -> None:
    covered = np.ones((50, 3), bool)
    for h in range(3):
        covered[30 - h, h] = False  # all that was forecast of step 30
    found = windows(covered, steps=10, level=0.9)
    assert found.count == 39
    assert found.worst == pytest.approx(0.1)
    assert found.worst_steps == pytest.approx([0.1] * 3)
    assert found.beyond == pytest.approx(29 / 39)  # ten windows have the miss that 0.9 stands for


def test_a_part_shorter_than_a_window_is_one_window() -> None:
    assert windows(np.ones((20, 3), bool), steps=360, level=0.9).count == 1


def test_the_layer_sees_every_bin_once_and_no_forecast_across_a_gap() -> None:
    data, origins = series(60, gap_at=40), np.array([*range(4, 36, 2), *range(44, 58, 2)])
    forecast = np.tile(np.array([20.0, 70.0, 150.0], np.float32), (len(origins), 2, 1, 1))
    found = adapted(forecast, origins, data, levels=LEVELS, ratio=2)
    layer, expected = AdaptiveQuantiles(LEVELS, horizon=2, channels=1, ratio=2), []
    for at in range(4, 57):
        if at == 40:
            layer.clear()
        if at in origins:
            expected.append(layer.adjust(forecast[0]))
        layer.learn(data.values[at])
    np.testing.assert_array_equal(found, np.stack(expected))
