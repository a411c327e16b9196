"""What the circuit breaker does on a real trace, while the model is right and while it is not, and what it costs.

    python -m benchmarks.breaker --trace TRACE --run runs/gru --artifact artifacts/gru

What the model was not fitted on goes through `runtime.Predictor` step by step, with the breaker and without it: as it
is; with traffic that changes after a third of the way, for good; and with a model that says something else in the
second third. A forecast is asked for after every step and scored by wQL on what came.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import describe_machine
from runtime import Forecast, Predictor
from runtime.rivals import NAMES, rivals_of
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.metrics import wql
from training.readers import read_trace
from training.run import prepare

EVERY = 10
"""Steps between two looks at `stats`."""
BLOCK = 250
"""Steps that one of two predictors is timed for before the other one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is changed: the steps from a third of the way on, or the model's answers in the second third."""

    name: str
    steps: Callable[[np.ndarray, str], np.ndarray] | None = None
    model: Callable[[np.ndarray], np.ndarray] | None = None


def tripled(rows: np.ndarray, kind: str) -> np.ndarray:
    """Three times the traffic, most of it in every fifth step."""
    wave = np.where(np.arange(len(rows)) % 5 == 0, 3.0, 0.5)[:, None]
    if kind == "load":
        return rows * 3.0 * wave
    return rows * np.concatenate((1 / (3.0 * wave), wave, wave), axis=1)


SCENARIOS = (
    Scenario(name="as it is"),
    Scenario(name="traffic x3, in bursts", steps=tripled),
    Scenario(name="model 100x off", model=lambda values: values * 100.0),
    Scenario(name="model halved", model=lambda values: values * 0.5),
    Scenario(name="model a constant", model=lambda values: np.full_like(values, 1.0)),
    Scenario(name="model without spread", model=lambda values: np.repeat(values[..., 3:4], values.shape[-1], axis=-1)),
)


