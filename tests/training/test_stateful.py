"""Stateful models: from a cold state a model of windows, carried on the same function of all steps before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.traces import count_trace, load_series, request_series, request_trace
from training.baselines import run_baselines
from training.carried import carried_forecasts
from training.checkpoint import load_checkpoint
from training.compare import check_runs
from training.config import build_runs
from training.errors import ConfigError
from training.metrics import wql
from training.run import prepare, train_model
from training.running import PIECE, RunningMeans
from training.series import Series
from training.stateful import State, StatefulForecaster
from training.warm_start import warm_run
from training.windows import split_windows

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
L, H = 24, 4
MADE = {
    "load": {"model": "gru", "demand": True},
    "load with a calendar": {"model": "lstm", "demand": True, "calendar": ("day",), "params": {"num_layers": 2}},
    "requests": {"model": "lstm", "anchored": True},
}
each = pytest.mark.parametrize("kind", MADE)


def series_of(kind: str) -> Series:
    return request_series() if kind == "requests" else load_series()


def made(kind: str) -> tuple[StatefulForecaster, Series]:
    torch.manual_seed(0)
    series = series_of(kind)
    settings = {"params": {}, "anchored": False} | MADE[kind]
    model = StatefulForecaster(
        bin_s=series.bin_s, channels=len(series.channels), context=L, horizon=H, levels=LEVELS, **settings
    )
    model.fit_statistics(series, split_windows(series, context=L, horizon=H, parts=(60, 20, 20)))
    with torch.no_grad():
        model.head.weight.add_(0.1 * torch.randn(model.head.weight.shape))
    return model.eval().double(), series


def given(series: Series, origins: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    at = origins[:, None] + np.arange(-L, 0)
    return torch.from_numpy(series.values[at]).double(), torch.from_numpy(series.time_s[origins - 1])


def outputs(found: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


@each
@pytest.mark.parametrize("split", [(L,), (1,) * L, (5, 1, 1, 17), (L - 1, 1)], ids=str)
@torch.no_grad()
def test_a_window_cut_anyhow_gives_the_same_forecast_from_a_cold_state(kind: str, split: tuple[int, ...]) -> None:
    model, series = made(kind)
    context, time_s = given(series, np.array([L, 60, 61]))
    times = model.step_times(time_s, L)
    state: State | None = None
    at = 0
    for steps in split:
        part = slice(at, at + steps)
        hidden, means, state = model.carry(context[:, part], None if times is None else times[:, part], state)
        at += steps
    found = outputs(model.forecast_from(hidden[:, -1], means[:, -1]))
    for got, want in zip(found, outputs(model(context, time_s)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@each
@torch.no_grad()
def test_no_step_knows_a_later_one(kind: str) -> None:
    model, series = made(kind)
    context, time_s = given(series, np.array([60]))
    times, changed = model.step_times(time_s, L), context.clone()
    changed[:, 15:] *= 3
    before, after = (model.carry(rows, times, None)[:2] for rows in (context, changed))
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :15], b[:, :15])
        assert not torch.equal(a[:, 15:], b[:, 15:])


def test_running_means_are_the_weighted_means_of_all_steps_so_far() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, PIECE + 40, 2))
    means = RunningMeans(2).double()
    means.decay.copy_(torch.tensor([0.9, 0.99]))
    means.prior.copy_(torch.tensor([0.0, 5.0]))
    means.worth.copy_(torch.tensor([0.0, 20.0]))
    found, state = means(torch.from_numpy(values))
    for t in (0, 7, PIECE, PIECE + 39):
        weights = means.decay.numpy() ** np.arange(t, -1, -1)[:, None]
        total = (values[:, : t + 1] * weights).sum(1) + np.array([0.0, 20.0 * 5.0])
        np.testing.assert_allclose(found[:, t], total / (weights.sum(0) + np.array([0.0, 20.0])), rtol=1e-12)
    assert state.shape == (2, 4)


@each
def test_carried_forecasts_begin_anew_after_a_gap(kind: str) -> None:
    model, series = made(kind)
    model = model.float()
    half = len(series) // 2
    second = np.arange(len(series)) >= half
    cut = replace(series, segment=series.segment + second)
    origins = np.array([half - 3, half + L])
    found = carried_forecasts(model, cut, origins)
    alone = carried_forecasts(model, series, origins[:1])
    np.testing.assert_allclose(found[:1], alone, rtol=1e-6)
    context, time_s = given(series, origins[1:])
    with torch.no_grad():
        want = outputs(model(context.float(), time_s))[0]
    np.testing.assert_allclose(found[1:], want.numpy(), rtol=1e-4)


@pytest.mark.parametrize("grows", [1.0, 4.0])
def test_untrained_it_is_about_the_best_recent_quantiles_also_of_another_traffic(grows: float) -> None:
    series = request_series(4000)
    values = series.values.copy()
    values[1500:, 1:] *= grows  # within the training part, so that something tells how fast to follow
    values[2600:, 1:] /= grows
    series = replace(series, values=values)
    split = split_windows(series, context=L, horizon=H, parts=(60, 20, 20))
    torch.manual_seed(0)
    model = StatefulForecaster(
        model="gru", params={}, bin_s=None, channels=3, context=L, horizon=H, levels=LEVELS, anchored=True
    )
    model.fit_statistics(series, split)
    parts = {"validation": split.validation, "test": split.test}
    settings = {"context": L, "horizon": H, "levels": LEVELS, "only": ("recent_quantiles",)}
    (bar,) = run_baselines(series, **settings, **parts)
    target = series.values[split.test[:, None] + np.arange(H)]
    score = wql(carried_forecasts(model, series, split.test), target, LEVELS).mean()
    assert score < 1.05 * wql(bar.test, target, LEVELS).mean()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model": "dlinear"}, "stateful: expected a model of lstm, gru, got dlinear"),
        ({"model": "recent_quantiles"}, "stateful: expected a model of lstm, gru, got recent_quantiles"),
        ({"recent": 8}, "recent: expected 0 with stateful"),
        ({"center": False}, "center: expected true with stateful, got false"),
        ({"series": "load", "bin_s": 10.0, "step_s": 60.0, "context": 60}, "steps of one bin, got steps of 6 bins"),
        ({"calendar": "day"}, "calendar: expected none for a stateful model of single requests, got day"),
    ],
)
def test_what_cannot_carry_a_state_says_so(settings: dict, complaint: str) -> None:
    model = settings.pop("model", "gru")
    with pytest.raises(ConfigError, match=complaint):
        build_runs([model], {"stateful": True, **settings})


def test_an_ensemble_of_stateful_models_is_refused(tmp_path: Path) -> None:
    runs = build_runs(["gru", "lstm"], {"stateful": True})
    with pytest.raises(ConfigError, match="--ensemble: expected models of windows, got stateful=true for gru, lstm"):
        check_runs(runs, tmp_path, resume=False, overwrite=False, ensemble=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stateful")
    settings = {"series": "load", "context": 12, "horizon": 2, "epochs": 2, "device": "cpu", "hidden_size": 8}
    (run,) = build_runs(["gru"], {**settings, "stateful": True})
    train_model(prepare(wave(), run.data), run, folder)
    return folder


def wave(bins: int = 400, seed: int = 1):
    rng = np.random.default_rng(seed)
    return count_trace(rng.poisson(60.0 * (1 + 0.5 * np.sin(np.arange(bins) / 4))), bin_s=60.0)


def test_training_says_what_carrying_is_worth_on_both_parts(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert isinstance(checkpoint.model, StatefulForecaster)
    carried, scores = checkpoint.meta["carried"], checkpoint.meta["scores"]
    for part in ("validation", "test"):
        assert carried[part]["windowed"] == pytest.approx(scores[part]["wql"]["mean"])
        assert 0.5 < carried[part]["carried"] / carried[part]["windowed"] < 2
        assert carried[part]["windows"] > 0


def test_a_warm_start_keeps_the_state_and_refuses_to_lose_it(trained: Path, tmp_path: Path) -> None:
    start = load_checkpoint(trained)
    run = warm_run(start, [], {"device": "cpu", "epochs": 1})
    assert run.model.stateful
    found = train_model(prepare(wave(seed=3), run.data), run, tmp_path, start=start)
    assert isinstance(found.model, StatefulForecaster)
    other = warm_run(start, [], {"device": "cpu", "stateful": False})
    with pytest.raises(ConfigError, match="--from: expected stateful = True as in that checkpoint, got False"):
        train_model(prepare(wave(seed=3), other.data), other, tmp_path / "other", start=start)


def test_requests_train_too(tmp_path: Path) -> None:
    settings = {"series": "requests", "context": 12, "horizon": 2, "epochs": 1, "device": "cpu", "hidden_size": 8}
    (run,) = build_runs(["lstm"], {**settings, "stateful": True})
    found = train_model(prepare(request_trace(300), run.data), run, tmp_path)
    assert found.meta["carried"]["test"]["carried"] > 0
