"""An exported form beside the reference, number by number, in batches of one size.

Axes: n windows, H horizon, V channels of an output (C, or 2C for sums and peaks), Q levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.parity import DRIFT, NOISE, REAL, Candidate, Check, Spread, Tolerance, Worst
from export.reference import Outputs, Reference
from export.working_scale import WorkingScale
from runtime.manifest import output_channels

_MESSAGE = 400
_LEAST_WINDOWS = 32
"""Fewer real ones say too little about a shift of them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What all comparisons of one model share."""

    windows: Sequence[np.ndarray]
    """context (n, L, C) float32 and, if the model takes it, time_s (n,) float64; edge windows last."""
    edges: Sequence[str]
    """Names of the edge windows."""
    reference: Reference
    """For the same windows."""
    within: Tolerance
    scale: WorkingScale
    channels: Sequence[str]
    levels: Sequence[float]

    def check(self, candidate: Candidate, batches: Sequence[np.ndarray]) -> Check:
        """Run a form over batches, all of one size.

        Args:
            candidate: the form.
            batches: indices into the windows.

        Returns:
            What was found; a form that cannot run, or gives something else than forecasts, has failed.
        """
        picked = np.concatenate(batches)
        check = Check(
            format=candidate.format,
            provider=candidate.provider,
            level=candidate.level,
            threads=candidate.threads,
            batch=len(batches[0]),
            windows=len(picked),
            edges=int(self._is_edge(picked).sum()),
            reference=self.reference.precision,
        )
        try:
            parts = [candidate.forecast(*(array[batch] for array in self.windows)) for batch in batches]
        except Exception as error:  # whatever the runtime of this form raises is what there is to report
            return replace(check, problem=" ".join(str(error).split())[:_MESSAGE])
        problem = self._unlike(parts, batches)
        if problem is not None:
            return replace(check, problem=problem)
        found = [
            self._compare(check, output, np.concatenate([part[output] for part in parts]), picked)
            for output in self.reference.exact
        ]
        return _together(found)

    def _is_edge(self, picked: np.ndarray) -> np.ndarray:
        return np.asarray(picked >= len(self.windows[0]) - len(self.edges))

    def _unlike(self, parts: Sequence[Outputs], batches: Sequence[np.ndarray]) -> str | None:
        """What of the names, shapes and types is not as it should be."""
        expected = self.reference.exact
        for part, batch in zip(parts, batches, strict=True):
            if list(part) != list(expected):
                return f"the outputs {', '.join(part)} where {', '.join(expected)} were expected"
            for output, values in part.items():
                shape = (len(batch), *expected[output].shape[1:])
                if values.shape != shape or values.dtype != np.float32:
                    return (
                        f"a {output} of {values.dtype} {values.shape} where float32 {shape} was expected; "
                        "the model's forward must keep the batch as its first axis"
                    )
        return None

    def _compare(self, check: Check, output: str, got: np.ndarray, picked: np.ndarray) -> Check:
        want, unit = self.reference.exact[output][picked], self.scale.unit[output]
        channels = output_channels(output, self.channels)
        real = ~self._is_edge(picked)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            difference = self._differences(output, got.astype(np.float64), want)
            own = np.nan_to_num(self._differences(output, self.reference.float32[output][picked], want), posinf=0.0)
            limit = self.within.limit(want, unit)
            size = np.abs(difference)
            used = np.where(size == 0, 0.0, size / limit)
            used = np.where(np.isfinite(size), used, np.inf)
            relative = size / np.maximum(np.abs(want), self.within.scales(want))
            scaled, own_scaled = difference / (np.abs(want) + unit), own / (np.abs(want) + unit)
        drift, own_drift = (_mean(values[real]) for values in (scaled, own_scaled))
        judged = check.reference != "float32" and real.sum() >= _LEAST_WINDOWS
        # Where no tolerance is left, by the difference itself; where each value is well, where they all shift.
        at = _argmax(used if np.isfinite(used).all() else size)
        allowed = self.within.wider * (NOISE * float(own_drift.max()) + DRIFT) if judged else math.inf
        if used[at] <= 1 and drift.max() > allowed:
            shifted = np.where(real[:, None, None, None], np.abs(scaled), -1.0) * (drift == drift.max())
            at = _argmax(shifted)
        window, step, channel, level = at
        return replace(
            check,
            max_abs=float(size.max()),
            max_abs_channel=channels[_argmax(size)[2]],
            max_rel=float(relative.max()) if np.isfinite(size).all() else math.inf,
            scaled=float(np.abs(scaled).max()),
            float32=float(np.abs(own_scaled).max()),
            drift=float(drift.max()),
            drift_limit=allowed,
            used=float(used[at]),
            worst=Worst(
                window=int(picked[window]),
                name=self.edges[picked[window] - len(self.windows[0])] if not real[window] else REAL,
                output=output,
                step=step + 1,
                channel=channels[channel],
                level=self.levels[level],
                reference=float(want[at]),
                got=float(got[at]),
                tolerance=float(limit[at]),
            ),
            channels={name: self._spread(size[:, :, c], want[real][:, :, c], real) for c, name in enumerate(channels)},
        )

    def _differences(self, output: str, got: np.ndarray, want: np.ndarray) -> np.ndarray:
        """With their signs; infinite where a number is none, even when both sides agree on that."""
        limit = self.within.limit(
            np.broadcast_to(self.scale.least[output], want.shape[1:])[None], self.scale.unit[output]
        )
        difference = np.where(self.scale.across_the_step(output, got, want, limit), 0.0, got - want)
        return np.where(np.isfinite(got) & np.isfinite(want), difference, np.inf)

    def _spread(self, size: np.ndarray, want: np.ndarray, real: np.ndarray) -> Spread:
        """Of one channel: sizes (n, H, Q) of all windows, reference of the real ones."""
        raw = _summary(size.ravel())
        if not {0.25, 0.75} <= set(self.levels):
            return Spread(raw=raw, iqr=None)
        low, high = (want[:, :, self.levels.index(level)] for level in (0.25, 0.75))
        with np.errstate(invalid="ignore"):
            width = np.where(high > low, high - low, np.nan)[:, :, None]
            shares = size[real] / width
        shares = shares[~np.isnan(shares)]
        return Spread(raw=raw, iqr=_summary(shares) if len(shares) else None)


def _mean(values: np.ndarray) -> np.ndarray:
    """(n, H, V, Q) with signs to the size of the mean over n; 0 without windows."""
    if not len(values):
        return np.zeros(values.shape[1:])
    return np.asarray(np.abs(values.mean(axis=0)))


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    if not np.isfinite(values).all():
        return math.inf, math.inf, math.inf
    place = int(0.99 * (len(values) - 1))
    return float(values.max()), float(np.partition(values, place)[place]), float(values.mean())


def _argmax(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def _together(found: Sequence[Check]) -> Check:
    """The checks of each output of one batch as one: the worst, and the largest differences of any."""
    largest = max(found, key=lambda check: check.max_abs)
    shifted = max(found, key=lambda check: check.drift / check.drift_limit if check.drift_limit else check.drift)
    worst = max(found, key=lambda check: (check.used, check.max_rel))
    if worst.used <= 1 and not shifted.passed:
        worst = shifted
    return replace(
        worst,
        max_abs=largest.max_abs,
        max_abs_channel=largest.max_abs_channel,
        max_rel=max(check.max_rel for check in found),
        scaled=max(check.scaled for check in found),
        float32=max(check.float32 for check in found),
        drift=shifted.drift,
        drift_limit=shifted.drift_limit,
        channels={name: spread for check in found for name, spread in (check.channels or {}).items()},
    )
