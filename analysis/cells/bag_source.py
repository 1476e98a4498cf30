"""Which bags a configuration was tested on, as far as its rows say. Only rows that were tested on the same bags are
paired, and ranked against each other: the pairing takes out what the bags alone do to a metric, and a harder problem
makes no method worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from d2l_study.data.mnist_bags import MnistBags

if TYPE_CHECKING:
    import pandas

OF_RUNS = ("test_bags",)
"""Keys of drawn bags that are counts of each run where bags are given."""
DEALT_BY = ("seed", "folds")
"""What decides the test part of a replicate, unless parts or folds are given: `test_set` tells where rows have it."""
DRAWN_BY = (
    "dataset", *MnistBags.TEST_KEYS,
    "images", "side", "nuclei", "witnesses", "drawing",  # of synthetic images
    "label_column", "positive", "bag",  # of features
    *DEALT_BY,
)  # fmt: skip
NULL_IS_A_VALUE = frozenset({"witness_rate", "label_column", "positive"})
"""Keys whose missing value is one of theirs, null; that of another says nothing."""
PREPARED_BY = ("cut", "patch_size", "stride", "mpp", "tissue", "least_tissue", "white_above")
"""Keys that change which instances the same bags hold."""


@dataclass(frozen=True)
class BagSource:
    """What the test bags of one configuration come from."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    """Of `DRAWN_BY` and `PREPARED_BY` those that rows have a value of."""
    test_sets: Mapping[int, Any] = field(default_factory=dict)
    """Replicate -> `test_set`, the same for the same bags of one data set."""
    instances: Mapping[int, Any] = field(default_factory=dict)
    """Replicate -> the number of test instances: of equal bags of two data sets it is not the same."""

    def differences(self, other: BagSource) -> dict[str, tuple[Any, Any]]:
        """What tells that the test bags are others: its name -> the value here and there. Empty for the same bags."""
        if self is other or self == other:
            return {}
        found = {key: pair for key in DRAWN_BY if (pair := self._unlike(other, key)) is not None}
        replicates = sorted(self.test_sets.keys() & other.test_sets.keys())
        unlike = [r for r in replicates if self.test_sets[r] != other.test_sets[r]]
        if replicates and not unlike:  # whatever they were dealt by
            found = {key: pair for key, pair in found.items() if key not in DEALT_BY}
        if found:
            return found
        if unlike:
            return {f"test_set of r{unlike[0]:03d}": (self.test_sets[unlike[0]], other.test_sets[unlike[0]])}
        if all(self._unlike(other, key, null=True) is None for key in PREPARED_BY):
            for r in sorted(self.instances.keys() & other.instances.keys()):
                if self.instances[r] != other.instances[r]:
                    return {f"test_instances of r{r:03d}": (self.instances[r], other.instances[r])}
        return {}

    def _unlike(self, other: BagSource, key: str, null: bool = False) -> tuple[Any, Any] | None:
        """Both values where they differ. null: a missing one is a value."""
        pair = self.keys.get(key), other.keys.get(key)
        known = null or key in NULL_IS_A_VALUE or None not in pair
        return pair if known and pair[0] != pair[1] else None


def bag_sources(rows: pandas.DataFrame) -> dict[str, BagSource]:
    """config_id -> what the test bags of its finished runs come from."""
    done = rows[rows["status"] == "done"]
    keys = [key for key in (*DRAWN_BY, *PREPARED_BY) if key in done]
    if done.empty or not keys:
        return {}
    given = set(done.loc[done["fold"].notna(), "config_id"]) if "fold" in done else set()
    firsts = done.groupby("config_id", sort=False)[keys].first()  # of each key what some run says
    columns = [firsts[key].astype(object).where(firsts[key].notna(), None).tolist() for key in keys]
    sets, instances = (_by_replicate(done, name) for name in ("test_set", "test_instances"))
    found = {}
    for config, values in zip(firsts.index.tolist(), zip(*columns, strict=True), strict=True):
        own = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        if config in given:
            own = {key: value for key, value in own.items() if key not in OF_RUNS}
        found[str(config)] = BagSource(own, sets.get(config, {}), instances.get(config, {}))
    return found


def _by_replicate(done: pandas.DataFrame, name: str) -> dict[Any, dict[int, Any]]:
    """config_id -> replicate -> what a column says of it."""
    found: dict[Any, dict[int, Any]] = {}
    if name in done:
        known = done[done[name].notna()]
        columns = (known[column].tolist() for column in ("config_id", "replicate", name))
        for config, replicate, value in zip(*columns, strict=True):
            found.setdefault(config, {}).setdefault(int(replicate), value)
    return found
