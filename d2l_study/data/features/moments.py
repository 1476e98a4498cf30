"""Mean and scatter of vectors that come in pieces, in float64, and whether they are finite."""

from __future__ import annotations

import numpy as np

_ROWS = 128
"""Vectors that are widened to float64 at a time: few enough to stay in a core's cache."""


class Moments:
    """Of vectors of `width` dimensions. strange: how many of them hold NaN or infinity; first_strange: the first."""

    def __init__(self, width: int) -> None:
        self.count, self.strange, self.first_strange = 0, 0, -1
        self._sum, self._squares = np.zeros(width), np.zeros(width)
        self._shift: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """values: (n, width). Deviations from the first vector are summed, which keeps the digits that sums of squares
        about zero would lose."""
        if not len(values):
            return
        if self._shift is None:
            self._shift = values[0].astype(np.float64)
        rows = min(_ROWS, len(values))
        buffer = np.empty((rows, values.shape[1]))
        before = self._sum.copy()
        with np.errstate(invalid="ignore", over="ignore"):
            for first in range(0, len(values), rows):
                part = values[first : first + rows]
                some = buffer[: len(part)]
                np.copyto(some, part)
                np.subtract(some, self._shift, out=some)
                self._sum += some.sum(axis=0)
                np.square(some, out=some)
                self._squares += some.sum(axis=0)
        if not np.isfinite(self._sum).all():
            wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if self.first_strange < 0 and len(wrong):
                self.first_strange = self.count + int(wrong[0])
            self.strange += len(wrong)
            self._sum = before  # so that the next pieces are looked at by themselves
            if len(wrong) and not np.isfinite(self._shift).all():
                self._shift = np.zeros_like(self._shift)
        self.count += len(values)

    @property
    def mean(self) -> np.ndarray:
        """(width,); 0 without vectors."""
        return np.zeros_like(self._sum) if self._shift is None else self._shift + self._sum / self.count

    @property
    def scatter(self) -> np.ndarray:
        """(width,) the sum of squared deviations from the mean."""
        return np.maximum(self._squares - np.square(self._sum) / max(1, self.count), 0.0)
