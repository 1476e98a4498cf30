"""Distributions in a space: `{low: 1e-4, high: 1e-2, log: true}` in the place of a value, drawn `search.trials` times.

A draw is addressed by base seed, key and number, like every other random number of a study: the same key has the same
draws in every arm and at every point of the axes, and another key shifts nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from d2l_study.errors import UserError, listed, nearest
from d2l_study.options import Options, option

KEYS = ("low", "high", "log")
DIGITS = 4
"""Significant digits of a drawn number: more says nothing, and a table shows them all."""


@dataclass(frozen=True)
class SearchOptions(Options):
    """The `search` section of a space."""

    method: str = option("random", "how points are drawn from the distributions", choices=("random",))
    trials: int = option(20, "points drawn for each arm, at each point of its axes", least=1, most=10_000)


@dataclass(frozen=True)
class Distribution:
    """Uniform on [low, high], or uniform in the logarithm; whole numbers for a key of whole numbers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, key: str, base_seed: int, number: int) -> float | int:
        """The draw of that number, 0 …, for a key."""
        digest = hashlib.blake2b(f"search|{base_seed}|{key}|{number}".encode(), digest_size=16).digest()
        share = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))).random()
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        if self.whole:
            return min(math.floor(value), int(self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key in KEYS}


def read_distribution(
    value: Mapping[str, Any], where: str, kind: type, check: Callable[[str, Any], Any]
) -> Distribution:
    """A distribution as somebody wrote it; `check` puts a bound into the key's type and bounds. `UserError` names
    what is wrong with it."""
    for key in value:
        if key not in KEYS:
            raise UserError(f"{where}.{key}: unknown key of a distribution{nearest(key, KEYS)} (keys: {listed(KEYS)})")
    if kind not in (int, float):
        raise UserError(f"{where}: only numbers have distributions; give a value, or a list as an axis")
    if "low" not in value or "high" not in value:
        raise UserError(f"{where}: a distribution needs low and high, for example {{low: 1, high: 8}}")
    low, high, log = check(f"{where}.low", value["low"]), check(f"{where}.high", value["high"]), value.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}.log: {log!r} is not allowed; expected true or false")
    if low is None or high is None or not low < high:
        raise UserError(f"{where}: low {low} and high {high} are not allowed; expected low < high")
    if log and low <= 0:
        raise UserError(f"{where}.low: {low:g} is not allowed with log: true; expected a number > 0")
    return Distribution(low, high, log, kind is int)
