"""The last steps of a stream in constant memory, always readable as one contiguous piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ring:
    """The last `length` rows of `width` float32 numbers.

    Each row is written twice, `length` apart, so that wherever the ring stands, its rows lie side by side.

    Attributes:
        length: rows kept.
        seen: rows added since the start or the last `clear`.
        clears: times that all rows were forgotten.
    """

    __slots__ = "_at", "_cells", "_rows", "_width", "clears", "length", "seen"

    def __init__(self, length: int, width: int) -> None:
        self.length = length
        self.seen = 0
        self.clears = 0
        self._width = width
        self._rows = np.zeros((2 * length, width), dtype=np.float32)
        self._cells = self._rows.data.cast("B").cast("f")  # a number is stored in a third of numpy's time
        self._at = 0

    def push(self, row: tuple[float, ...]) -> None:
        """Add a row; O(1)."""
        cells, cell = self._cells, self._at * self._width
        twin = cell + self.length * self._width
        if self._width == 3:  # nearly every series: half the time of the loop
            cells[cell] = cells[twin] = row[0]
            cells[cell + 1] = cells[twin + 1] = row[1]
            cells[cell + 2] = cells[twin + 2] = row[2]
        else:
            for i, value in enumerate(row):
                cells[cell + i] = cells[twin + i] = value
        self._at = (self._at + 1) % self.length
        self.seen += 1

    def push_zeros(self, count: int) -> None:
        """Add `count` rows of zeros; O(length) for any count."""
        if count >= self.length:
            self._rows[:] = 0
        else:
            for i in range(self._at, self._at + count):
                self._rows[i % self.length] = 0
                self._rows[i % self.length + self.length] = 0
        self._at = (self._at + count) % self.length
        self.seen += count

    def clear(self) -> None:
        """Forget all rows."""
        self.seen = 0
        self.clears += 1

    def fill(self, rows: NDArray[np.float32], seen: int) -> None:
        """Be as after `seen` rows, of which the last min(seen, length) are given."""
        self._rows[: len(rows)] = self._rows[self.length : self.length + len(rows)] = rows
        self._at = len(rows) % self.length
        self.seen = seen

    def last(self, count: int | None = None) -> NDArray[np.float32]:
        """A view of the last min(seen, length[, count]) rows, oldest first; the next push may overwrite it."""
        if self.seen >= self.length and (count is None or count == self.length):  # the way of the hot loop
            full: NDArray[np.float32] = self._rows[self._at : self._at + self.length]
            return full
        end = self._at + self.length
        rows = min(self.seen, self.length, self.length if count is None else count)
        view: NDArray[np.float32] = self._rows[end - rows : end]
        return view
