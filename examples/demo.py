"""The whole job on a synthetic trace: describe, train, export, verify, stream, forecast, draw. `make demo` runs it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from examples.fan_chart import draw_fan_chart
from runtime import Forecast, Predictor
from training.readers import read_trace

_BIN_S = 60.0
_LEAD_TIME_S = 300.0
_STREAMED_S = 6 * 3600.0


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Output folder.")
@click.option("--days", type=float, default=4.0, show_default=True, help="Length of the synthetic trace.")
@click.option("--epochs", type=int, default=10, show_default=True, help="Most training epochs.")
def main(out: Path, days: float, epochs: int) -> None:
    """From nothing to a live forecast."""
    started = time.perf_counter()
    for folder in ("runs", "artifacts"):  # only what an earlier demo made
        shutil.rmtree(out / folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    trace = out / "synthetic.csv"

    _run("fcast-trace", "synth", trace, "--days", days, "--rate", "0.5", "--seed", "7", "--force")
    _run("fcast-trace", "describe", trace, "--plot", out / "trace.png", "--force")
    train = ["--trace", trace, "--series", "load", "--bin", f"{_BIN_S:g}", "--context", "60", "--model", "gru,dlinear"]
    _run("fcast-train", *train, "--epochs", epochs, "--out", out / "runs")
    export = ["--format", "onnx", "--format", "torchscript", "--out", out / "artifacts"]
    _run("fcast-export", out / "runs" / "gru", *export)
    _run("fcast-verify", out / "artifacts" / "gru")

    print("\n$ python: runtime.Predictor streams the last six hours, request by request")
    picture = out / "forecast.png"
    forecast = _stream(out / "artifacts" / "gru", trace, picture)
    print(_in_words(forecast))
    print(f"\nPictures: {picture}, {out / 'trace.png'}, {out / 'runs/gru/loss.png'}")
    print(f"Done in {time.perf_counter() - started:.0f} s. Next: the same with your own trace, see README.md.")


def _run(command: str, *arguments: object) -> None:
    words = [command, *map(str, arguments)]
    print(f"\n$ {shlex.join(words)}", flush=True)
    result = subprocess.run([str(Path(sys.executable).with_name(command)), *words[1:]], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def _stream(artifact: Path, trace: Path, picture: Path) -> Forecast:
    """Replay the end of the trace; the very last bins are held back, to be compared with the last forecast."""
    requests = read_trace([trace])
    assert requests.request_tokens is not None
    assert requests.response_tokens is not None
    predictor = Predictor(artifact)
    horizon = predictor.manifest["horizon"]
    end_s = (requests.time_s[-1] // _BIN_S) * _BIN_S
    stop_s = end_s - horizon * _BIN_S
    first = int(np.searchsorted(requests.time_s, stop_s - _STREAMED_S))
    last = int(np.searchsorted(requests.time_s, stop_s))

    forecasts: list[Forecast] = []
    busy = 0.0
    for i in range(first, last):
        tick = time.perf_counter()
        predictor.observe(requests.time_s[i], requests.request_tokens[i], requests.response_tokens[i])
        forecast = predictor.forecast()
        busy += time.perf_counter() - tick
        if forecast.source == "model" and (not forecasts or forecast is not forecasts[-1]):
            forecasts.append(forecast)
    forecasts.append(predictor.forecast(now_s=stop_s))
    count = last - first
    print(
        f"{count} requests observed on {predictor.device} ({predictor.providers[0]}), {len(forecasts)} forecasts, "
        f"{busy / count * 1e6:.0f} us a request"
    )

    start_s = np.arange(requests.time_s[first] // _BIN_S + 1, end_s // _BIN_S) * _BIN_S
    actual = np.histogram(requests.time_s, bins=np.append(start_s, end_s))[0]
    draw_fan_chart(
        picture, start_s=start_s, actual=actual, forecasts=forecasts, title="Forecast of a synthetic trace, GRU"
    )
    return forecasts[-1]


def _in_words(forecast: Forecast) -> str:
    assert forecast.start_s is not None
    assert forecast.step_s is not None
    lines = [f"\n{'minute':<14}{'requests: likely':>17}{'50 % between':>16}{'95 % at most':>14}{'99 % at most':>14}"]
    for step in range(len(forecast.values)):
        minutes = round((forecast.start_s + step * forecast.step_s) / 60)
        at = f"day {minutes // 1440 + 1}, {minutes // 60 % 24:02d}:{minutes % 60:02d}"
        low, likely, high, most, nearly_all = (forecast.at(q)[step, 0] for q in (0.25, 0.5, 0.75, 0.95, 0.99))
        between = f"{low:.0f} - {high:.0f}"
        lines.append(f"{at:<14}{likely:>17.0f}{between:>16}{most:>14.0f}{nearly_all:>14.0f}")
    requests, request_tokens, response_tokens = forecast.demand(_LEAD_TIME_S, level=0.9)
    lines.append(
        f"A replica that takes {_LEAD_TIME_S / 60:g} minutes to start should be ready for {requests:.0f} requests with "
        f"{request_tokens:,.0f} prompt and {response_tokens:,.0f} answer tokens (level 0.9)."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
