"""The searches that a space asks for: each arm is searched by itself at each point of its axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.keys import Key
from d2l_study.study.space.space import Space


@dataclass(frozen=True)
class ArmSearch:
    """One arm at one point of its axes, which is searched by itself.

    at: "section.key" -> value, the point; values: (section, key) -> value or distribution; trials: how many it gets.
    """

    arm: str
    at: dict[str, Any]
    values: dict[Key, Any]
    trials: int

    @property
    def distributions(self) -> dict[str, Distribution]:
        """The distributions of the keys that are searched, by key ("section.key")."""
        return {".".join(place): v for place, v in self.values.items() if isinstance(v, Distribution)}

    @property
    def label(self) -> str:
        """Its name, as in `vat num_bags=50`."""
        return search_name(self.arm, self.at)


def search_name(arm: str, at: Mapping[str, Any]) -> str:
    """The name of a search: its arm, then its point of the axes, as in `vat num_bags=50`."""
    return " ".join([arm, *(f"{key.split('.')[-1]}={value}" for key, value in at.items())])


def arm_searches(space: Space) -> list[ArmSearch]:
    """The searches of a space, in the order of its arms. An arm without a distribution gets one trial."""
    assert space.search is not None
    found = []
    for method in space.methods:
        axes = [(s, k) for s, keys in space.arm_keys(method).items() for k, v in keys.items() if isinstance(v, tuple)]
        for values in space.grid(method):
            searched = any(isinstance(v, Distribution) for v in values.values())
            at = {".".join(place): values[place] for place in axes}
            found.append(ArmSearch(method, at, values, space.search.trials if searched else 1))
    return found
