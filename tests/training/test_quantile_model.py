"""What all forecasters share: demand, order, calibration, ensembles, the scale of sparse load."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.traces import count_trace, load_series, request_series
from training.anchor import EmpiricalAnchor
from training.calibration import NONE, calibrate
from training.forecaster import Forecaster
from training.quantile_model import Ensemble
from training.series import Series, build_series
from training.windows import WindowSource, split_windows

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def made(series, *, context: int = 24, horizon: int = 4, seed: int = 0, **options) -> Forecaster:
    torch.manual_seed(seed)
    model = Forecaster(
        model="multiscale",
        params={},
        channels=len(series.channels),
        context=context,
        horizon=horizon,
        levels=LEVELS,
        **options,
    ).eval()
    model.fit_statistics(series, split_windows(series, context=context, horizon=horizon, parts=(60, 20, 20)))
    return model


def windows(series, n: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.stack([series.values[i * 20 : i * 20 + 24] for i in range(n)]))


def test_demand_is_trained_on_sums_and_peaks_of_the_steps():
    model = made(load_series(), demand=True)
    steps = torch.tensor([[[3.0], [5.0], [1.0], [7.0]]])
    raw = model.scaling.from_scale(model.targets(steps)[..., None])[0, :, :, 0]
    np.testing.assert_allclose(raw, [[3, 3, 3], [5, 4, 5], [1, 3, 5], [7, 4, 7]], rtol=1e-5)
    forecast, demand = model(windows(load_series()))
    assert forecast.shape == (5, 4, 1, 7)
    assert demand.shape == (5, 4, 2, 7)
    # Untrained, every value is the level: a sum over h steps is about h times a step.
    ratio = demand[:, :, 0, 3] / forecast[:, :, 0, 3]
    np.testing.assert_allclose(ratio.detach(), np.tile([1.0, 2.0, 3.0, 4.0], (5, 1)), rtol=0.2)


@pytest.mark.parametrize("log", [False, True])
def test_a_window_counts_as_far_as_its_errors_reach_in_raw_units(log):
    series = load_series()
    model = made(series, demand=True, log=log)
    context = windows(series) * torch.tensor([1.0, 2.0, 3.0, 5.0, 10.0])[:, None, None]
    _, level = model.scaling(context)
    raw = model.scaling.from_scale(torch.cat((level, level + 0.01), dim=1)[..., None])[..., 0]
    reach = raw.diff(dim=1)
    found = model.importance(context)
    assert found.shape == (5, 1, 3)
    torch.testing.assert_close(found, (reach / reach.mean()).expand(-1, 1, 3), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("demand", [False, True])
def test_quantiles_are_in_order_whatever_the_offsets(demand):
    model = made(load_series(), demand=demand)
    model.offset.copy_(torch.randn_like(model.offset) * 3)
    found = model(windows(load_series()))
    for quantiles in found if demand else (found,):
        assert (quantiles.diff(dim=3) >= 0).all()
        assert (quantiles >= 0).all()


def test_calibration_repairs_a_bias_and_leaves_a_calibrated_model_alone():
    series = load_series(3000)
    split = split_windows(series, context=24, horizon=4, parts=(40, 40, 20))
    source = WindowSource(series, context=24, horizon=4, device=torch.device("cpu"))
    model = made(series)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.view(4, 1, 7)[..., model.median] -= 2.0  # far too low

    def covered(origins) -> np.ndarray:
        context, time_s, target = source.gather(torch.from_numpy(origins))
        with torch.no_grad():
            return (target[..., None] <= model(context, time_s)).float().mean((0, 1, 2)).numpy()

    assert covered(split.test)[4] < 0.6
    assert calibrate(model, source, split.validation) != NONE
    np.testing.assert_allclose(covered(split.test), LEVELS, atol=0.06)
    before = model.offset.clone()
    model.offset.zero_()
    calibrate(model, source, split.validation)
    torch.testing.assert_close(model.offset, before)


def test_too_few_windows_are_not_calibrated_on():
    series = load_series(300)
    source = WindowSource(series, context=24, horizon=4, device=torch.device("cpu"))
    model = made(series)
    assert calibrate(model, source, np.arange(100, 200)) == NONE
    assert (model.offset == 0).all()


def test_an_ensemble_is_the_mean_of_its_members_on_the_working_scale():
    series = load_series()
    members = [made(series, seed=seed, demand=True) for seed in (0, 1)]
    ensemble = Ensemble(members).eval()
    x = windows(series)
    mean = (members[0].scaled_quantiles(x) + members[1].scaled_quantiles(x)) / 2
    torch.testing.assert_close(ensemble.scaled_quantiles(x), mean)
    alone = Ensemble([members[0]]).eval()
    for ours, theirs in zip(alone(x), members[0](x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_untrained_model_of_requests_is_the_best_empirical_quantiles():
    series = request_series(3000)
    model = made(series, context=200, anchored=True)
    assert model.anchor is not None
    with torch.no_grad():
        model.anchor.mix[:] = torch.tensor([0.0, 60.0, 0.0])[:, None, None]  # the last 100 alone
    x = torch.from_numpy(series.values[None, :200])
    expected = np.quantile(series.values[100:200], LEVELS, axis=0).T
    np.testing.assert_allclose(model(x)[0, 2].detach(), expected, rtol=0.02)


def test_the_anchor_begins_at_the_span_that_is_best():
    torch.manual_seed(0)
    anchor = EmpiricalAnchor(channels=1, context=500, levels=LEVELS)
    level = torch.arange(300.0)[:, None, None] % 7  # every window has a level of its own in its last 50 steps
    context = torch.rand(300, 500, 1) * 10
    context[:, -50:] = level + torch.rand(300, 50, 1)
    anchor.fit(context, level + torch.rand(300, 4, 1))
    assert anchor.spans == [50, 100, 200, 500]
    assert anchor.mix[:, 0, 0].argmax() == 0


def bursts() -> Series:
    """Mostly idle, now and then five bins of a burst of any size."""
    rng = np.random.default_rng(0)
    counts = np.repeat(np.where(rng.random(400) < 0.15, rng.lognormal(5, 1.5, 400), 0).astype(int), 5)
    return build_series(count_trace(counts, bin_s=60.0), kind="load")


def test_bursts_among_idle_bins_do_not_explode_and_none_is_none():
    series = bursts()
    model = made(series)
    torch.nn.init.zeros_(model.head.weight)
    assert model.scaling.unit[0] > 1
    forecast = model(torch.zeros(1, 24, 1))
    assert (forecast[..., model.median] == 0).all()
    assert (model(windows(series)) < 10 * series.values.max()).all()
    steady = made(load_series())
    assert steady.scaling.unit[0] == 1


def test_the_scale_of_one_request_can_be_asked_for():
    series = bursts()
    model = made(series)
    split = split_windows(series, context=24, horizon=4, parts=(60, 20, 20))
    model.fit_statistics(series, split, unit="request")
    assert model.scaling.unit[0] == 1
