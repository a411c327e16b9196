"""The ring against the list it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.ring import Ring


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5, 16])
def test_a_ring_is_the_end_of_the_list_of_all_rows(length: int, width: int) -> None:
    rng = np.random.default_rng(length)
    ring, rows = Ring(length, width), []
    for _ in range(400):
        action = rng.integers(0, 10)
        if action < 7:
            row = tuple(rng.random(width).astype(np.float32).tolist())
            ring.push(row)
            rows.append(row)
        elif action < 9:
            count = int(rng.integers(0, 2 * length + 2))
            ring.push_zeros(count)
            rows += [(0.0,) * width] * count
        else:
            ring.clear()
            rows = []
        expected = np.array(rows[-length:], np.float32).reshape(-1, width)
        np.testing.assert_array_equal(ring.last(), expected)
        assert ring.last().flags.c_contiguous
        assert ring.seen == len(rows)