class Feed:
    """A predictor that is given the steps of a series one by one, and forecasts after each.

    Args:
        artifact: its folder.
        breaker: as `Predictor`.
        change: of the model's values, while `spoilt`.
    """

    def __init__(
        self, artifact: Path, *, breaker: bool, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.predictor = Predictor(artifact, device="cpu", breaker=breaker)
        self.spoilt = False
        self.kind = self.predictor.manifest["kind"]
        self._at_s: float | None = None
        if change is not None:
            model = self.predictor._model
            answer = model.answer

            def changed(window: np.ndarray, time_s: float | None) -> dict[str, np.ndarray] | None:
                found = answer(window, time_s)
                if found is None or not self.spoilt:
                    return found
                return {"forecast": change(found["forecast"]).astype(np.float32)}

            model.answer = changed  # type: ignore[method-assign]

    def __call__(self, time_s: float, row: list[float]) -> Forecast:
        """Give a step, and forecast."""
        if self.kind == "load":
            self.predictor.observe_bin(time_s, *row)
        else:
            if self._at_s is None:
                self._at_s = 0.0
                self.predictor.observe(self._at_s, 0, 0)
            self._at_s += row[0]
            self.predictor.observe(self._at_s, *row[1:])
        return self.predictor.forecast()


def played(feed: Feed, times: np.ndarray, rows: np.ndarray, spoilt: range) -> tuple[list[Forecast], np.ndarray]:
    """The forecast after each step, and whether `stats` said that the traffic had drifted."""
    found, drifts = [], np.zeros(len(rows), bool)
    for i, (time_s, row) in enumerate(zip(times.tolist(), rows.tolist(), strict=True)):
        feed.spoilt = i in spoilt
        found.append(feed(time_s, row))
        judged = feed.predictor.stats()["judged"] if i % EVERY == 0 else None
        drifts[i] = drifts[i - 1] if judged is None else judged["drift"]
    return found, drifts


def scored(scenario: Scenario, artifact: Path, times: np.ndarray, rows: np.ndarray, kind: str) -> dict[str, Any]:
    """One scenario with the breaker and without."""
    third = len(rows) // 3
    if scenario.steps is not None:
        rows = np.concatenate((rows[:third], scenario.steps(rows[third:], kind)))
    rows = rows.astype(np.float32)
    end = 2 * third if scenario.model is not None else len(rows) if scenario.steps is not None else third
    feed = Feed(artifact, breaker=True, change=scenario.model)
    found, drifts = played(feed, times, rows, range(third, end))
    plain, _ = played(Feed(artifact, breaker=False, change=scenario.model), times, rows, range(third, end))
    m = feed.predictor._model.manifest
    at: np.ndarray = np.arange(m.context, len(rows) - m.horizon * m.steps_per_forecast_step)
    target = came(rows, at, horizon=m.horizon, ratio=m.steps_per_forecast_step)
    beside = [rivals_of(m).beside(plain[i].values, rows[i - m.context + 1 : i + 1]) for i in at]
    said = {"breaker": np.stack([found[i].values for i in at])}
    said |= {name: np.stack([one[k] for one in beside]) for k, name in enumerate(("model", *NAMES))}
    is_open = np.array([found[i].source.startswith("fallback") for i in at])
    parts = {
        "changed": (at >= third) & (at < end),
        "while open": is_open,
        "otherwise": (at < third) | (at >= end),
    }
    scores = {
        part: {
            name: float(wql(values[within], target[within], m.levels).mean()) if within.any() else None
            for name, values in said.items()
        }
        for part, within in parts.items()
    }
    switches = np.diff(is_open.astype(int), prepend=0)
    return {
        "scenario": scenario.name,
        "forecasts": len(at),
        "judged": feed.predictor._live._breaker.judge.judged,  # type: ignore[union-attr]
        "opened_after": (at[switches > 0] - third).tolist(),
        "closed_after": (at[switches < 0] - end).tolist(),
        "drift": {part: float(drifts[at][within].mean()) for part, within in parts.items() if within.any()},
        "sources": sorted({found[i].source for i in at}),
        "wql": scores,
    }


def came(rows: np.ndarray, at: np.ndarray, *, horizon: int, ratio: int) -> np.ndarray:
    """(n, H, C): what each forecast step held, for forecasts made after the rows `at`."""
    ahead = np.lib.stride_tricks.sliding_window_view(rows.astype(np.float64), horizon * ratio, axis=0)[at + 1]
    return ahead.transpose(0, 2, 1).reshape(len(at), horizon, ratio, -1).sum(axis=2)


def cost(artifact: Path, times: np.ndarray, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Of `observe` and `forecast` with the breaker and without, by turns: CPU in all, and the median of the second."""
    feeds = {"with": Feed(artifact, breaker=True), "without": Feed(artifact, breaker=False)}
    cpu_ns, medians = dict.fromkeys(feeds, 0), {name: [] for name in feeds}  # type: dict[str, int], dict[str, list[float]]
    blocks = range(0, len(rows) - BLOCK, BLOCK)
    for start in blocks:
        for name in sorted(feeds, reverse=bool(start // BLOCK % 2)):
            took_ns = []
            steps = list(zip(times[start : start + BLOCK].tolist(), rows[start : start + BLOCK].tolist(), strict=True))
            begun_ns = time.thread_time_ns()
            for time_s, row in steps:
                now_ns = time.perf_counter_ns()
                feeds[name](time_s, row)
                took_ns.append(time.perf_counter_ns() - now_ns)
            cpu_ns[name] += time.thread_time_ns() - begun_ns
            medians[name].append(float(np.median(took_ns)))
    return {
        name: {"cpu_us": cpu_ns[name] / 1e3 / len(blocks) / BLOCK, "median_us": float(np.median(medians[name])) / 1e3}
        for name in sorted(feeds)
    }


@click.command()
@click.option("--trace", "traces", multiple=True, required=True, help="The trace that the model was trained on.")
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True, help="Run folder of fcast-train.")
@click.option("--artifact", type=click.Path(path_type=Path), required=True, help="Its export.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(traces: tuple[str, ...], folder: Path, artifact: Path, as_json: bool) -> None:
    """Forecasts with and without the circuit breaker, while the model is right and while it is not."""
    checkpoint = load_checkpoint(folder)
    data = prepare(read_trace(traces), RunConfig.from_dict(checkpoint.meta["config"]).data)
    begin = int(min(data.split.validation[0], data.split.test[0]))
    rows, times = data.series.values[begin:].astype(np.float64), data.series.time_s[begin:]
    if data.series.segment[begin] != data.series.segment[-1]:
        raise click.UsageError(f"{traces[0]}: expected validation and test parts without a gap; give another trace")
    warnings.simplefilter("ignore", RuntimeWarning)  # of a clock that is not of today
    results = [scored(scenario, artifact, times, rows, data.series.kind) for scenario in SCENARIOS]
    spent = cost(artifact, times, rows)
    if as_json:
        click.echo(json.dumps({"scenarios": results, "cost": spent, "machine": describe_machine()}))
    else:
        click.echo("\n".join(_table(results, spent)))


def _table(results: list[dict[str, Any]], spent: dict[str, dict[str, float]]) -> list[str]:
    columns = [("changed", "model"), ("changed", "breaker"), ("while open", "breaker")]
    columns += [("while open", name) for name in NAMES] + [("otherwise", "model"), ("otherwise", "breaker")]
    lines = ["steps until opened, and closed again; then wQL", " | ".join(f"{part}: {name}" for part, name in columns)]
    for result in results:
        scores = [result["wql"][part][name] for part, name in columns]
        cells = ["-" if score is None else f"{score:.4f}" for score in scores]
        lines.append(f"{result['scenario']:<22}{result['opened_after']!s:>8}{result['closed_after']!s:>8}")
        lines[-1] += "".join(f"{cell:>10}" for cell in cells)
    for result in results:
        shares = ", ".join(f"{part} {share:.1%}" for part, share in result["drift"].items())
        lines += [
            f"{result['scenario']}: {result['judged']} of {result['forecasts']} forecasts judged, drift: {shares}"
        ]
        lines += [f"  {source}" for source in result["sources"]]
    for name, one in spent.items():
        lines.append(
            f"{name} breaker: median {one['median_us']:.2f} us, CPU {one['cpu_us']:.2f} us, observe + forecast"
        )
    return lines


if __name__ == "__main__":
    main()
