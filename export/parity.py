"""The gate: an exported model forecasts what the trained one does, on real windows, or is not published.

Axes: B batch, L context, C channels, H horizon, Q levels. The tolerances are explained in docs/parity.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from export.errors import ParityError
from export.tracing import named_outputs
from runtime.manifest import output_channels
from training.errors import ConfigError

BATCHES = (1, 3, 17, 256)
RTOL = 1e-4
ATOL = 1e-5

Outputs = dict[str, np.ndarray]  # forecast (B, H, C, Q) and, of a model that gives it, demand (B, H, 2C, Q)
Forecast = Callable[..., Outputs]  # of (context (B, L, C)[, time_s (B,)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a forecast may be from its reference: `atol * scale + rtol * |reference|`."""

    rtol: float
    atol: float
    """In units of a channel's scale, so that it means the same for seconds and for tokens."""
    scale: tuple[float, ...]
    """Mean of each channel over the windows, raw units; 1 where that is 0."""

    def limit(self, reference: np.ndarray) -> np.ndarray:
        """The largest difference allowed at each value of a (B, H, C or 2C, Q) output."""
        return self.atol * self.scales(reference) + self.rtol * np.abs(reference)

    def scales(self, reference: np.ndarray) -> np.ndarray:
        """The scale of each value, (C or 2C, 1): a channel's is that of its sums and peaks too."""
        return np.resize(self.scale, (reference.shape[2], 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One exported form of the model, as it will be run."""

    format: str
    provider: str
    forecast: Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """Where a check came closest to its tolerance, or went beyond it; steps count from 1."""

    window: int
    output: str
    step: int
    channel: str
    level: float
    reference: float
    got: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of all outputs for one batch.

    Attributes:
        max_abs: largest difference, raw units of `max_abs_channel`.
        max_rel: largest difference over the reference, or over the channel's scale where that is larger.
        used: largest share of the tolerance used; above 1 the check failed, infinite for NaN or infinity.
    """

    format: str
    provider: str
    batch: int
    max_abs: float
    max_abs_channel: str
    max_rel: float
    used: float
    worst: Worst

    @property
    def passed(self) -> bool:
        """Whether every value is within its tolerance."""
        return self.used <= 1.0


def channel_scale(context: np.ndarray) -> tuple[float, ...]:
    """Mean of each channel of windows (n, L, C); 1 for a channel that is 0 throughout."""
    means = np.abs(context).mean(axis=(0, 1), dtype=np.float64)
    return tuple(float(mean) if mean > 0 else 1.0 for mean in means)


def tolerance(context: np.ndarray, *, rtol: float = RTOL, atol: float = ATOL) -> Tolerance:
    """The tolerance for real windows (n, L, C).

    Raises:
        ConfigError: `rtol` or `atol` is negative or not finite.
    """
    for name, value in (("--rtol", rtol), ("--atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}: expected a finite number of at least 0, got {value}; correct it")
    return Tolerance(rtol=rtol, atol=atol, scale=channel_scale(context))


def torch_forecast(model: nn.Module) -> Forecast:
    """A torch module as a function over numpy arrays, without gradients."""

    def forecast(*arrays: np.ndarray) -> Outputs:
        with torch.no_grad():
            found = named_outputs(model(*(torch.from_numpy(array) for array in arrays)))
        return {name: output.numpy() for name, output in found.items()}

    return forecast


def compare(
    candidates: Sequence[Candidate],
    reference: Forecast,
    inputs: Sequence[np.ndarray],
    *,
    within: Tolerance,
    channels: Sequence[str],
    levels: Sequence[float],
) -> list[Check]:
    """Run every candidate and the reference over batches of real windows.

    Args:
        candidates: what is to be proven.
        reference: the trained model, in eager torch.
        inputs: context (n, L, C) float32 and, if the model takes it, time_s (n,) float64. Each batch goes on
            where the one before stopped; windows are repeated when there are too few.
        within: the tolerance.
        channels: C names.
        levels: Q quantile levels.

    Returns:
        One check per candidate and batch size; failed ones are among them.
    """
    checks, start, available = [], 0, len(inputs[0])
    for batch in BATCHES:
        picked = (start + np.arange(batch)) % available
        arrays = [np.ascontiguousarray(array[picked]) for array in inputs]
        start += batch
        expected = reference(*arrays)
        for candidate in candidates:
            got = candidate.forecast(*arrays)
            if list(got) != list(expected):
                raise ParityError(
                    f"parity: expected the outputs {', '.join(expected)}, got {', '.join(got)} from "
                    f"{candidate.format}; the model's forward must give the same ones every time"
                )
            found = [
                _check(
                    candidate,
                    output,
                    expected[output],
                    got[output],
                    picked,
                    within=within,
                    channels=output_channels(output, channels),
                    levels=levels,
                )
                for output in expected
            ]
            checks.append(_together(found))
    return checks


def _together(found: Sequence[Check]) -> Check:
    """The checks of each output of one batch as one: the worst, and the largest differences of any."""
    largest = max(found, key=lambda check: check.max_abs)
    return replace(
        max(found, key=lambda check: (check.used, check.max_rel)),
        max_abs=largest.max_abs,
        max_abs_channel=largest.max_abs_channel,
        max_rel=max(check.max_rel for check in found),
    )


def _check(
    candidate: Candidate,
    output: str,
    expected: np.ndarray,
    got: np.ndarray,
    picked: np.ndarray,
    *,
    within: Tolerance,
    channels: Sequence[str],
    levels: Sequence[float],
) -> Check:
    if got.shape != expected.shape or got.dtype != np.float32:
        raise ParityError(
            f"parity: expected a {output} of float32 {expected.shape}, got {got.dtype} {got.shape} from "
            f"{candidate.format}; the model's forward must keep the batch as its first axis"
        )
    limit = within.limit(expected)
    finite = np.isfinite(expected) & np.isfinite(got)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.where(finite, np.abs(got.astype(np.float64) - expected), np.inf)
        used = np.where(difference == 0, 0.0, np.where(finite, difference / limit, np.inf))
        relative = difference / np.maximum(np.abs(expected), within.scales(expected))
    # Where no tolerance is left, by the difference itself.
    at = _argmax(used if np.isfinite(used).all() else difference)
    row, step, channel, level = at
    return Check(
        format=candidate.format,
        provider=candidate.provider,
        batch=len(expected),
        max_abs=float(difference.max()),
        max_abs_channel=channels[_argmax(difference)[2]],
        max_rel=float(relative.max()) if finite.all() else math.inf,
        used=float(used[at]),
        worst=Worst(
            window=int(picked[row]),
            output=output,
            step=step + 1,
            channel=channels[channel],
            level=levels[level],
            reference=float(expected[at]),
            got=float(got[at]),
            tolerance=float(limit[at]),
        ),
    )


def _argmax(values: np.ndarray) -> tuple[int, int, int, int]:
    row, step, channel, level = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(step), int(channel), int(level)


def require_parity(checks: Sequence[Check]) -> None:
    """Pass when every check did.

    Raises:
        ParityError: some check failed; the text has the worst difference and lists every failed check.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return
    check = max(failed, key=lambda c: (c.used, c.max_rel))
    w = check.worst
    everywhere = ", ".join(f"{c.format} at batch {c.batch}" for c in failed)
    raise ParityError(
        f"parity: expected {w.reference:.9g} within {w.tolerance:.3g} as the trained model gives, "
        f"got {w.got:.9g} from {check.format} ({check.provider}) at batch {check.batch}, window {w.window}, "
        f"{w.output}, step {w.step}, channel {w.channel}, level {w.level:g}; failed: {everywhere}; "
        "nothing was published; if such a difference is acceptable, give a larger --rtol or --atol"
    )


def parity_json(checks: Sequence[Check], *, within: Tolerance, channels: Sequence[str], windows: int) -> dict[str, Any]:
    """The content of parity.json, for checks that passed."""
    return {
        "reference": f"torch {torch.__version__} eager, cpu, float32",
        "windows": windows,
        "tolerances": {
            "rtol": within.rtol,
            "atol": within.atol,
            "channel_scale": dict(zip(channels, within.scale, strict=True)),
            "rule": "|got - reference| <= atol * channel_scale + rtol * |reference|",
        },
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        "worst": asdict(max(checks, key=lambda check: check.used)),
    }
