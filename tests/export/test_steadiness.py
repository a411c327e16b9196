"""Does a forecast depend on its company?"""

from __future__ import annotations

import numpy as np
import pytest

from export.errors import ParityError
from export.steadiness import Steadiness, require_steady

ALLOWED = Steadiness(rtol=0.05, atol=0.01, scale=(2.0,), least=np.array([0.5]))


def outputs(value: float, total: float) -> dict[str, np.ndarray]:
    """Two windows with two steps of one channel and one level: steps, then sum and peak."""
    demand = np.stack((np.full((2, 2), total), np.full((2, 2), value)), axis=2)
    return {"forecast": np.full((2, 2, 1, 1), value), "demand": demand[..., None]}


def test_a_jump_between_none_and_half_a_request_is_allowed_for() -> None:
    some, none = outputs(0.5, 3.0), outputs(0.0, 3.0)
    assert (ALLOWED.used(some, none, jumps=True) <= 1).all()
    assert (ALLOWED.used(none, some, jumps=True) <= 1).all()
    assert (ALLOWED.used(some, none, jumps=False) > 1).all()


def test_a_sum_may_jump_by_half_a_request_for_each_of_its_steps() -> None:
    some, none = outputs(0.0, 1.0), outputs(0.0, 0.0)
    some["demand"][:, 0] /= 2
    assert (ALLOWED.used(some, none, jumps=True) <= 1).all()
    some["demand"][1, 0] *= 2
    np.testing.assert_array_equal(ALLOWED.used(some, none, jumps=True) <= 1, [True, False])


def test_what_moves_without_a_jump_is_refused() -> None:
    found = {1: outputs(4.0, 8.0), 17: outputs(4.1, 8.0)}
    assert require_steady(found, ALLOWED, precision="int8") == pytest.approx(0.1 / (0.01 * 2 + 0.05 * 4))
    with pytest.raises(
        ParityError, match=r"forecasts of int8 in batches of 17 within .*, got 2\.3 times the tolerance"
    ):
        require_steady({**found, 17: outputs(4.5, 8.0)}, ALLOWED, precision="int8")
