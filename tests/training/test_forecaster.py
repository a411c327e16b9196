"""Every registered architecture inside the shared scaling and head."""

from __future__ import annotations

import pytest
import torch

from tests.training.traces import load_series, request_series
from training.errors import ConfigError
from training.forecaster import Forecaster
from training.loss import pinball_loss
from training.registry import model_class, model_names, model_params, register_model
from training.windows import split_windows

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def forecaster(model: str, *, calendar: tuple[str, ...] = (), **options) -> Forecaster:
    torch.manual_seed(0)
    built = Forecaster(
        model=model, params={}, channels=3, context=30, horizon=4, levels=LEVELS, calendar=calendar, **options
    ).eval()
    # Random increments, so that order is not only the start's doing.
    torch.nn.init.normal_(built.head.weight, std=0.5)
    return built


def fitted(model: str, **options) -> Forecaster:
    built = forecaster(model, **options)
    series = request_series(400)
    built.scaling.fit(series, split_windows(series, context=30, horizon=4, parts=(60, 20, 20)), context=30, horizon=4)
    return built


def odd_contexts() -> torch.Tensor:
    """(6, 30, 3): real-looking, zeros, constant, one spike, huge, tiny."""
    contexts = torch.rand(6, 30, 3) * 1000
    contexts[1] = 0
    contexts[2] = 7
    contexts[3] = 0
    contexts[3, 15] = 1e6
    contexts[4] = 1e30
    contexts[5] = 1e-6
    return contexts


@pytest.mark.parametrize("model", model_names())
class TestEveryModel:
    def test_quantiles_are_finite_ordered_and_not_negative_whatever_the_context(self, model):
        forecast = fitted(model)(odd_contexts())
        assert forecast.shape == (6, 4, 3, 7)
        assert torch.isfinite(forecast).all()
        assert (forecast >= 0).all()
        assert (forecast.diff(dim=3) >= 0).all()

    def test_a_row_of_a_batch_equals_a_batch_of_one(self, model):
        built, contexts = fitted(model), odd_contexts()[:4]
        alone = torch.cat([built(row[None]) for row in contexts])
        torch.testing.assert_close(built(contexts), alone, rtol=1e-4, atol=1e-4)

    def test_it_looks_at_the_order_of_the_context(self, model):
        built, contexts = fitted(model), odd_contexts()[:1]
        assert not torch.allclose(built(contexts), built(contexts.flip(1)), rtol=1e-3)

    def test_scaling_the_load_scales_the_forecast(self, model):
        built = forecaster(model, log=False)
        built.scaling.level_spread.fill_(1e9)  # the level feature is meant to break the symmetry; mute it
        contexts = torch.rand(2, 30, 3) + 5
        built.scaling.spread.fill_(1.0)
        once = built(contexts)
        built.scaling.spread.fill_(3.0)
        torch.testing.assert_close(built(contexts * 3), once * 3, rtol=1e-3, atol=1e-3)

    def test_a_gradient_step_lowers_the_loss_of_its_own_batch(self, model):
        built = fitted(model).train()
        contexts, target = torch.rand(32, 30, 3) * 100, torch.rand(32, 4, 3) * 100
        optimizer = torch.optim.SGD(built.parameters(), lr=1e-3)
        losses = []
        for _ in range(5):
            torch.manual_seed(0)
            loss = pinball_loss(built.scaled_quantiles(contexts), built.scaling.to_scale(target), torch.tensor(LEVELS))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]

    def test_the_calendar_reaches_the_forecast_and_repeats_after_a_day(self, model):
        built = forecaster(model, calendar=("day",))
        contexts = torch.rand(1, 30, 3)
        noon, night = torch.tensor([43200.0], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)
        assert not torch.allclose(built(contexts, noon), built(contexts, night))
        torch.testing.assert_close(built(contexts, noon), built(contexts, noon + 86400 * 20000))


def test_the_scale_has_an_exact_inverse():
    scaling = fitted("dlinear").scaling
    raw = torch.tensor([[0.0, 0.0, 0.0], [1e-3, 5.0, 5.0], [10.0, 1e6, 3e4]])
    back = scaling.from_scale(scaling.to_scale(raw)[None, :, :, None])[0, :, :, 0]
    torch.testing.assert_close(back, raw, rtol=1e-5, atol=1e-6)


def test_statistics_come_from_the_training_part_only():
    series = load_series(400)
    split = split_windows(series, context=30, horizon=4, parts=(60, 20, 20))
    later = series.values.copy()
    later[split.train_end :] *= 1000
    found = []
    for values in (series.values, later):
        built = Forecaster(model="gru", params={}, channels=1, context=30, horizon=4, levels=LEVELS)
        series.values[...] = values
        built.scaling.fit(series, split, context=30, horizon=4)
        found.append(built.scaling.state_dict())
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name])


def test_a_constant_series_has_statistics_that_do_not_divide_by_zero():
    series = load_series(400)
    series.values[...] = 0
    built = Forecaster(model="gru", params={}, channels=1, context=30, horizon=4, levels=LEVELS)
    built.scaling.fit(series, split_windows(series, context=30, horizon=4, parts=(60, 20, 20)), context=30, horizon=4)
    assert torch.isfinite(built.eval()(torch.zeros(1, 30, 1))).all()


def test_a_weighted_pinball_loss_counts_a_window_as_often_as_it_weighs():
    quantiles, target = torch.rand(2, 3, 1, 7), torch.rand(2, 3, 1)
    levels = torch.tensor(LEVELS)
    weighted = pinball_loss(quantiles, target, levels, torch.tensor([1.5, 0.5])[:, None, None])
    often = [0, 0, 0, 1]
    torch.testing.assert_close(weighted, pinball_loss(quantiles[often], target[often], levels))


def test_the_pinball_loss_is_smallest_at_the_quantile():
    target = torch.arange(101.0).view(101, 1, 1)
    at = [float(pinball_loss(torch.full((101, 1, 1, 1), q), target, torch.tensor([0.9]))) for q in (80.0, 90.0, 99.0)]
    assert at[1] < min(at[0], at[2])


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="'gruu'; did you mean 'gru'"):
        model_class("gruu")


def test_an_unknown_hyper_parameter_names_the_nearest():
    with pytest.raises(ConfigError, match="'hiden_size'; did you mean 'hidden_size'"):
        Forecaster(model="gru", params={"hiden_size": 3}, channels=1, context=5, horizon=1, levels=(0.5,))


@pytest.mark.parametrize("value", ["large", 1.5, True])
def test_a_hyper_parameter_of_the_wrong_type_is_refused(value):
    with pytest.raises(ConfigError, match="gru.hidden_size: expected int"):
        Forecaster(model="gru", params={"hidden_size": value}, channels=1, context=5, horizon=1, levels=(0.5,))


def test_hyper_parameters_that_build_no_network_are_refused():
    with pytest.raises(ConfigError, match="even multiple of nhead"):
        Forecaster(model="transformer", params={"nhead": 7}, channels=1, context=5, horizon=1, levels=(0.5,))
    with pytest.raises(ConfigError, match="gru: expected hyper-parameters that build"):
        Forecaster(model="gru", params={"hidden_size": -1}, channels=1, context=5, horizon=1, levels=(0.5,))


def test_a_name_can_be_registered_once():
    with pytest.raises(ConfigError, match="expected a new name, got 'gru'"):

        @register_model("gru")
        class Other(torch.nn.Module):
            pass

    assert model_params("gru") == {"hidden_size": 64, "num_layers": 1, "dropout": 0.0}
