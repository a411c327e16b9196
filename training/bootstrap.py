"""How sure a difference between two forecasters is: moving-block bootstrap over the origins (Künsch 1989).

Origins next to each other share targets and weather, so single origins are no independent samples. Whole blocks of
neighbouring origins are drawn instead, the same ones for every forecaster (paired): what made an hour hard for one
made it hard for the other, and only the difference is left.

Letters: n origins, R replicates, K blocks of `length` origins in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REPLICATES = 2000
CONFIDENCE = 0.95
SEED = 0
HOUR_S = 3600.0
FEWEST_BLOCKS = 8
"""Below this many blocks in the data an interval would be a guess."""
_BLOCKS_OF_AN_HOUR = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Blocks of origins drawn once and used for every forecaster.

    Attributes:
        length: origins in a block.
        starts: (R, K) int64 first origin of each block; None where there are too few blocks to say anything.
    """

    length: int
    starts: np.ndarray | None


def block_length(origins: np.ndarray, time_s: np.ndarray, *, horizon: int) -> int:
    """Origins in a block: at least a horizon and n^(1/3), and an hour where that leaves 20 blocks.

    Windows less than a horizon apart share targets; n^(1/3) is the usual order for dependence that fades (Künsch
    1989; Hall, Horowitz and Jing 1995); an hour outlasts most bursts of traffic.

    Args:
        origins: (n,) int64 ascending indices into the series.
        time_s: (n,) float64 seconds of the origins.
        horizon: H, steps.
    """
    n = len(origins)
    if n < 2:
        return 1
    overlap = int(np.ceil(horizon / float(np.median(np.diff(origins)))))
    apart_s = float(time_s[-1] - time_s[0]) / (n - 1)
    hour = int(HOUR_S / apart_s) if apart_s > 0 else n
    return min(n, max(overlap, int(np.ceil(n ** (1 / 3))), min(hour, n // _BLOCKS_OF_AN_HOUR), 1))


def draw_blocks(n: int, length: int) -> Blocks:
    """Draw the blocks of every replicate, with a fixed seed; as many as make up n origins or a few more."""
    count = -(-n // length)
    if count < FEWEST_BLOCKS:
        return Blocks(length=length, starts=None)
    rng = np.random.default_rng(SEED)
    return Blocks(length=length, starts=rng.integers(0, n - length + 1, (REPLICATES, count)))


def resampled_means(values: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Mean of (n,) values in every replicate: (R,) float64."""
    assert blocks.starts is not None
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    in_block = sums[blocks.length :] - sums[: len(sums) - blocks.length]
    return np.asarray(in_block[blocks.starts].mean(axis=1) / blocks.length)


def resampled_origins(blocks: Blocks, replicate: int) -> np.ndarray:
    """Places of the origins of one replicate, (K * length,) int64: for statistics that are no mean."""
    assert blocks.starts is not None
    return np.asarray((blocks.starts[replicate][:, None] + np.arange(blocks.length)).ravel())


def compare(difference: float | None, replicates: np.ndarray | None) -> dict[str, Any]:
    """A difference with its percentile interval and what follows from it; below 0 is better.

    Args:
        difference: of the scores on all origins; None where it is infinite.
        replicates: (R,) the same on every replicate; None where there are too few blocks.

    Returns:
        `difference`, `low` and `high` (None without replicates, or infinite), and `verdict`: "better",
        "worse" or "no clear difference" (the interval holds 0), or "too few origins to tell".
    """
    if replicates is None:
        return {"difference": difference, "low": None, "high": None, "verdict": "too few origins to tell"}
    tail = (1.0 - CONFIDENCE) / 2.0
    # No interpolation: a replicate may be infinite.
    low = float(np.quantile(replicates, tail, method="lower"))
    high = float(np.quantile(replicates, 1.0 - tail, method="higher"))
    verdict = "better" if high < 0.0 else "worse" if low > 0.0 else "no clear difference"
    bounds = {name: bound if np.isfinite(bound) else None for name, bound in (("low", low), ("high", high))}
    return {"difference": difference, **bounds, "verdict": verdict}


def paired_loss(loss: np.ndarray, reference: np.ndarray, blocks: Blocks) -> dict[str, Any]:
    """Compare the mean losses of two forecasters on the same origins, relative to the reference's.

    Args:
        loss: (n,) loss of each origin.
        reference: (n,) that of the forecaster to compare with.
        blocks: from `draw_blocks`.

    Returns:
        As `compare`; `difference` -0.05 is 5 % less loss than the reference.
    """
    bar = float(reference.mean())
    if bar == 0.0:
        worse = bool(loss.any())
        verdict = "worse" if worse else "no clear difference"
        return {"difference": None if worse else 0.0, "low": None, "high": None, "verdict": verdict}
    replicates = None
    if blocks.starts is not None:
        bars = resampled_means(reference, blocks)
        means = resampled_means(loss, blocks)
        replicates = np.divide(means, bars, out=np.full_like(means, np.inf), where=bars > 0.0) - 1.0
    return compare(float(loss.mean()) / bar - 1.0, replicates)
