"""The two forecasts that a model is measured against are valid whatever the window."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.runtime.test_rivals import LEVELS, rivals

NUMBERS = st.one_of(
    st.just(0.0), st.floats(0.0, 1e4, width=32), st.sampled_from([float(np.finfo(np.float32).max), 1e-40])
)


@given(
    data=st.data(),
    context=st.integers(1, 25),
    horizon=st.integers(1, 12),
    ratio=st.integers(1, 7),
    rival=st.sampled_from([0, 1]),
)
def test_whatever_the_window_they_are_finite_ordered_and_not_negative(
    data: st.DataObject, context: int, horizon: int, ratio: int, rival: int
) -> None:
    rows = data.draw(arrays(np.float32, (context, 2), elements=NUMBERS))
    both = rivals(horizon=horizon, ratio=ratio, context=context)
    found = both.forecast(rival, rows)
    assert found.shape == (horizon, 2, len(LEVELS))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found, axis=-1) >= 0).all()
    assert np.isfinite(both.beside(found, rows)).all()
