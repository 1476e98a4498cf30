"""Decoded pieces of a file that are kept as long as there is room, those used last the longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np


class SegmentCache:
    """Several threads may use it; two that want the same piece at the same time both decode it."""

    def __init__(self, most: int) -> None:
        """most: bytes that are kept."""
        self._most, self._bytes = most, 0
        self._kept: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._one = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The piece of that key, decoded if it is not there."""
        with self._one:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = decode()
        with self._one:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.nbytes
                while self._bytes > self._most and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        with self._one:
            self._kept.clear()
            self._bytes = 0
