"""Columns that grow while a file is read."""

from __future__ import annotations

import numpy as np
import pytest

from training.trace_columns import Grown


@pytest.mark.parametrize("expected", [0, 1, 50, 1000])
@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_a_column_holds_what_it_was_given_however_many_rows_were_expected(expected, dtype):
    column = Grown(dtype, expected)
    values = np.arange(100, dtype=dtype)
    for part in np.array_split(values, 7):
        column.extend(part)
    np.testing.assert_array_equal(column.finish(), values)
    assert column.finish().dtype == dtype
    column.finish()[3] = 7  # cleaning works in place
    assert column.finish()[3] == 7


def test_a_column_may_be_empty():
    column = Grown(np.float64, 0)
    column.extend(np.empty(0))
    assert column.finish().shape == (0,)
