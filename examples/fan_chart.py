"""A picture of streamed load forecasts next to what then happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from runtime import Forecast

_BANDS = ((0.1, 0.99), (0.25, 0.95), (0.5, 0.75))


def draw_fan_chart(
    path: Path, *, start_s: np.ndarray, actual: np.ndarray, forecasts: Sequence[Forecast], title: str
) -> None:
    """Draw the lead-time view of all forecasts and the fan of the last one, and save a PNG.

    Args:
        path: where the picture goes.
        start_s: (T,) where each bin begins, seconds since the trace began.
        actual: (T,) requests in each bin.
        forecasts: one after every bin, oldest first, of a load series.
        title: heading.
    """
    last = forecasts[-1]
    assert last.step_s is not None
    horizon, step_s = len(last.values), last.step_s
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title)
    far, fan = figure.subplots(2, 1)

    # What was promised for each bin, H steps before it.
    promised_s = np.array([f.start_s for f in forecasts], np.float64) + (horizon - 1) * step_s
    _bands(far, promised_s / 3600, np.stack([f.values[-1, 0] for f in forecasts]), last.levels)
    shown = (start_s >= promised_s[0]) & (start_s <= promised_s[-1])
    far.plot(start_s[shown] / 3600, actual[shown], color="black", lw=0.9, label="actual")
    far.set_title(f"forecast {horizon * step_s / 60:g} minutes ahead, while the stream ran", loc="left", fontsize=10)

    # One fan: history, then the forecast over what came.
    assert last.start_s is not None
    before = (start_s < last.start_s) & (start_s >= last.start_s - 60 * step_s)
    after = (start_s >= last.start_s) & (start_s < last.start_s + horizon * step_s)
    _bands(fan, (last.start_s + np.arange(horizon) * step_s) / 3600, last.values[:, 0], last.levels)
    fan.plot(start_s[before] / 3600, actual[before], ".-", color="gray", lw=0.9, label="history")
    fan.plot(start_s[after] / 3600, actual[after], ".-", color="black", lw=0.9, label="actual, not yet seen")
    fan.axvline(last.start_s / 3600, color="tab:red", lw=1)
    fan.set_title("one forecast, and what came", loc="left", fontsize=10)
    for axes in (far, fan):
        axes.set(xlabel="hours since the trace began", ylabel=f"requests per {step_s:g} s", ylim=(0, None))
        axes.legend(loc="upper left", fontsize=8, ncols=3)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _bands(axes, x, quantiles: np.ndarray, levels: Sequence[float]) -> None:  # type: ignore[no-untyped-def]
    for shade, (low, high) in zip((0.18, 0.32, 0.5), _BANDS, strict=True):
        lower, upper = quantiles[:, levels.index(low)], quantiles[:, levels.index(high)]
        axes.fill_between(x, lower, upper, color="tab:blue", alpha=shade, lw=0, label=f"level {low} to {high}")
    axes.plot(x, quantiles[:, levels.index(0.5)], color="tab:blue", lw=1.2, label="median")
