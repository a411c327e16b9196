"""Where the time of `observe` + `forecast` goes: each piece alone, beside the whole and raw ONNX Runtime.

    python -m benchmarks.latency_pieces --out FOLDER [--model dlinear] [--series load]

Every piece is called in short bursts, and the fastest burst counts: what the code itself takes, whatever else runs on
the core. Together they take longer, since each then finds the caches as the others left them. The models are those of
`benchmarks.latency`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.latency import pin_to_one_core
from benchmarks.latency_artifacts import trained
from runtime import Predictor
from runtime.artifact import open_artifact
from runtime.bench_subjects import Windows, observe_and_forecast
from runtime.forecast import Forecast
from runtime.golden import read_golden

_BURSTS, _CALLS = 400, 60


def fastest_us(call: Callable[..., object], given: Iterable[tuple[Any, ...]] = itertools.repeat(())) -> float:
    """Microseconds a call in the fastest of many bursts; arguments are made before the clock starts."""
    arguments, best = iter(given), float("inf")
    for _ in range(_BURSTS):
        burst = list(itertools.islice(arguments, _CALLS))
        begun = time.perf_counter_ns()
        for one in burst:
            call(*one)
        best = min(best, (time.perf_counter_ns() - begun) / len(burst) / 1e3)
    return best


def pieces(artifact: Path) -> dict[str, float]:
    """Microseconds of each."""
    predictor, other = (Predictor(artifact, device="cpu", breaker=False) for _ in range(2))
    windows = Windows(read_golden(open_artifact(artifact)))
    whole, fed = observe_and_forecast(predictor, windows), observe_and_forecast(other, windows)
    judged = observe_and_forecast(Predictor(artifact, device="cpu"), windows)
    load, model, live = predictor.manifest["kind"] == "load", predictor._model, predictor._live
    contexts, times = windows.batch(len(windows.golden.context))
    bound = model.session.take_binding()
    bound.window[...] = contexts[0]
    raw, given = bound._run, bound._given
    time_s = None if times is None else float(times[0])
    asked = live.ask(model.manifest, None)
    assert not isinstance(asked, Forecast)
    found = model.answer(asked[0], asked[1])
    assert found is not None

    def new_window(window: np.ndarray) -> None:
        bound.window[...] = window
        raw(given, None)

    def anew(call: Callable[..., object], *arguments: Any) -> None:
        live._standing = None
        call(*arguments)

    total = _BURSTS * _CALLS
    return {
        "raw onnxruntime, the same window again": fastest_us(raw, itertools.repeat((given, None))),
        "the same, another window each time": fastest_us(new_window, itertools.cycle((w,) for w in contexts)),
        "predict": fastest_us(predictor.predict, itertools.repeat((contexts[0], time_s))),
        "observe + forecast": fastest_us(whole.call, list(whole.arguments(total))),
        "the same with the breaker, on average": fastest_us(judged.call, list(judged.arguments(total))),
        "- take a step in": fastest_us(other.observe_bin if load else other.observe, list(fed.arguments(total))),
        "- ask the stream for its window": fastest_us(anew, itertools.repeat((live.ask, model.manifest, None))),
        "- answer: buffers, run, check, copy": fastest_us(model.answer, itertools.repeat((asked[0], asked[1]))),
        "- - check what came out": fastest_us(bound.outputs_are_valid),
        "- - copy it": fastest_us(bound.outputs),
        "- settle: make the forecast, count it": fastest_us(anew, itertools.repeat((live.settle, asked, found))),
        "- - make the forecast": fastest_us(
            lambda: Forecast.of(
                model.manifest, found["forecast"], start_s=0.0, source="model", aggregates=found.get("demand")
            )
        ),
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that keeps the models.")
@click.option("--model", default="dlinear", show_default=True)
@click.option("--series", default="load,requests", show_default=True)
def main(out: Path, model: str, series: str) -> None:
    """Time the pieces of one model."""
    models = trained(out, [model], series.split(","), again=False)
    pin_to_one_core()
    found = {one.name: pieces(one.artifact) for one in models}
    click.echo("| µs | " + " | ".join(found) + " |\n|---" + "|---:" * len(found) + "|")
    for piece in next(iter(found.values())):
        click.echo(f"| {piece} | " + " | ".join(f"{rows[piece]:.2f}" for rows in found.values()) + " |")


if __name__ == "__main__":
    main()
