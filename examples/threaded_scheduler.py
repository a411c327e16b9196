"""A scheduler in threads: one for each tenant observes, one plans for all of them at once.

    python -m examples.threaded_scheduler artifacts/gru

The artifact is one of single requests. Each tenant has a stream of its own; all share one model, and a watch takes
newer versions of it into service. Requests are drawn at random here.
"""

from __future__ import annotations

import random
import threading
import time

import click

from runtime import Predictor


def receive(predictor: Predictor, tenant: str, stop: threading.Event) -> None:
    """One tenant's requests as they arrive, into a stream that is looked up once."""
    stream = predictor.stream(tenant)
    while not stop.wait(random.expovariate(200.0)):
        stream.observe(time.time(), random.randint(10, 2000), random.randint(1, 500))


def plan(predictor: Predictor, tenants: list[str]) -> dict[str, float]:
    """For each tenant the size of prompt that its next request keeps below nine times of ten."""
    found = predictor.forecast_many(tenants)
    return {str(tenant): forecast.next_request(level=0.9).request_tokens for tenant, forecast in found.items()}


@click.command()
@click.argument("artifact", type=click.Path(exists=True))
@click.option("--seconds", type=float, default=3.0, show_default=True, help="How long it runs.")
@click.option("--every", "every_s", type=float, default=0.5, show_default=True, help="Seconds between two plans.")
def main(artifact: str, seconds: float, every_s: float) -> None:
    """Schedule with ARTIFACT (artifacts/NAME), in threads."""
    tenants, stop = ["a", "b", "c"], threading.Event()
    with Predictor(artifact) as predictor:
        predictor.watch(every_s=60.0)
        threads = [threading.Thread(target=receive, args=(predictor, tenant, stop)) for tenant in tenants]
        for thread in threads:
            thread.start()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(every_s)
            sizes = plan(predictor, tenants)
            click.echo(", ".join(f"{tenant}: up to {tokens:.0f} tokens" for tenant, tokens in sizes.items()))
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
