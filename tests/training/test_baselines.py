from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training import baselines, kalman
from training.baselines import BaselineForecast, left_out, run_baselines
from training.errors import ConfigError
from training.metrics import wql
from training.residuals import Residuals
from training.series import Series

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
CONTEXT, HORIZON, STEPS = 20, 4, 700
VALIDATION, TEST = np.arange(450, 546, 3), np.arange(580, 690, 5)
POINT = ["last_value", "mean_of_last", "exponential_smoothing", "damped_holt", "kalman", "kalman_log1p"]


def _series(values: np.ndarray, *, kind: str = "requests", bin_s: float = 3600.0, cut: int = 300) -> Series:
    values = np.asarray(values, np.float32)
    names = {
        "requests": ("inter_arrival_s", "request_tokens", "response_tokens"),
        "load": ("requests", "request_tokens", "response_tokens"),
    }
    return Series(
        kind=kind,
        channels=names[kind][: values.shape[1]],
        values=values,
        time_s=np.arange(len(values)) * bin_s,
        segment=np.repeat(np.array([0, 1], np.int32), [cut, len(values) - cut]),
        clock="relative",
        bin_s=bin_s if kind == "load" else None,
        gap_s=21600.0,
    )


def _traffic(steps: int = STEPS, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    level = np.exp(np.cumsum(rng.normal(0.0, 0.05, (steps, channels)), axis=0))
    return np.round(rng.gamma(4.0, level * 25.0))


def _run(series: Series) -> dict[str, BaselineForecast]:
    found = run_baselines(series, context=CONTEXT, horizon=HORIZON, levels=LEVELS, validation=VALIDATION, test=TEST)
    return {baseline.name: baseline for baseline in found}


@pytest.mark.parametrize("kind", ["requests", "load"])
def test_every_baseline_is_finite_ordered_and_not_negative(kind: str) -> None:
    values = _traffic()
    values[::7] = 0.0
    found = _run(_series(values, kind=kind))
    assert list(found) == [*POINT, "seasonal_naive" if kind == "load" else "recent_quantiles"]
    for baseline in found.values():
        for forecast, origins in ((baseline.validation, VALIDATION), (baseline.test, TEST)):
            assert forecast.shape == (len(origins), HORIZON, 2, len(LEVELS))
            assert forecast.dtype == np.float32
            assert np.isfinite(forecast).all()
            assert (forecast >= 0.0).all()
            assert (np.diff(forecast, axis=-1) >= 0.0).all()


@pytest.mark.parametrize("kind", ["requests", "load"])
def test_a_constant_series_is_forecast_as_that_constant(kind: str) -> None:
    for baseline in _run(_series(np.full((STEPS, 1), 7.0), kind=kind)).values():
        np.testing.assert_allclose(baseline.test, 7.0, rtol=1e-5, err_msg=baseline.name)


def test_a_silent_series_is_forecast_as_silent() -> None:
    for baseline in _run(_series(np.zeros((STEPS, 1)), kind="load")).values():
        np.testing.assert_array_equal(baseline.test, 0.0, err_msg=baseline.name)


@pytest.mark.parametrize("kind", ["requests", "load"])
def test_baselines_scale_with_their_input(kind: str) -> None:
    values = _traffic()
    small, large = _run(_series(values, kind=kind)), _run(_series(values * 1024.0, kind=kind))
    for name, baseline in small.items():
        if name == "kalman_log1p":  # log1p has a unit of its own, in the planner too
            continue
        assert large[name].settings == baseline.settings
        np.testing.assert_allclose(large[name].test, baseline.test * 1024.0, rtol=1e-4, atol=1e-2, err_msg=name)


@pytest.mark.parametrize("kind", ["requests", "load"])
@pytest.mark.parametrize("origin", [TEST[0], TEST[7]])
def test_a_test_forecast_does_not_change_with_what_comes_after_its_origin(kind: str, origin: int) -> None:
    values = _traffic()
    altered = values.copy()
    altered[origin:] = altered[origin:] * 3.0 + 11.0
    before, after = _run(_series(values, kind=kind)), _run(_series(altered, kind=kind))
    for name, baseline in before.items():
        known = origin >= TEST
        assert known.any()
        assert after[name].settings == baseline.settings
        np.testing.assert_array_equal(after[name].test[known], baseline.test[known], err_msg=name)
        np.testing.assert_array_equal(after[name].validation, baseline.validation, err_msg=name)


@pytest.mark.parametrize("kind", ["requests", "load"])
def test_another_segment_has_no_influence(kind: str) -> None:
    values = _traffic()
    altered = values.copy()
    altered[:300] = 5000.0
    before, after = _run(_series(values, kind=kind)), _run(_series(altered, kind=kind))
    for name, baseline in before.items():
        np.testing.assert_allclose(after[name].test, baseline.test, rtol=1e-5, err_msg=name)


def test_a_young_segment_is_forecast_from_what_it_has() -> None:
    values = np.full((STEPS, 1), 1000.0)
    values[300:] = np.arange(STEPS - 300)[:, None] % 2 + 4.0
    series = _series(values)
    past = baselines._past(
        series, context=2, horizon=HORIZON, levels=LEVELS, origins=(np.array([302]), np.array([304]))
    )
    origins = np.array([302, 304])
    np.testing.assert_allclose(baselines._means(past, origins, 0, [{"steps": 500}])[0, :, 0], 4.5)
    np.testing.assert_allclose(baselines._last_quantiles(past, origins, 0, 500)[:, 2], 4.5)
    assert baselines._smoothed(past, origins, 0, [{"alpha": 0.01}]).max() < 5.0


def test_last_value_puts_the_median_of_its_residuals_around_the_last_step() -> None:
    series = _series(_traffic(channels=1))
    last = series.values[TEST - 1, 0]
    forecast = _run(series)["last_value"].test[:, 0, 0]
    order = np.argsort(last)
    assert (np.diff(forecast[order], axis=0) >= -1e-3).all()  # a larger last value never lowers a quantile


def test_tuning_takes_long_means_of_noise_and_short_ones_of_a_walk_per_channel() -> None:
    rng = np.random.default_rng(6)
    noise, walk = rng.normal(0.0, 10.0, STEPS) + 200.0, np.cumsum(rng.normal(0.0, 10.0, STEPS)) + 1000.0
    settings = _run(_series(np.stack([noise, walk], axis=1)))["mean_of_last"].settings
    assert int(settings["steps[inter_arrival_s]"]) >= 20
    assert settings["steps[request_tokens]"] == 2


def test_seasonal_naive_repeats_yesterday_even_beyond_a_day() -> None:
    values = np.tile(np.arange(24.0), 30)[:STEPS, None]
    series = _series(values, kind="load")
    found = run_baselines(
        series, context=CONTEXT, horizon=30, levels=LEVELS, validation=np.arange(400, 500, 9), test=TEST[:5]
    )
    seasonal = next(baseline for baseline in found if baseline.name == "seasonal_naive")
    target = series.values[TEST[:5, None] + np.arange(30)]
    assert wql(seasonal.test, target, LEVELS)[0] == 0.0


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (_series(_traffic()), "needs a `load` series"),
        (_series(_traffic(), kind="load", bin_s=7000.0), "no whole number of bins"),
        (_series(_traffic(), kind="load", bin_s=100.0), "0% of the validation origins have a day of history"),
    ],
)
def test_a_missing_season_says_why(series: Series, reason: str) -> None:
    assert "seasonal_naive" not in _run(series)
    assert reason in left_out(series, validation=VALIDATION, test=TEST)["seasonal_naive"]


