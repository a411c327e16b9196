"""The gate: what it lets through, what it stops, and what it says."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from export.errors import ParityError
from export.parity import (
    BATCHES,
    Candidate,
    Check,
    Forecast,
    Outputs,
    compare,
    parity_json,
    require_parity,
    tolerance,
)
from training.errors import ConfigError

CHANNELS = ("inter_arrival_s", "request_tokens")
LEVELS = (0.1, 0.5, 0.9)
CONTEXT = (np.random.default_rng(0).random((40, 6, 2)) * [0.01, 2000.0]).astype(np.float32)


def reference(context: np.ndarray) -> Outputs:
    """(B, 6, 2) -> forecast (B, 4, 2, 3) and demand (B, 4, 4, 3), different everywhere."""
    mean = context.mean(1)[:, None, :, None]
    steps, levels = np.arange(1, 5).reshape(1, 4, 1, 1), np.arange(1, 4).reshape(1, 1, 1, 3)
    forecast = (mean * (1 + 0.1 * steps) * levels).astype(np.float32)
    return {"forecast": forecast, "demand": np.concatenate([forecast.cumsum(1), 1.5 * forecast], axis=2)}


def checks_of(*forecasts: Forecast, rtol: float = 1e-4, atol: float = 1e-5) -> list[Check]:
    candidates = [Candidate(format=f"form{n}", provider="CPU", forecast=f) for n, f in enumerate(forecasts)]
    return compare(
        candidates,
        reference,
        [CONTEXT],
        within=tolerance(CONTEXT, rtol=rtol, atol=atol),
        channels=CHANNELS,
        levels=LEVELS,
    )


def wrong_at(position: tuple[int, ...], change: float, output: str = "forecast") -> Forecast:
    def forecast(context: np.ndarray) -> Outputs:
        found = reference(context)
        if len(context) > position[0]:
            found[output][position] *= 1 + change
        return found

    return forecast


def test_the_same_numbers_pass_for_every_batch_and_format() -> None:
    checks = checks_of(reference, lambda c: {k: v * np.float32(1 + 1e-6) for k, v in reference(c).items()})
    require_parity(checks)
    assert [(check.format, check.batch) for check in checks] == [(f, b) for b in BATCHES for f in ("form0", "form1")]
    assert all(check.used < 0.02 for check in checks)


def test_one_wrong_number_in_the_largest_batch_fails_and_is_named() -> None:
    checks = checks_of(reference, wrong_at((200, 2, 1, 2), 1e-3))
    assert [(check.format, check.batch) for check in checks if not check.passed] == [("form1", 256)]
    window = (1 + 3 + 17 + 200) % 40
    expected = reference(CONTEXT[window : window + 1])["forecast"][0, 2, 1, 2]
    with pytest.raises(
        ParityError, match=rf"parity: expected {expected:.9g} within .* got .* from form1 \(CPU\)"
    ) as error:
        require_parity(checks)
    where = f"at batch 256, window {window}, forecast, step 3, channel request_tokens, level 0.9; failed: form1 at "
    assert where in str(error.value)


def test_all_failures_are_collected_before_one_error_is_raised() -> None:
    checks = checks_of(wrong_at((0, 0, 0, 0), 1e-2), wrong_at((0, 0, 1, 0), 0.5))
    everything = ", ".join(f"{form} at batch {batch}" for batch in BATCHES for form in ("form0", "form1"))
    with pytest.raises(ParityError, match="from form1") as error:
        require_parity(checks)
    assert everything in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("both", [False, True], ids=["export alone", "trained model too"])
def test_nan_and_infinity_fail_even_when_both_sides_agree(value: float, both: bool) -> None:
    def broken(context: np.ndarray) -> Outputs:
        found = reference(context)
        found["forecast"][0, 1, 0, 2] = value
        return found

    checks = compare(
        [Candidate(format="onnx", provider="CPU", forecast=broken)],
        broken if both else reference,
        [CONTEXT],
        within=tolerance(CONTEXT),
        channels=CHANNELS,
        levels=LEVELS,
    )
    assert not any(check.passed for check in checks)
    with pytest.raises(ParityError, match=r"step 2, channel inter_arrival_s, level 0\.9"):
        require_parity(checks)


def test_the_tolerance_near_zero_follows_the_scale_of_the_channel() -> None:
    limits = tolerance(CONTEXT).limit(np.zeros((1, 4, 2, 3), np.float32))
    assert limits[0, 0, :, 0] == pytest.approx([1e-5 * 0.005, 1e-5 * 1000.0], rel=0.1)


def test_a_channel_that_is_always_zero_has_a_scale_of_one() -> None:
    assert tolerance(np.zeros((3, 6, 2), np.float32)).scale == (1.0, 1.0)


def test_no_tolerance_at_all_asks_for_equal_bits() -> None:
    require_parity(checks_of(reference, rtol=0.0, atol=0.0))
    with pytest.raises(ParityError, match="from form0"):
        require_parity(checks_of(wrong_at((0, 0, 0, 0), 1e-6), rtol=0.0, atol=0.0))


@pytest.mark.parametrize("rtol", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused(rtol: float) -> None:
    with pytest.raises(ConfigError, match="--rtol: expected a finite number of at least 0"):
        tolerance(CONTEXT, rtol=rtol)


def test_another_shape_is_refused_before_numbers_are_compared() -> None:
    with pytest.raises(ParityError, match=r"expected a demand of float32 \(1, 4, 4, 3\), got float32 \(1, 4, 4\)"):
        checks_of(lambda context: reference(context) | {"demand": reference(context)["demand"][..., 0]})


def test_a_missing_output_is_refused_before_numbers_are_compared() -> None:
    with pytest.raises(ParityError, match="expected the outputs forecast, demand, got forecast from form0"):
        checks_of(lambda context: {"forecast": reference(context)["forecast"]})


def test_one_wrong_aggregate_fails_and_is_named() -> None:
    checks = checks_of(wrong_at((200, 3, 2, 0), 1e-3, output="demand"))
    assert [check.batch for check in checks if not check.passed] == [256]
    with pytest.raises(ParityError, match="demand, step 4, channel peak of inter_arrival_s, level 0.1; failed"):
        require_parity(checks)


def test_a_channels_scale_is_that_of_its_sums_and_peaks() -> None:
    limits = tolerance(CONTEXT).limit(np.zeros((1, 4, 4, 3), np.float32))
    np.testing.assert_array_equal(limits[0, 0, :2], limits[0, 0, 2:])


def test_the_report_is_plain_json_and_names_the_worst() -> None:
    checks = checks_of(wrong_at((0, 0, 1, 0), 1e-5))
    report = json.loads(
        json.dumps(
            parity_json(checks, within=tolerance(CONTEXT), channels=CHANNELS, windows=len(CONTEXT)), allow_nan=False
        )
    )
    worst = report["worst"]["worst"]
    assert (worst["output"], worst["channel"]) == ("forecast", "request_tokens")
    assert report["tolerances"]["rtol"] == 1e-4
    assert [check["passed"] for check in report["checks"]] == [True] * len(BATCHES)
    assert set(asdict(checks[0])) < set(report["checks"][0])
