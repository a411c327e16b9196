"""The decision score: the capacity a planner buys with a forecast, and how often that falls short.

At every origin the planner orders replicas that are ready a lead time later. It sizes them for the step that ends
then: capacity = factor * forecast quantile. Three questions:

- matched rate: which capacity over demand does the forecaster need so that a share of the bins falls short? The
  factor is found on the bins it is judged on, so all forecasters are compared at exactly one rate;
- planned: the same with the factor found on validation, which a planner can really do; then the rate is what comes;
- as is: capacity and rate when the quantile is bought unscaled.

Which quantile level is scaled best is chosen on validation, for each rate.

Letters: n origins, Q levels, S shares of bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.bootstrap import Blocks, compare, resampled_means, resampled_origins
from training.errors import ConfigError
from training.metrics import capacity_over_demand, matched_factors, needed_factors

SHARES = (0.01, 0.05)
"""Shares of bins that may fall short, for which the score is given as a number."""
CURVE = tuple(float(share) for share in np.geomspace(0.002, 0.3, 45))
"""Shares of the trade-off curve."""
_REPLICATES = 1000  # finding the factor of every replicate is what costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """What a planner has for the step ahead, and what came.

    Attributes:
        quantiles: (n, Q) forecast, raw units.
        demand: (n,) raw units.
    """

    quantiles: np.ndarray
    demand: np.ndarray


def lead_step(lead_time_s: float | None, *, step_s: float, horizon: int) -> int:
    """The step of the horizon, from 0, in which a lead time ends; the last one if None.

    Step h covers the time from h * step_s to (h + 1) * step_s after the origin, its end included: ten minutes end in
    the tenth step of a minute.

    Raises:
        ConfigError: the lead time is beyond the horizon.
    """
    if lead_time_s is None:
        return horizon - 1
    if not 0 < lead_time_s <= horizon * step_s * (1 + 1e-9):
        raise ConfigError(
            f"--lead-time: expected more than 0 and at most {horizon * step_s:g} s, the horizon of these runs, "
            f"got {lead_time_s:g}; train with a longer --horizon for a longer one"
        )
    return int(np.ceil(lead_time_s / step_s - 1e-9)) - 1


def bins_ahead(forecast: np.ndarray, target: np.ndarray, *, step: int, channel: int) -> Bins:
    """The planner's bins from a forecast (n, H, C, Q) and a target (n, H, C)."""
    quantiles = forecast[:, step, channel].astype(np.float64)
    return Bins(quantiles=quantiles, demand=target[:, step, channel].astype(np.float64))


def decision_score(validation: Bins, test: Bins, levels: Sequence[float]) -> dict[str, Any]:
    """Judge one forecaster for one channel.

    Args:
        validation: bins on which levels and factors are chosen.
        test: bins that are judged.
        levels: (Q,).

    Returns:
        As plain numbers, None for infinity (no factor meets real demand with a forecast of 0):
        `as_is` [Q] of `level`, `capacity` (over demand), `short` (share of bins); `rates` {"0.01": ...} of `level`
        (chosen), `capacity` (matched on test with it), `by_level` [Q] (matched with each), and `planned`: `factor`,
        `capacity`, `short`; `curve` of `short` [S] and `capacity` [S].
    """
    chosen_from = np.stack([_matched(validation, q, SHARES) for q in range(len(levels))])
    matched = np.stack([_matched(test, q, SHARES) for q in range(len(levels))])
    rates = {}
    for s, share in enumerate(SHARES):
        q = int(chosen_from[:, s].argmin())
        rates[f"{share:g}"] = {
            "level": float(levels[q]),
            "capacity": _finite(matched[q, s]),
            "by_level": [_finite(value) for value in matched[:, s]],
            "planned": _planned(validation, test, q, share),
        }
    return {
        "as_is": [{"level": float(level), **_bought(test, q, 1.0)} for q, level in enumerate(levels)],
        "rates": rates,
        "curve": _curve(validation, test),
    }


