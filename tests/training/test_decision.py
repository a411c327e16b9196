"""The planner's score: what an oracle, a biased forecast and no forecast at all need."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.bootstrap import draw_blocks, resampled_origins
from training.decision import (
    Bins,
    bins_ahead,
    constant_capacity,
    decision_score,
    lead_step,
    needed_capacity,
    paired_capacity,
)
from training.errors import ConfigError
from training.metrics import capacity_ratio

RNG = np.random.default_rng(0)
DEMAND = RNG.gamma(4.0, 25.0, 2000)


def bins(*quantiles, demand=DEMAND):
    return Bins(quantiles=np.stack(quantiles, axis=1), demand=demand)


def test_an_oracle_needs_exactly_the_demand_and_is_never_short():
    found = decision_score(bins(DEMAND), bins(DEMAND), (0.5,))
    assert found["as_is"] == [{"level": 0.5, "capacity": 1.0, "short": 0.0}]
    assert found["rates"]["0.01"]["planned"] == {"factor": 1.0, "capacity": 1.0, "short": 0.0}
    assert np.allclose(found["curve"]["capacity"], 1.0)


def test_a_bias_known_from_validation_costs_nothing():
    found = decision_score(bins(DEMAND / 2), bins(DEMAND / 2), (0.5,))
    assert found["rates"]["0.05"]["planned"] == {"factor": 2.0, "capacity": 1.0, "short": 0.0}
    assert found["rates"]["0.05"]["capacity"] == pytest.approx(1.0)
    assert found["as_is"][0] == {"level": 0.5, "capacity": 0.5, "short": 1.0}


def test_a_bias_that_comes_with_the_test_part_shows_as_shortage_not_in_the_matched_capacity():
    found = decision_score(bins(DEMAND), bins(DEMAND / 2), (0.5,))["rates"]["0.01"]
    assert found["capacity"] == pytest.approx(1.0)
    assert found["planned"]["short"] == 1.0


def test_the_matched_factor_lets_exactly_the_share_fall_short():
    noisy = DEMAND * RNG.lognormal(0.0, 0.3, len(DEMAND))
    part = bins(noisy)
    for share in (0.01, 0.05):
        planned = decision_score(part, part, (0.5,))["rates"][f"{share:g}"]["planned"]
        assert planned["short"] == share


def test_the_curve_falls_and_passes_through_the_matched_rates():
    noisy = DEMAND * RNG.lognormal(0.0, 0.3, len(DEMAND))
    found = decision_score(bins(noisy), bins(noisy), (0.5,))
    assert (np.diff(found["curve"]["capacity"]) <= 0.0).all()
    assert (np.diff(found["curve"]["short"]) > 0.0).all()
    at = np.interp(0.05, found["curve"]["short"], found["curve"]["capacity"])
    assert at == pytest.approx(found["rates"]["0.05"]["capacity"], rel=0.01)


def test_the_level_is_chosen_on_validation_even_where_test_would_choose_another():
    good, bad = DEMAND * 1.5, DEMAND * RNG.lognormal(0.0, 0.5, len(DEMAND))
    found = decision_score(bins(bad, good), bins(good, bad), (0.5, 0.9))["rates"]["0.01"]
    assert found["level"] == 0.9
    assert found["by_level"][0] < found["by_level"][1] == found["capacity"]


def test_without_a_forecast_the_capacity_is_that_of_the_high_bins():
    found = constant_capacity(bins(DEMAND), bins(DEMAND))["rates"]["0.01"]
    assert found["planned"]["factor"] == np.sort(DEMAND)[len(DEMAND) - 21]
    assert found["capacity"] == pytest.approx(found["planned"]["factor"] / DEMAND.mean())


def test_a_forecast_of_nothing_for_real_demand_is_never_enough_and_still_json():
    nothing = bins(np.zeros_like(DEMAND))
    found = decision_score(nothing, nothing, (0.5,))
    assert found["rates"]["0.01"] | {"by_level": None} == {
        "level": 0.5,
        "capacity": None,
        "by_level": None,
        "planned": {"factor": None, "capacity": None, "short": None},
    }
    json.dumps(found, allow_nan=False)


def test_without_demand_nothing_is_short():
    idle = np.zeros(300)
    found = decision_score(bins(idle, demand=idle), bins(idle, demand=idle), (0.5,))
    assert found["as_is"] == [{"level": 0.5, "capacity": 1.0, "short": 0.0}]


def test_rare_demand_needs_no_capacity_where_the_rate_lets_it_fall_short():
    rare = np.zeros(1000)
    rare[::200] = 5.0
    found = decision_score(bins(np.zeros(1000), demand=rare), bins(np.zeros(1000), demand=rare), (0.5,))
    assert found["rates"]["0.01"]["capacity"] == 0.0


@pytest.mark.parametrize(("lead_s", "step"), [(None, 9), (600.0, 9), (541.0, 9), (540.0, 8), (60.0, 0), (0.1, 0)])
def test_a_lead_time_ends_in_the_step_it_reaches(lead_s, step):
    assert lead_step(lead_s, step_s=60.0, horizon=10) == step


def test_a_lead_time_on_the_edge_of_a_step_is_exact_for_widths_that_binary_has_not():
    assert lead_step(0.3, step_s=0.1, horizon=10) == 2


@pytest.mark.parametrize("lead_s", [0.0, -5.0, 601.0, float("nan"), float("inf")])
def test_a_lead_time_beyond_the_horizon_is_refused(lead_s):
    with pytest.raises(ConfigError, match=r"--lead-time: expected more than 0 and at most 600 s.*longer --horizon"):
        lead_step(lead_s, step_s=60.0, horizon=10)


def test_bins_are_those_of_the_step_and_the_channel():
    forecast = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    found = bins_ahead(forecast, forecast[..., 0], step=1, channel=1)
    assert found.quantiles.tolist() == [[6.0, 7.0], [18.0, 19.0]]
    assert found.demand.tolist() == [6.0, 18.0]


def versus(ours, reference, blocks=20):
    drawn = draw_blocks(len(DEMAND), blocks)
    return paired_capacity(*(needed_capacity(of, 0, share=0.05, blocks=drawn) for of in (ours, reference)))


def test_the_better_forecast_needs_clearly_less_capacity():
    near, far = (bins(DEMAND * RNG.lognormal(0.0, width, len(DEMAND))) for width in (0.1, 0.5))
    found = versus(near, far)
    assert found["verdict"] == "better"
    assert found["low"] < found["difference"] < found["high"] < 0.0


def test_every_replicate_is_matched_as_the_whole_is():
    noisy = bins(DEMAND * RNG.lognormal(0.0, 0.3, len(DEMAND)))
    blocks = draw_blocks(len(DEMAND), 20)
    found = needed_capacity(noisy, 0, share=0.05, blocks=blocks)
    for r in (0, 7):
        at = resampled_origins(blocks, r)
        expected = capacity_ratio(noisy.quantiles[at, 0], noisy.demand[at], under=0.05)
        assert found.replicates[r] == pytest.approx(expected)
    assert found.ratio == pytest.approx(capacity_ratio(noisy.quantiles[:, 0], noisy.demand, under=0.05))


def test_a_forecast_that_can_never_meet_the_demand_is_worse_than_one_that_can():
    nothing = bins(np.zeros_like(DEMAND))
    assert versus(nothing, bins(DEMAND))["verdict"] == "worse"
    assert versus(bins(DEMAND), nothing)["verdict"] == "better"
    assert versus(nothing, nothing)["verdict"] == "no clear difference"


def test_too_few_blocks_give_no_verdict_on_capacity():
    assert versus(bins(DEMAND), bins(DEMAND * 2), blocks=500)["verdict"] == "too few origins to tell"
