"""Distributions in a space, in the place of a value: `{low: 1e-4, high: 1e-2, log: true}`, or `{choices: [a, b]}`.

`search` draws points from them (`method: random`), or lets a sampler propose points (`search_samplers`). A draw is
addressed by base seed, key and number, like every other random number of a study: the same key has the same draws in
every arm and at every point of the axes, and another key shifts nothing.
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
CHOICES = "choices"
DIGITS = 4
"""Significant digits of a drawn number: more says nothing, and a table shows them all."""

ADAPTIVE = ("tpe", "gp", "cmaes")
"""Methods that choose a point by the results of those before it; their plan is not known beforehand."""

OBJECTIVES = {
    "val_bag_auc": "max", "val_bag_nll": "min", "val_bag_brier": "min", "val_distill_loss": "min",
    "train_seconds": "min", "instance_auc": "max",
}  # fmt: skip
"""What a search may look at, and which direction is better: figures of the validation bags, the training time, and
only under `oracle: true` the true instance labels of the test set."""

ORACLE_OBJECTIVES = ("instance_auc",)
GOALS = ("max", "min")


@dataclass(frozen=True)
class SearchOptions(Options):
    """The `search` section of a space."""

    method: str = option(
        "random", "how points are chosen: every point of the axes, draws from the distributions, or a sampler",
        choices=("grid", "random", *ADAPTIVE), scientific=False,
    )  # fmt: skip
    trials: int = option(20, "points for each arm, at each point of its axes", least=1, most=10_000, scientific=False)
    startup: int = option(
        10, "points drawn at random before a sampler learns from them", least=1, most=10_000, scientific=False
    )
    metric: str = option(
        "val_bag_auc", "what is searched for, as a mean over replicates", choices=tuple(OBJECTIVES), scientific=False
    )
    goal: str | None = option(None, "max or min; null: what is better of the metric", choices=GOALS, scientific=False)
    objectives: tuple[str, ...] = option(
        (), "several metrics at once, whose Pareto front is shown", choices=tuple(OBJECTIVES), scientific=False
    )
    oracle: bool = option(False, "the search may look at true instance labels; tables mark it", scientific=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        better = OBJECTIVES[self.metric]
        if self.goal not in (None, better):
            raise UserError(f"goal: {self.goal!r} is not allowed with metric {self.metric}, of which "
                            f"{'more' if better == 'max' else 'less'} is better; expected {better}")  # fmt: skip
        if len(self.objectives) == 1:
            raise UserError(f"objectives: one alone; expected several, or metric: {self.objectives[0]}")
        for name in self.objectives:
            if self.objectives.count(name) > 1:
                raise UserError(f"objectives: {name!r} stands there twice")
        if self.objectives and self.method == "cmaes":
            raise UserError(f"objectives: cmaes looks at one metric, found {len(self.objectives)}; expected tpe or gp")
        for name in self.names:
            if name in ORACLE_OBJECTIVES and not self.oracle:
                key = "objectives" if self.objectives else "metric"
                raise UserError(f"{key}: {name!r} looks at true instance labels; allowed under oracle: true only, "
                                "and marked in every table")  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are told to the search."""
        return self.objectives or (self.metric,)

    @property
    def goals(self) -> tuple[str, ...]:
        return tuple(OBJECTIVES[name] for name in self.names)

    @property
    def adaptive(self) -> bool:
        return self.method in ADAPTIVE

    @property
    def sees_labels(self) -> bool:
        """Whether the search looks at true instance labels."""
        return any(name in ORACLE_OBJECTIVES for name in self.names)


@dataclass(frozen=True)
class Distribution:
    """Uniform on [low, high], or uniform in the logarithm; whole numbers for a key of whole numbers. With `choices`,
    uniform over those values."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def draw(self, key: str, base_seed: int, number: int) -> Any:
        """The draw of that number, 0 …, for a key."""
        digest = hashlib.blake2b(f"search|{base_seed}|{key}|{number}".encode(), digest_size=16).digest()
        share = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))).random()
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return min(math.floor(value), int(self.high)) if self.whole else self.rounded(value)

    def rounded(self, value: Any) -> Any:
        """A value of the distribution as it is trained and shown: a number with few digits, within the bounds."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
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
    """A distribution as somebody wrote it; `check` puts a bound into the key's type and bounds. `UserError` names
    what is wrong with it."""
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
        raise UserError(f"{where}.log: {log!r} is not allowed; expected true or false")
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
            raise UserError(f"{where}.choices (entry {number} of {len(given)}): {typed!r} is there twice")
        values.append(typed)
    return Distribution(choices=tuple(values))