def constant_capacity(validation: Bins, test: Bins) -> dict[str, Any]:
    """The planner without a forecast: one capacity for all bins. As `decision_score` gives it."""
    flat = [Bins(quantiles=np.ones((len(part.demand), 1)), demand=part.demand) for part in (validation, test)]
    return decision_score(flat[0], flat[1], (0.5,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Capacity over demand at a matched rate, on all bins and on every replicate of them.

    Attributes:
        ratio: on all bins; maybe `inf`.
        replicates: (R,) on each replicate; None where there are too few blocks.
    """

    ratio: float
    replicates: np.ndarray | None


def needed_capacity(bins: Bins, level: int, *, share: float, blocks: Blocks) -> Needed:
    """What one forecaster needs, with how it varies.

    Args:
        bins: of the test part.
        level: place of the quantile that is scaled.
        share: of bins that may fall short.
        blocks: the same for all forecasters.
    """
    point, demand = bins.quantiles[:, level], bins.demand
    ratio = float(_matched(bins, level, [share])[0])
    if blocks.starts is None:
        return Needed(ratio=ratio, replicates=None)
    need = needed_factors(point, demand)
    kept = Blocks(length=blocks.length, starts=blocks.starts[:_REPLICATES])
    bought, asked = resampled_means(point, kept), resampled_means(demand, kept)
    factors = np.empty(len(bought))
    for r in range(len(factors)):
        drawn = need[resampled_origins(kept, r)]
        place = len(drawn) - 1 - int(share * len(drawn))
        factors[r] = np.partition(drawn, place)[place]
    met = np.isfinite(factors) & (asked > 0.0)
    ratios = np.where(met, np.where(met, factors, 0.0) * bought / np.where(met, asked, 1.0), np.inf)
    return Needed(ratio=ratio, replicates=ratios)


def paired_capacity(ours: Needed, reference: Needed) -> dict[str, Any]:
    """Compare two forecasters on the same bins and blocks.

    Returns:
        As `training.bootstrap.compare`; `difference` -0.05 is a capacity less by 5 % of demand.
    """

    def less(a: Any, b: Any) -> np.ndarray:
        same = np.equal(a, b)  # both may be infinite
        return np.where(same, 0.0, np.where(same, 0.0, a) - np.where(same, 0.0, b))

    whole = float(less(ours.ratio, reference.ratio))
    if ours.replicates is None or reference.replicates is None:
        return compare(_finite(whole), None)
    return compare(_finite(whole), less(ours.replicates, reference.replicates))


def _matched(bins: Bins, q: int, shares: Sequence[float] | np.ndarray) -> np.ndarray:
    point = bins.quantiles[:, q]
    return capacity_over_demand(matched_factors(point, bins.demand, shares), point, bins.demand)


def _planned(validation: Bins, test: Bins, q: int, share: float) -> dict[str, Any]:
    factor = float(matched_factors(validation.quantiles[:, q], validation.demand, [share])[0])
    if not np.isfinite(factor):
        return {"factor": None, "capacity": None, "short": None}
    return {"factor": factor, **_bought(test, q, factor)}


def _bought(bins: Bins, q: int, factor: float) -> dict[str, Any]:
    point = bins.quantiles[:, q]
    capacity = capacity_over_demand(np.array([factor]), point, bins.demand)[0]
    # A factor that just meets a bin must not miss it by the last bit.
    short = bins.demand > point * factor * (1.0 + 1e-12)
    return {"capacity": _finite(capacity), "short": float(short.mean())}


def _curve(validation: Bins, test: Bins) -> dict[str, list[float | None]]:
    """The trade-off on test, at every share with the level that is best on validation there."""
    n = len(test.demand)
    shares = np.unique((np.array(CURVE) * n).astype(np.int64)) / n
    levels = range(test.quantiles.shape[1])
    best = np.stack([_matched(validation, q, shares + 1e-12) for q in levels]).argmin(axis=0)
    capacity = np.stack([_matched(test, q, shares + 1e-12) for q in levels])[best, np.arange(len(shares))]
    return {"short": shares.tolist(), "capacity": [_finite(value) for value in capacity]}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
