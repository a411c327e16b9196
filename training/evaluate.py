"""Every score of every forecaster on one trace, with how sure the differences are: what `fcast-backtest` reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.baselines import left_out
from training.bootstrap import CONFIDENCE, REPLICATES, SEED, Blocks, block_length, draw_blocks, paired_loss
from training.decision import (
    SHARES,
    Bins,
    bins_ahead,
    constant_capacity,
    decision_score,
    lead_step,
    needed_capacity,
    paired_capacity,
)
from training.demand import demand_score
from training.forecasts import Forecasts, Ground, ground_of
from training.metrics import coverage, quantile_loss, scores
from training.run import Data

HOURS = 24
_FEWEST_HOURS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """The outcome on one trace.

    Attributes:
        report: every number, as JSON values; see `evaluate`.
        data: what was forecast.
        ground: its scored part.
        forecasts: of models and baselines, in the order of `report["forecasters"]`; for pictures.
    """

    report: dict[str, Any]
    data: Data
    ground: Ground
    forecasts: list[Forecasts]


def evaluate(
    data: Data,
    forecasts: Sequence[Forecasts],
    *,
    lead_time_s: float | None = None,
    refit: int = 0,
    notes: Sequence[str] = (),
) -> Backtest:
    """Score forecasters against each other.

    Args:
        data: what was forecast.
        forecasts: at least one baseline among them, and one model.
        lead_time_s: seconds until ordered capacity is ready; a load series only. The whole horizon if None.
        refit: pieces of the test part that were refitted, 0 for fixed models; for the report.
        notes: what a reader of the scores must know; for the report.

    Returns:
        The report has `trace`, `split`, `kind`, `channels`, `levels`, `step_s`, `horizon`, `refit`, `notes`,
        `uncertainty`, `lead_time_s`, `lead_step`, `constant_capacity` (by channel), `best_model`, `best_baseline`,
        `best_planner`, `left_out` and `forecasters`, best test wQL first. A forecaster has `name`, `model`, its facts,
        `validation` and `test` (as `metrics.scores`; test also `coverage_steps` {channel: [H][Q]} and `by_hour` [24] or
        None), `difference` from the best baseline's test wQL (relative; None for itself), and for a load series
        `decision` by channel, the first channel's with `difference` {share: ...} from the best planner among the
        baselines, and `demand` up to the lead time (as `demand.demand_score`).

    Raises:
        ConfigError: the lead time is beyond the horizon.
    """
    ground = ground_of(data)
    levels, channels = data.config.levels, ground.series.channels
    targets = {part: ground.target(part) for part in ("validation", "test")}
    hours = _hours(ground)
    losses, rows = {}, []
    for found in forecasts:
        loss = quantile_loss(found.test, targets["test"], levels)
        losses[found.name] = _per_origin(loss, targets["test"])
        rows.append(
            {
                "name": found.name,
                "model": found.model,
                **found.facts,
                **{part: scores(getattr(found, part), target, levels, channels) for part, target in targets.items()},
            }
        )
        rows[-1]["test"]["coverage_steps"] = _coverage_steps(found.test, targets["test"], levels, channels)
        rows[-1]["test"]["by_hour"] = _by_hour(loss, targets["test"], hours)
    best_baseline = min((row for row in rows if not row["model"]), key=_test_wql)["name"]
    best_model = min((row for row in rows if row["model"]), key=lambda row: float(row["validation"]["wql"]["mean"]))
    length = block_length(ground.test, ground.series.time_s[ground.test], horizon=ground.horizon)
    blocks = draw_blocks(len(ground.test), length)
    for row in rows:
        own = row["name"] == best_baseline
        row["difference"] = None if own else paired_loss(losses[row["name"]], losses[best_baseline], blocks)
    report = {
        **_facts(data, ground),
        "refit": refit,
        "notes": list(notes),
        "uncertainty": {
            "method": "moving-block bootstrap, paired, over test origins",
            "block_origins": length,
            "replicates": REPLICATES if blocks.starts is not None else 0,
            "confidence": CONFIDENCE,
            "seed": SEED,
        },
        "best_model": best_model["name"],
        "best_baseline": best_baseline,
        **_decisions(rows, forecasts, ground, targets, levels, blocks, lead_time_s),
        "left_out": {
            name: why
            for name, why in left_out(ground.series, validation=ground.validation, test=ground.test).items()
            if name not in losses
        },
        "forecasters": sorted(rows, key=_test_wql),
    }
    by_name = {found.name: found for found in forecasts}
    return Backtest(
        report=report,
        data=data,
        ground=ground,
        forecasts=[by_name[row["name"]] for row in report["forecasters"]],
    )


def _test_wql(row: dict[str, Any]) -> float:
    return float(row["test"]["wql"]["mean"])


def _facts(data: Data, ground: Ground) -> dict[str, Any]:
    series, time_s = ground.series, ground.series.time_s
    return {
        "trace": {
            "sources": list(data.trace.sources),
            "fingerprint": data.trace.fingerprint(),
            "rows": len(data.trace),
            "steps": len(series),
            "segments": len(np.unique(series.segment)),
            "clock": data.trace.clock,
            "notes": list(data.trace.notes),
        },
        "split": {
            "validation": len(ground.validation),
            "test": len(ground.test),
            "validation_from_s": float(time_s[ground.validation[0]]),
            "test_from_s": float(time_s[ground.test[0]]),
            "test_to_s": float(time_s[ground.test[-1] + ground.horizon - 1]),
        },
        "kind": series.kind,
        "channels": list(series.channels),
        "levels": list(data.config.levels),
        "step_s": series.bin_s,
        "horizon": ground.horizon,
    }


def _per_origin(loss: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) share of each origin in the mean wQL: its losses over the mean target of their channel."""
    scale = np.abs(target.astype(np.float64)).mean(axis=(0, 1))
    return np.asarray((loss.mean(axis=1) / np.where(scale > 0.0, scale, 1.0)).mean(axis=1))


