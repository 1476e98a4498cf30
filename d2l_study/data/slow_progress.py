"""A line now and then about work that is done once on a machine, and takes long only for large data."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SAID_SECONDS = 30.0


def said_slowly(results: Iterable[T], tell: Callable[[int], str]) -> Iterator[T]:
    """The results as they come; `tell` makes a line of their number so far, every `SAID_SECONDS` on standard error."""
    said = time.monotonic()
    for number, result in enumerate(results, 1):
        yield result
        if time.monotonic() - said > SAID_SECONDS:
            said = time.monotonic()
            print(tell(number), file=sys.stderr, flush=True)
