"""The comparison: what it lets through, what it stops, and what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from export.compare import Judge
from export.errors import ParityError
from export.parity import DRIFT, NOISE, SCALED, Candidate, Check, Tolerance, parity_json, require_parity, tolerance
from export.reference import Forecast, Outputs, Reference, make_reference
from export.working_scale import working_scale
from training.errors import ConfigError
from training.forecaster import Forecaster

CHANNELS = ("inter_arrival_s", "request_tokens")
LEVELS = (0.25, 0.5, 0.75)
CONTEXT = (np.random.default_rng(0).random((40, 6, 2)) * [0.01, 2000.0]).astype(np.float32)
EDGES = ("all zeros", "a giant")  # the last two of the 40
BATCHES = [np.resize(np.arange(40), (-(-40 // batch), batch)) for batch in (1, 3, 17, 256)]


def exact(context: np.ndarray) -> Outputs:
    """(B, 6, 2) -> forecast (B, 4, 2, 3) and demand (B, 4, 4, 3), different everywhere."""
    mean = context.astype(np.float64).mean(1)[:, None, :, None]
    steps, levels = np.arange(1, 5).reshape(1, 4, 1, 1), np.arange(1, 4).reshape(1, 1, 1, 3)
    forecast = mean * (1 + 0.1 * steps) * levels
    return {"forecast": forecast, "demand": np.concatenate([forecast.cumsum(1), 1.5 * forecast], axis=2)}


def single(context: np.ndarray) -> Outputs:
    return {name: output.astype(np.float32) for name, output in exact(context).items()}


def judge(within: Tolerance, reference: Forecast = exact, *, precision: str = "float64") -> Judge:
    return Judge(
        windows=[CONTEXT],
        edges=EDGES,
        reference=Reference(precision=precision, exact=reference(CONTEXT), float32=single(CONTEXT)),
        within=within,
        scale=working_scale(nn.Identity(), horizon=4, channel_scale=within.scale),
        channels=CHANNELS,
        levels=LEVELS,
    )


def checks_of(*forecasts: Forecast, rtol: float = 1e-4, atol: float = 1e-5, reference: Forecast = exact) -> list[Check]:
    court = judge(tolerance(CONTEXT, rtol=rtol, atol=atol), reference)
    candidates = [Candidate(format=f"form{n}", provider="CPU", forecast=f) for n, f in enumerate(forecasts)]
    return [court.check(candidate, list(batches)) for batches in BATCHES for candidate in candidates]


def wrong_at(position: tuple[int, ...], change: float, output: str = "forecast") -> Forecast:
    def forecast(context: np.ndarray) -> Outputs:
        found = single(context)
        if len(context) > position[0]:
            found[output][position] *= 1 + change
        return found

    return forecast


def test_the_same_numbers_pass_for_every_batch_and_format() -> None:
    checks = checks_of(single, lambda c: {k: v * np.float32(1 + 3e-7) for k, v in single(c).items()})
    require_parity(checks)
    assert [(check.format, check.batch) for check in checks] == [
        (form, batch) for batch in (1, 3, 17, 256) for form in ("form0", "form1")
    ]
    assert all(check.used < 0.1 for check in checks)
    assert all(0 < check.float32 < 1e-7 for check in checks)


def test_every_window_is_compared_and_edge_windows_are_counted() -> None:
    assert [(check.windows, check.edges) for check in checks_of(single)] == [(40, 2), (42, 2), (51, 2), (256, 12)]


def test_one_wrong_number_in_the_largest_batch_fails_and_is_named() -> None:
    checks = checks_of(single, wrong_at((200, 2, 1, 2), 1e-3))
    assert [(check.format, check.batch) for check in checks if not check.passed] == [("form1", 256)]
    expected = exact(CONTEXT)["forecast"][200 % 40, 2, 1, 2]
    with pytest.raises(
        ParityError, match=rf"parity: expected {expected:.9g} within .* got .* from form1 \(CPU\)"
    ) as error:
        require_parity(checks)
    assert "at batch 256, window 0, forecast, step 3, channel request_tokens, level 0.75; " in str(error.value)
    assert "failed: form1 at batch 256 of 8 checks; nothing was published" in str(error.value)


def test_a_difference_on_an_edge_window_is_named_by_its_name() -> None:
    with pytest.raises(ParityError, match=r"at batch 256, window 39 \(a giant\), forecast, step 1"):
        require_parity(checks_of(wrong_at((39, 0, 0, 0), 1e-3)))


def test_all_failures_are_collected_before_one_error_is_raised() -> None:
    checks = checks_of(wrong_at((0, 0, 0, 0), 1e-2), wrong_at((0, 0, 1, 0), 0.5))
    with pytest.raises(ParityError, match="from form1") as error:
        require_parity(checks)
    assert "failed: form0 at batch 1, form1 at batch 1, form0 at batch 3" in str(error.value)
    assert "and 2 more of 8 checks" in str(error.value)


def test_a_difference_of_more_than_1e_5_on_the_working_scale_fails() -> None:
    assert all(check.passed for check in checks_of(wrong_at((200, 0, 1, 0), 0.9e-5)))
    check = checks_of(wrong_at((200, 3, 1, 2), 3e-5))[3]
    assert not check.passed
    assert check.drift <= check.drift_limit
    assert check.scaled > SCALED


def test_a_constant_changed_in_the_sixth_digit_fails_though_every_value_is_within_its_tolerance() -> None:
    def shifted(context: np.ndarray) -> Outputs:
        return {name: (output * (1 + 4e-6)).astype(np.float32) for name, output in exact(context).items()}

    checks = checks_of(shifted)
    assert all(check.used < 1 and not check.passed for check in checks)
    assert checks[0].drift_limit == pytest.approx(DRIFT, abs=NOISE * 3e-8)
    with pytest.raises(ParityError, match="expected a mean difference to float64 torch of at most .* constant of the"):
        require_parity(checks)
    assert all(check.passed for check in checks_of(shifted, rtol=1e-3))  # ten times wider, the shift too


def test_without_a_float64_reference_a_shift_is_not_judged() -> None:
    court = judge(tolerance(CONTEXT), precision="float32")
    check = court.check(Candidate(format="onnx", provider="CPU", forecast=single), list(BATCHES[0]))
    assert check.passed
    assert check.drift_limit == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("both", [False, True], ids=["export alone", "trained model too"])
def test_nan_and_infinity_fail_even_when_both_sides_agree(value: float, both: bool) -> None:
    def broken(context: np.ndarray) -> Outputs:
        found = single(context)
        found["forecast"][0, 1, 0, 2] = value
        return found

    def trained(context: np.ndarray) -> Outputs:
        return {name: output.astype(np.float64) for name, output in broken(context).items()}

    checks = checks_of(broken, reference=trained if both else exact)
    assert not any(check.passed for check in checks)
    with pytest.raises(ParityError, match=r"step 2, channel inter_arrival_s, level 0\.75"):
        require_parity(checks)


def test_the_tolerance_near_zero_follows_the_scale_of_the_channel() -> None:
    within = tolerance(CONTEXT)
    unit = working_scale(nn.Identity(), horizon=4, channel_scale=within.scale).unit["forecast"]
    limits = within.limit(np.zeros((1, 4, 2, 3)), unit)
    assert limits[0, 0, :, 0] == pytest.approx([1e-5 * 0.005, 1e-5 * 1000.0], rel=0.1)


def test_a_channel_that_is_always_zero_has_a_scale_of_one() -> None:
    assert tolerance(np.zeros((3, 6, 2), np.float32)).scale == (1.0, 1.0)


def test_no_tolerance_at_all_asks_for_the_numbers_of_float64() -> None:
    require_parity(checks_of(single, rtol=0.0, atol=0.0, reference=lambda c: {k: v + 0.0 for k, v in wide(c).items()}))
    with pytest.raises(ParityError, match="from form0"):
        require_parity(checks_of(single, rtol=0.0, atol=0.0))


def wide(context: np.ndarray) -> Outputs:
    return {name: output.astype(np.float64) for name, output in single(context).items()}


@pytest.mark.parametrize("rtol", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused(rtol: float) -> None:
    with pytest.raises(ConfigError, match="--rtol: expected a finite number of at least 0"):
        tolerance(CONTEXT, rtol=rtol)


def test_another_shape_is_a_failure_that_says_so() -> None:
    checks = checks_of(single, lambda c: single(c) | {"demand": single(c)["demand"][..., 0]})
    with pytest.raises(
        ParityError, match=r"from form1 .* a demand of float32 \(1, 4, 4\) where float32 \(1, 4, 4, 3\)"
    ):
        require_parity(checks)


def test_a_missing_output_is_a_failure_that_says_so() -> None:
    with pytest.raises(ParityError, match="the outputs forecast where forecast, demand were expected"):
        require_parity(checks_of(lambda context: {"forecast": single(context)["forecast"]}))


def test_a_form_that_cannot_run_is_a_failure_with_the_runtimes_own_words() -> None:
    def stuck(context: np.ndarray) -> Outputs:
        if len(context) != 3:
            raise RuntimeError("Non-zero status code returned while running Reshape node.\n Name:'/Reshape'")
        return single(context)

    checks = checks_of(stuck)
    assert [check.batch for check in checks if check.passed] == [3]
    with pytest.raises(ParityError, match="from form0 at batch 1 .* running Reshape node. Name:'/Reshape'"):
        require_parity(checks)


def test_one_wrong_aggregate_fails_and_is_named() -> None:
    checks = checks_of(wrong_at((200, 3, 2, 0), 1e-3, output="demand"))
    assert [check.batch for check in checks if not check.passed] == [256]
    with pytest.raises(ParityError, match="demand, step 4, channel peak of inter_arrival_s, level 0.25; "):
        require_parity(checks)


def test_half_a_request_may_be_rounded_to_none_on_one_side_alone() -> None:
    model = Forecaster(model="dlinear", params={}, channels=1, context=6, horizon=4, levels=LEVELS)
    model.scaling.least.fill_(0.5)
    scale = working_scale(model, horizon=4, channel_scale=(1.0,))
    want, limit = np.array([0.0, 0.500001, 0.0, 0.3]).reshape(4, 1, 1, 1), np.full((1, 1), 1e-5)
    got = np.array([0.500001, 0.0, 0.6, 0.0]).reshape(4, 1, 1, 1)
    assert scale.across_the_step("forecast", got, want, limit)[:, 0, 0, 0].tolist() == [True, True, False, False]
    assert scale.least["demand"][:, 0, 0].tolist() == [0.5, 1.0, 1.5, 2.0]


def test_differences_are_told_in_raw_units_and_as_shares_of_the_forecasts_own_width() -> None:
    check = checks_of(wrong_at((0, 0, 1, 0), 1e-5))[3]
    assert check.channels is not None
    assert set(check.channels) == {*CHANNELS, *(f"{what} of {c}" for what in ("sum", "peak") for c in CHANNELS)}
    spread, value = check.channels["request_tokens"], exact(CONTEXT)["forecast"][0, 0, 1]
    assert spread.raw[0] == pytest.approx(1e-5 * value[0], rel=0.02)
    assert spread.iqr is not None
    assert spread.iqr[0] == pytest.approx(1e-5 * value[0] / (value[2] - value[0]), rel=0.02)
    assert spread.raw[0] > spread.raw[1] > spread.raw[2] > 0


def test_the_report_is_plain_json_and_names_the_worst() -> None:
    checks = checks_of(wrong_at((200, 0, 1, 0), 0.9e-5))
    report = json.loads(
        json.dumps(parity_json(checks, within=tolerance(CONTEXT), channels=CHANNELS, windows=38), allow_nan=False)
    )
    worst = report["worst"]["worst"]
    assert (worst["output"], worst["channel"], worst["name"]) == ("forecast", "request_tokens", "real")
    assert (report["tolerances"]["rtol"], report["tolerances"]["scaled"]) == (1e-4, 1e-5)
    assert [check["passed"] for check in report["checks"]] == [True] * 4
    assert report["reference"].endswith("float64")
    assert report["float32_torch"]["scaled"] < 1e-7


class Double(nn.Module):
    """A user's architecture that is what it is in any precision."""

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        return self.inside(context.mean(1))[:, None, :, None]

    def inside(self, mean: torch.Tensor) -> torch.Tensor:
        return mean * 3


class CastDown(Double):
    def inside(self, mean: torch.Tensor) -> torch.Tensor:
        return (mean.float() * 3).to(mean.dtype)


class Single(Double):
    def inside(self, mean: torch.Tensor) -> torch.Tensor:
        return mean @ torch.eye(2)


@pytest.mark.parametrize(
    ("model", "precision"), [(Double(), "float64"), (CastDown(), "float32"), (Single(), "float32")]
)
def test_the_reference_says_when_a_model_cannot_run_in_float64(model: nn.Module, precision: str) -> None:
    reference = make_reference(model, [CONTEXT])
    assert reference.precision == precision
    assert reference.exact["forecast"].dtype == np.float64
    exactly = np.array_equal(reference.exact["forecast"], reference.float32["forecast"])
    assert exactly == (precision == "float32")