def test_origins_without_a_day_of_history_take_the_mean_of_their_segment_when_they_are_few() -> None:
    values = np.tile(np.arange(24.0), 30)[:STEPS, None]
    series = _series(values, kind="load", cut=430)
    few, many = np.arange(452, 546, 3), np.arange(452, 458)
    options = {"context": 10, "horizon": HORIZON, "levels": LEVELS, "test": TEST, "only": ("seasonal_naive",)}
    (found,) = run_baselines(series, **options, validation=few)
    assert found.validation[0, 0, 0, 2] == pytest.approx(values[430:452].mean(), rel=0.2)  # 452 has 22 hours
    assert left_out(series, validation=few, test=TEST, only=("seasonal_naive",)) == {}
    assert run_baselines(series, **options, validation=many[:3]) == []
    reason = "33% of the validation origins have a day of history in their segment, less than half"
    assert left_out(series, validation=many[:3], test=TEST)["seasonal_naive"] == reason


def test_smoothing_weights_equal_the_recursion_of_damped_holt() -> None:
    values, alpha, beta, phi = _traffic(channels=1), 0.3, 0.1, 0.9
    past = baselines._past(
        _series(values, cut=300), context=1, horizon=HORIZON, levels=LEVELS, origins=(VALIDATION, TEST)
    )
    point = baselines._smoothed(past, np.array([500]), 0, [{"alpha": alpha, "beta": beta, "phi": phi}])
    level, trend = values[300, 0], 0.0
    for value in values[301:500, 0]:
        new = alpha * value + (1 - alpha) * (level + phi * trend)
        level, trend = new, beta * (new - level) + (1 - beta) * phi * trend
    expected = [level + sum(phi**k for k in range(1, h + 1)) * trend for h in range(1, HORIZON + 1)]
    np.testing.assert_allclose(point[0, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("log1p", [False, True])
def test_kalman_equals_the_textbook_filter_in_matrices(log1p: bool) -> None:
    values = _traffic(steps=120, channels=1)[:, 0]
    values[:3] = 0.0  # an idle start is skipped, as the planner does
    level, trend = kalman.filter_states(values, np.array([0]), log1p=log1p)
    seen = np.log1p(values) if log1p else values
    f, h, q = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]), np.diag([1.0, 0.1])
    x, p = np.array([seen[3], 0.0]), 1000.0 * np.eye(2)
    for t in range(4, len(values)):
        x, p = f @ x, f @ p @ f.T + q
        gain = (p @ h.T / (h @ p @ h.T + 10.0))[:, 0]
        x, p = x + gain * (seen[t] - x[0]), (np.eye(2) - gain[:, None] @ h) @ p
        expected = x if t >= 7 else [seen[t], 0.0]  # the fifth point counted from step 3 is step 7
        np.testing.assert_allclose([level[t], trend[t]], expected, rtol=1e-9)
    back = np.expm1 if log1p else np.asarray
    forecast = kalman.extrapolate(level[-1:], trend[-1:], 3, log1p=log1p)
    np.testing.assert_allclose(forecast[0], np.maximum(back(x[0] + np.arange(1, 4) * x[1]), 0.0), rtol=1e-9)


