"""A scheduler in asyncio: it forecasts inside its loop, and a newer version of the model comes in beside it.

    python -m examples.asyncio_scheduler artifacts/gru

The artifact is one of single requests. `observe` and `forecast` take microseconds, so they are called in the loop as
they are; `reload` reads files and runs the model many times, so it gets a thread. Requests are drawn at random here.
"""

from __future__ import annotations

import asyncio
import random
import time

import click

from runtime import FcastError, Predictor


async def receive(predictor: Predictor) -> None:
    """Requests as they arrive."""
    while True:
        await asyncio.sleep(random.expovariate(200.0))
        predictor.observe(time.time(), random.randint(10, 2000), random.randint(1, 500))


async def plan(predictor: Predictor, every_s: float) -> None:
    """What a scheduler decides on, again and again."""
    while True:
        await asyncio.sleep(every_s)
        begun = time.perf_counter()
        forecast = predictor.forecast()
        took_us = 1e6 * (time.perf_counter() - begun)
        tokens = forecast.next_request(level=0.9).request_tokens
        version = predictor.manifest["version"]
        click.echo(f"version {version}, {forecast.source}: a prompt of up to {tokens:.0f} tokens ({took_us:.0f} µs)")


async def keep_up(predictor: Predictor, every_s: float) -> None:
    """The newest version, once it is proven; a bad one is said, and the loop never notices."""
    while True:
        try:
            if await asyncio.to_thread(predictor.reload):
                click.echo(f"version {predictor.manifest['version']} is in service")
        except FcastError as error:
            click.echo(f"not taken: {error}", err=True)
        await asyncio.sleep(every_s)


async def run(predictor: Predictor, *, seconds: float, plan_every_s: float = 0.1, look_every_s: float = 1.0) -> None:
    """All three side by side, for so long."""
    tasks = [receive(predictor), plan(predictor, plan_every_s), keep_up(predictor, look_every_s)]
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), seconds)
    except asyncio.TimeoutError:
        return


@click.command()
@click.argument("artifact", type=click.Path(exists=True))
@click.option("--seconds", type=float, default=3.0, show_default=True, help="How long it runs.")
def main(artifact: str, seconds: float) -> None:
    """Schedule with ARTIFACT (artifacts/NAME), in asyncio."""
    asyncio.run(run(Predictor(artifact), seconds=seconds))


if __name__ == "__main__":
    main()
