"""Columns that grow while a file is read, in memory that is really given back."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


class Grown:
    """A column that is extended in place, in anonymous memory of its own.

    Memory beyond the rows in use is reserved but never touched, so a generous guess costs nothing; and it leaves the
    process with the array, where what malloc frees often stays.
    """

    def __init__(self, dtype: Any, rows: int) -> None:
        """Set up.

        Args:
            dtype: of the column.
            rows: how many are expected; more find room too, at the price of a copy.
        """
        self._dtype, self._used = np.dtype(dtype), 0
        self._array = self._reserve(rows)

    def extend(self, values: np.ndarray) -> None:
        """Append values."""
        end = self._used + len(values)
        if end > len(self._array):
            larger = self._reserve(2 * end)
            larger[: self._used] = self._array[: self._used]
            self._array = larger
        self._array[self._used : end] = values
        self._used = end

    def finish(self) -> np.ndarray:
        """The rows."""
        return self._array[: self._used]

    def _reserve(self, rows: int) -> np.ndarray:
        own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # the default is shared, which is paid as files in memory are
        memory = mmap.mmap(-1, max(1, rows * self._dtype.itemsize), flags=own)
        return np.frombuffer(memory, dtype=self._dtype, count=rows)