def _coverage_steps(
    forecast: np.ndarray, target: np.ndarray, levels: Sequence[float], channels: Sequence[str]
) -> dict[str, list[list[float]]]:
    steps = [coverage(forecast[:, h : h + 1], target[:, h : h + 1], levels) for h in range(target.shape[1])]
    return {name: np.stack(steps)[:, c].tolist() for c, name in enumerate(channels)}


def _hours(ground: Ground) -> np.ndarray | None:
    """(n, H) hour of the day of every test target, UTC for wall-clock traces; None when too few hours occur."""
    hours = (ground.target_time_s("test") // 3600 % HOURS).astype(np.int64)
    return hours if len(np.unique(hours)) >= _FEWEST_HOURS else None


def _by_hour(loss: np.ndarray, target: np.ndarray, hours: np.ndarray | None) -> list[float | None] | None:
    """Mean wQL over the channels in each hour of the day; None for an hour without any target."""
    if hours is None:
        return None
    by_channel = []
    for c in range(target.shape[2]):
        total = np.bincount(hours.ravel(), weights=loss[..., c].ravel(), minlength=HOURS)
        scale = np.bincount(hours.ravel(), weights=np.abs(target[..., c]).ravel(), minlength=HOURS)
        by_channel.append(np.divide(total, scale, out=np.full(HOURS, np.nan), where=scale > 0.0))
    return [float(value) if np.isfinite(value) else None for value in np.mean(by_channel, axis=0)]


def _decisions(
    rows: list[dict[str, Any]],
    forecasts: Sequence[Forecasts],
    ground: Ground,
    targets: dict[str, np.ndarray],
    levels: Sequence[float],
    blocks: Blocks,
    lead_time_s: float | None,
) -> dict[str, Any]:
    """Give every row its `decision` and `demand`; returns what the report says about them in common."""
    step_s = ground.series.bin_s
    if step_s is None:
        for row in rows:
            row["decision"] = row["demand"] = None
        return {"lead_time_s": None, "constant_capacity": None, "best_planner": None}
    step = lead_step(lead_time_s, step_s=step_s, horizon=ground.horizon)

    def bins(found: Forecasts, part: str, c: int) -> Bins:
        return bins_ahead(getattr(found, part), targets[part], step=step, channel=c)

    channels = ground.series.channels
    for row, found in zip(rows, forecasts, strict=True):
        row["decision"] = {
            name: decision_score(bins(found, "validation", c), bins(found, "test", c), levels)
            for c, name in enumerate(channels)
        }
        row["demand"] = demand_score(
            found.demand, found.test, targets["test"], step=step, levels=levels, channels=channels
        )
    best = _best_planner(rows, channels[0])
    needed = {
        row["name"]: {
            share: needed_capacity(
                bins(found, "test", 0), _level(row, channels[0], share, levels), share=share, blocks=blocks
            )
            for share in SHARES
        }
        for row, found in zip(rows, forecasts, strict=True)
    }
    for row in rows:
        row["decision"][channels[0]]["difference"] = (
            None
            if row["name"] == best
            else {f"{share:g}": paired_capacity(needed[row["name"]][share], needed[best][share]) for share in SHARES}
        )
    return {
        "lead_time_s": (step + 1) * step_s if lead_time_s is None else lead_time_s,
        "lead_step": step,
        "constant_capacity": {
            name: constant_capacity(bins(forecasts[0], "validation", c), bins(forecasts[0], "test", c))
            for c, name in enumerate(channels)
        },
        "best_planner": best,
    }


def _best_planner(rows: Sequence[dict[str, Any]], channel: str) -> str:
    """The baseline that needs the least capacity, at the lowest rate of shortage."""

    def needed(row: dict[str, Any]) -> float:
        capacity = row["decision"][channel]["rates"][f"{SHARES[0]:g}"]["capacity"]
        return float("inf") if capacity is None else float(capacity)

    return str(min((row for row in rows if not row["model"]), key=needed)["name"])


def _level(row: dict[str, Any], channel: str, share: float, levels: Sequence[float]) -> int:
    return list(levels).index(row["decision"][channel]["rates"][f"{share:g}"]["level"])
