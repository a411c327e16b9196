"""What a proof is made of: tolerances, forms to be compared, what each comparison found, and the verdict.

Axes: B batch, H horizon, C channels, V channels of an output (C, or 2C for sums and peaks), Q levels, n windows. The
tolerances are explained in docs/parity.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from export.errors import ParityError
from export.reference import Forecast
from export.reference import torch_forecast as torch_forecast  # part of this module for its callers
from training.errors import ConfigError

RTOL = 1e-4
ATOL = 1e-5
SCALED = 1e-5
"""Largest difference on the working scale."""
DRIFT = 1.5e-6
"""Mean difference on the working scale that is no sign of a changed constant, beside float32 torch's own."""
REAL = "real"
_SHOWN = 6
NOISE = 4.0
"""An exported graph may be so many times as far from float64 as float32 torch is, where that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a forecast may be from its reference: the smaller of the two limits of docs/parity.md."""

    rtol: float
    atol: float
    """In units of a channel's scale, so that it means the same for seconds and for tokens."""
    scale: tuple[float, ...]
    """Mean of each channel over the windows, raw units; 1 where that is 0."""

    @property
    def wider(self) -> float:
        """How much wider than by default."""
        return max(1.0, self.rtol / RTOL, self.atol / ATOL)

    def limit(self, reference: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """The largest difference allowed at each value of a (B, H, V, Q) output.

        Args:
            reference: its values.
            unit: (H, V, 1), of the working scale.
        """
        size = np.abs(reference)
        raw = self.atol * self.scales(reference) + self.rtol * size
        limit: np.ndarray = np.minimum(raw, self.wider * SCALED * (size + unit))
        return limit

    def scales(self, reference: np.ndarray) -> np.ndarray:
        """The scale of each value, (V, 1): a channel's is that of its sums and peaks too."""
        return np.resize(self.scale, (reference.shape[2], 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One exported form of the model, as it will be run."""

    format: str
    provider: str
    forecast: Forecast
    level: str = "all"
    """ONNX Runtime's graph optimisation."""
    threads: int = 1
    batch: int | None = None
    """The only batch it takes; None for any."""
    served: bool = True
    """As a host runs it: over every window and batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """Where a check came closest to its tolerance, or went beyond it; steps count from 1."""

    window: int
    name: str
    """`real`, or the edge window's."""
    output: str
    step: int
    channel: str
    level: float
    reference: float
    got: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The differences of one channel: largest, 99th of 100, mean."""

    raw: tuple[float, float, float]
    """In its unit, over all windows."""
    iqr: tuple[float, float, float] | None
    """Over the forecast's own interquartile range, over real windows where it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """All outputs of one form in batches of one size.

    Attributes:
        windows: forecasts compared, `edges` of them of edge windows.
        max_abs: largest difference, raw units of `max_abs_channel`.
        max_rel: largest difference over the reference, or over the channel's scale where that is larger.
        scaled: largest difference on the working scale.
        float32: that of float32 torch, on the same windows.
        drift: largest mean difference, with its sign, at any step, channel and level, on the working scale.
        drift_limit: what of that is allowed; infinite without a float64 reference.
        used: largest share of the tolerance used; above 1 the check failed, infinite for NaN or infinity.
        reference: precision of the reference.
        problem: why nothing could be compared.
    """

    format: str
    provider: str
    level: str
    threads: int
    batch: int
    windows: int
    edges: int
    reference: str
    max_abs: float = math.inf
    max_abs_channel: str = ""
    max_rel: float = math.inf
    scaled: float = math.inf
    float32: float = math.inf
    drift: float = math.inf
    drift_limit: float = 0.0
    used: float = math.inf
    worst: Worst | None = None
    channels: dict[str, Spread] | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every value is within its tolerance, and the values as a whole show no shift."""
        return self.used <= 1.0 and self.drift <= self.drift_limit

    @property
    def where(self) -> str:
        """Which one it is, in words."""
        return f"{self.format}{f' ({self.how})' if self.how else ''} at batch {self.batch}"

    @property
    def how(self) -> str:
        """What is not as it is in a host by default."""
        usual = (self.level, self.threads) == ("all", 1)
        return "" if usual else f"optimisation {self.level}, threads {self.threads}"


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


def require_parity(checks: Sequence[Check]) -> None:
    """Pass when every check did.

    Raises:
        ParityError: some check failed; the text has the worst difference and names the failed checks.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return
    check = max(failed, key=lambda c: (c.used, c.max_rel))
    broken = next((c for c in failed if c.problem is not None), None)
    said = _said_of(check if broken is None else broken)
    shown = ", ".join(c.where for c in failed[:_SHOWN])
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    raise ParityError(f"parity: {said}; failed: {shown}{more} of {len(checks)} checks; nothing was published")


def _said_of(check: Check) -> str:
    w = check.worst
    if w is None:
        return f"expected forecasts from {check.where} ({check.provider}), got {check.problem}"
    place = f"{w.output}, step {w.step}, channel {w.channel}, level {w.level:g}"
    if check.used <= 1:
        return (
            f"expected a mean difference to {check.reference} torch of at most {check.drift_limit:.2g} on the working "
            f"scale, got {check.drift:.2g} from {check.where} ({check.provider}), {place}; a constant of the graph may "
            "differ; if that is acceptable, give a larger --rtol"
        )
    window = f"window {w.window}" + ("" if w.name == REAL else f" ({w.name})")
    how = f", {check.how}" if check.how else ""
    return (
        f"expected {w.reference:.9g} within {w.tolerance:.3g} as the trained model gives, got {w.got:.9g} from "
        f"{check.format} ({check.provider}{how}) at batch {check.batch}, {window}, {place}; "
        "if such a difference is acceptable, give a larger --rtol or --atol"
    )


def parity_json(checks: Sequence[Check], *, within: Tolerance, channels: Sequence[str], windows: int) -> dict[str, Any]:
    """The content of parity.json, for checks that passed."""
    return {
        "reference": f"torch {torch.__version__} eager, cpu, {checks[0].reference}",
        "windows": windows,
        "edge_windows": checks[0].edges,
        "float32_torch": {"scaled": _short(max(check.float32 for check in checks))},
        "tolerances": {
            "rtol": within.rtol,
            "atol": within.atol,
            "channel_scale": dict(zip(channels, within.scale, strict=True)),
            "rule": "|got - reference| <= atol * channel_scale + rtol * |reference|",
            "scaled": within.wider * SCALED,
            "scaled_rule": "|got - reference| <= scaled * (|reference| + unit)",
        },
        "checks": [_plain(check) for check in checks],
        "worst": _plain(max(checks, key=lambda check: check.used)),
    }


def _plain(check: Check) -> dict[str, Any]:
    """A check as JSON: numbers in three digits, but those that are compared with each other whole."""
    channels = {
        name: {key: None if v is None else [_short(x) for x in v] for key, v in asdict(spread).items()}
        for name, spread in (check.channels or {}).items()
    }
    fields = {key: _short(v) if isinstance(v, float) else v for key, v in asdict(check).items() if v is not None}
    return fields | {"channels": channels, "passed": check.passed}


def _short(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
