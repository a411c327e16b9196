"""Windows over a series: origins split by time, gathered by index from one resident tensor.

An origin i has the context steps i-L .. i-1 and the target steps i .. i+H-1, all in one segment of the series. Where
forecast steps are R bins wide, a target step is the sum of R bins, and the origins of validation and test lie on the
edges of such steps, as they do in the wide series that the baselines see; training takes every bin. A window belongs to
the part (train, validation, test) that holds its whole target; one whose target straddles a boundary belongs to none. A
context may reach back over a boundary: the past is known when a forecast is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from training.device import series_home, to_device
from training.errors import ConfigError, TraceError
from training.series import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Origins of the windows of each part, ascending int64, and where the parts begin.

    Attributes:
        train, validation, test: (n,) indices into the series.
        known: (n,) every window that ends before the test part, those across the boundary too.
        train_end, validation_end: steps of the series at which the next part begins.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    known: np.ndarray
    train_end: int
    validation_end: int


def split_windows(
    series: Series,
    *,
    context: int,
    horizon: int,
    parts: tuple[float, float, float],
    stride: int = 1,
    ratio: int = 1,
) -> Split:
    """Split the windows of a series by time.

    Args:
        series: the series.
        context: L, steps seen.
        horizon: H, steps forecast.
        ratio: R, bins of the series in a forecast step.
        parts: proportions of train, validation and test steps; any positive scale, (4, 1, 2) or (0.6, 0.2, 0.2). A
            test proportion of 0 leaves the test part out.
        stride: train on every stride-th window; validation and test always use every one.

    Raises:
        ConfigError: the parts are not three positive numbers (the last may be 0).
        TraceError: some part has no window.
    """
    if len(parts) != 3 or min(parts[:2]) <= 0 or parts[2] < 0:
        raise ConfigError(f"split: expected three positive proportions such as 60,20,20, got {parts}; correct --split")
    steps = len(series)
    train_end = round(steps * parts[0] / sum(parts))
    validation_end = round(steps * (parts[0] + parts[1]) / sum(parts))
    horizon *= ratio
    origins = _origins(series, context=context, horizon=horizon)
    train = origins[origins + horizon <= train_end][::stride]
    known = origins[origins + horizon <= validation_end][::stride]
    validation = origins[(origins >= train_end) & (origins + horizon <= validation_end)]
    test = origins[origins >= validation_end]
    if ratio > 1:
        validation, test = (part[_bins(series)[part] % ratio == 0] for part in (validation, test))
    for part, found in (("train", train), ("validation", validation), ("test", test)):
        if not len(found) and (part != "test" or parts[2]):
            raise TraceError(
                f"{part} part: expected at least one window of {context} + {horizon} steps, got none from "
                f"{steps} steps in {len(np.unique(series.segment))} segment(s); "
                "use a longer trace, a smaller --context or --horizon, or another --split"
            )
    return Split(
        train=train,
        validation=validation,
        test=test,
        known=known,
        train_end=train_end,
        validation_end=validation_end,
    )


def widen_split(split: Split, *, fine: Series, wide: Series) -> Split:
    """The same validation and test windows as origins of the wide series; training windows on its steps.

    Args:
        split: of the fine series.
        fine: the series in bins.
        wide: the same in forecast steps, from `training.series.widen`.
    """
    assert fine.bin_s is not None
    assert wide.bin_s is not None
    ratio = round(wide.bin_s / fine.bin_s)
    of_fine, of_wide = _bins(fine), _bins(wide) * ratio

    def place(origins: np.ndarray) -> np.ndarray:
        return np.searchsorted(of_wide, of_fine[origins])

    return Split(
        train=place(split.train[of_fine[split.train] % ratio == 0]),
        validation=place(split.validation),
        test=place(split.test),
        known=place(split.known[of_fine[split.known] % ratio == 0]),
        train_end=int(np.searchsorted(of_wide, of_fine[split.train_end])),
        validation_end=int(np.searchsorted(of_wide, of_fine[min(split.validation_end, len(fine) - 1)])),
    )


def _bins(series: Series) -> np.ndarray:
    """Number of each bin on the clock, (T,) int64."""
    assert series.bin_s is not None
    return np.rint(series.time_s / series.bin_s).astype(np.int64)


def _origins(series: Series, *, context: int, horizon: int) -> np.ndarray:
    starts = np.flatnonzero(np.diff(series.segment, prepend=series.segment[:1] - 1))
    ends = np.append(starts[1:], len(series))
    ranges = [np.arange(lo + context, hi - horizon + 1) for lo, hi in zip(starts, ends, strict=True)]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int64)


class WindowSource:
    """Gathers windows by index from a series that lives on the device, or in the host's memory where it is too large.

    Attributes:
        device: where the windows are needed.
        home: where the series lives; indices are best there too.
    """

    def __init__(self, series: Series, *, context: int, horizon: int, device: torch.device, ratio: int = 1) -> None:
        """Move the series to the device.

        Args:
            series: the series.
            context: L, steps seen.
            horizon: H, steps forecast.
            device: where the windows are needed.
            ratio: R, bins of the series in a forecast step.
        """
        self.device = device
        self.home = series_home(series.values.nbytes + series.time_s.nbytes, device)
        self._values = torch.from_numpy(series.values).to(self.home)
        # Apple's GPUs have no float64; only a calendar, which does not run there, reads the time.
        self._time_s = torch.from_numpy(series.time_s).to("cpu" if device.type == "mps" else self.home)
        self._context = torch.arange(-context, 0, device=self.home)
        self._target = torch.arange(horizon * ratio, device=self.home)
        self._ratio = ratio

    def gather(self, origins: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gather the windows of some origins.

        Args:
            origins: (B,) int64.

        Returns:
            context (B, L, C) float32, time_s (B,) float64 of the last context step, target (B, H, C) float32, on the
            device.
        """
        at = origins.to(self.home)[:, None]
        last = (origins - 1).to(self._time_s.device)
        target = self._values[at + self._target]
        if self._ratio > 1:
            target = target.unflatten(1, (-1, self._ratio)).sum(2)
        context, time_s = self._values[at + self._context], self._time_s[last]
        if self.home == self.device:
            return context, time_s, target
        return to_device(context, self.device), to_device(time_s, self.device), to_device(target, self.device)
