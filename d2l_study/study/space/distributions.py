"""Distributions in a space, in the place of a value: `{low: 1e-4, high: 1e-2, log: true}`, or `{choices: [a, b]}`.

`search` draws points from them (`method: random`), or lets a sampler propose points (`study.search.samplers`). A draw
depends on base seed, key and number only, like every other random number of a study. So a key has the same draws in
every arm and at every point of the axes, and a further key changes no draw of the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from d2l_study.errors import UserError, listed, nearest, short

KEYS = ("low", "high", "log")
CHOICES = "choices"
DIGITS = 4
"""Significant digits of a drawn number, all of which a table shows."""


@dataclass(frozen=True)
class Distribution:
    """Uniform on [low, high], or with `log` uniform in the logarithm. whole: of whole numbers. With `choices`, uniform
    over these values instead."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def draw(self, key: str, base_seed: int, number: int) -> Any:
        """The draw number 0, 1, … of a key ("section.key")."""
        digest = hashlib.blake2b(f"search|{base_seed}|{key}|{number}".encode(), digest_size=16).digest()
        share = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))).random()
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return min(math.floor(value), int(self.high)) if self.whole else self.rounded(value)

    def rounded(self, value: Any) -> Any:
        """A value as it is trained and shown: rounded to `DIGITS` significant digits, within the bounds."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value in the key's type can be drawn, but for rounding."""
        return value in self.choices if self.choices else value is not None and self.low <= value <= self.high

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Distribution:
        """The distribution of a stored record (`to_dict`). Bounds of whole numbers are whole numbers there."""
        if CHOICES in written:
            return cls(choices=tuple(written[CHOICES]))
        return cls(written["low"], written["high"], bool(written["log"]), isinstance(written["low"], int))

    def to_dict(self) -> dict[str, Any]:
        """The distribution as a space writes it."""
        if self.choices:
            return {CHOICES: list(self.choices)}
        return {key: value for key, value in asdict(self).items() if key in KEYS}

    @property
    def text(self) -> str:
        """For people: `[1, 8]`, `[0.0001, 0.01] log`, `{a, b}`."""
        if self.choices:
            return f"{{{', '.join(map(str, self.choices))}}}"
        return f"[{self.low:g}, {self.high:g}]" + (" log" if self.log else "")


def read_distribution(
    value: Mapping[str, Any], where: str, kind: type, check: Callable[[str, Any], Any]
) -> Distribution:
    """The distribution that a mapping of a space describes.

    where: the place, as messages name it; kind: the type of the key; check: (place, value) -> the value in the key's
    type, or `UserError`. `UserError` if it is no distribution of this key."""
    known = (*KEYS, CHOICES)
    for key in value:
        if key not in known:
            raise UserError(
                f"{where}.{key}: unknown key of a distribution{nearest(key, known)} (keys: {listed(known)})"
            )
    if CHOICES in value:
        return _choices(value, where, check)
    if kind not in (int, float):
        raise UserError(f"{where}: only numbers lie between bounds; give a value, a list as an axis, or "
                        "{choices: [a, b]}")  # fmt: skip
    if "low" not in value or "high" not in value:
        raise UserError(f"{where}: a distribution needs low and high, for example {{low: 1, high: 8}}")
    low, high, log = check(f"{where}.low", value["low"]), check(f"{where}.high", value["high"]), value.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}.log: {short(repr(log))} is not allowed; expected true or false")
    if low is None or high is None or not low < high:
        raise UserError(f"{where}: low {low} and high {high} are not allowed; expected low < high")
    if log and low <= 0:
        raise UserError(f"{where}.low: {low:g} is not allowed with log: true; expected a number > 0")
    return Distribution(low, high, log, kind is int)


def _choices(value: Mapping[str, Any], where: str, check: Callable[[str, Any], Any]) -> Distribution:
    for key in value:
        if key != CHOICES:
            raise UserError(f"{where}.{key}: choices have no bounds; expected either choices, or low and high")
    given = value[CHOICES]
    if not isinstance(given, list) or len(given) < 2:
        raise UserError(f"{where}.choices: expected a list of at least two values")
    values: list[Any] = []
    for number, one in enumerate(given, start=1):
        typed = check(f"{where}.choices (entry {number} of {len(given)})", one)
        if typed in values:
            raise UserError(f"{where}.choices (entry {number} of {len(given)}): {short(repr(typed))} is there twice")
        values.append(typed)
    return Distribution(choices=tuple(values))
