"""What a deadline costs: a forecast handed over to the thread beside that comes in time, next to one made in place.

    python -m benchmarks.deadline artifacts/gru [--calls 3000]

All in turns, on streams of one predictor that observe the same. `late` is a call whose deadline of 0 is over at once:
what it takes to be sent away with what stands.
"""

from __future__ import annotations

import time
from statistics import median, quantiles

import click

from runtime import Predictor

_ROUND = 50


@click.command()
@click.argument("artifact", type=click.Path(exists=True))
@click.option("--calls", default=3000, show_default=True, help="Calls of each kind.")
def main(artifact: str, calls: int) -> None:
    """Print medians and p99 in microseconds."""
    predictor = Predictor(artifact, device="cpu", breaker=False)
    kinds: dict[str, float | None] = {"in place": None, "handed over": 10.0, "late": 0.0}
    steps = dict.fromkeys(kinds, 0)
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(calls // _ROUND):
        for kind, deadline_s in kinds.items():
            stream = predictor.stream(kind)
            for i in range(_ROUND + predictor.manifest["context"] * (not steps[kind]) + 1):
                if predictor.manifest["bin_s"] is None:
                    stream.observe(float(steps[kind]), 100, 50)
                else:
                    stream.observe_bin(steps[kind] * predictor.manifest["bin_s"], 5, 500, 250)
                steps[kind] += 1
                begun = time.perf_counter_ns()
                stream.forecast(deadline_s=deadline_s)
                if i > 5:
                    took[kind].append((time.perf_counter_ns() - begun) / 1e3)
                if kind == "late":
                    stream.forecast(deadline_s=10.0)  # out of the way of the next
    click.echo(f"{'us per forecast':<16}{'p50':>8}{'p99':>8}")
    for kind, values in took.items():
        click.echo(f"{kind:<16}{median(values):>8.1f}{quantiles(values, n=100)[98]:>8.1f}")


if __name__ == "__main__":
    main()