def test_recent_quantiles_are_those_of_the_last_steps() -> None:
    rng = np.random.default_rng(4)
    series = _series(rng.gamma(2.0, 3.0, (STEPS, 3)), cut=10)
    baseline = _run(series)["recent_quantiles"]
    for c, channel in enumerate(series.channels):
        steps = int(baseline.settings[f"steps[{channel}]"])
        origin = TEST[3]
        window = series.values[max(10, origin - steps) : origin, c]
        np.testing.assert_allclose(baseline.test[3, 2, c], np.quantile(window, LEVELS), rtol=1e-5)


@pytest.mark.parametrize(("noise", "kind"), [("multiplied", "log-ratio"), ("added", "additive")])
def test_residuals_take_the_form_of_the_noise(noise: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    point = rng.uniform(20.0, 2000.0, (4000, 1))
    draw = rng.normal(0.0, 1.0, point.shape)
    target = point * np.exp(0.3 * draw) if noise == "multiplied" else np.maximum(point + 300 + 30 * draw, 0.0)
    fitted = Residuals.fit(point, target, levels=LEVELS)
    assert fitted.kind == kind
    covered = (target[..., None] <= fitted.quantiles(point)).mean(axis=(0, 1))
    np.testing.assert_allclose(covered, LEVELS, atol=0.002)


@pytest.mark.parametrize(
    ("validation", "test", "match"),
    [
        (np.array([], np.int64), TEST, "expected validation origins, got none"),
        (
            np.array([305]),
            TEST,
            "expected 20 steps before and 4 from every validation origin .* got origin 305",
        ),
        (VALIDATION, np.array([STEPS - 1]), "every test origin .* got origin 699"),
        (np.array([5]), TEST, "every validation origin .* got origin 5"),
        (np.array([298]), TEST, "every validation origin .* got origin 298"),
    ],
)
def test_origins_without_room_are_refused(validation: np.ndarray, test: np.ndarray, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        run_baselines(
            _series(_traffic()),
            context=CONTEXT,
            horizon=HORIZON,
            levels=LEVELS,
            validation=validation,
            test=test,
        )


def test_many_windows_are_forecast_in_chunks_like_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    series = _series(_traffic())
    whole = _run(series)
    monkeypatch.setattr(baselines, "CHUNK", 7)
    for name, baseline in _run(replace(series)).items():
        np.testing.assert_allclose(baseline.test, whole[name].test, rtol=1e-6, err_msg=name)


def test_without_a_test_part_and_for_some_only_the_validation_forecasts_are_the_same() -> None:
    series = _series(_traffic(), kind="load")
    options = {"context": CONTEXT, "horizon": HORIZON, "levels": LEVELS, "validation": VALIDATION}
    whole = _run(series)
    for only in (None, ("last_value", "damped_holt")):
        found = {b.name: b for b in run_baselines(series, **options, test=TEST[:0], only=only)}
        assert set(found) == set(only or whole)
        for name, baseline in found.items():
            np.testing.assert_array_equal(baseline.validation, whole[name].validation)
            assert baseline.test.shape == (0, HORIZON, 2, len(LEVELS))
    assert "seasonal_naive" not in left_out(series, validation=VALIDATION, test=TEST[:0])
