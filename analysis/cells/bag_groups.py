"""Which test bags are of one group (patient, tissue core), and so are not independent: tests and intervals over bags
take whole groups, where the runs say which they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.weighted_metrics import WeightedMetric
from d2l_study.errors import counted


@dataclass(frozen=True)
class BagGroups:
    """The groups of some test bags.

    group: (B,) int64 of each bag, 0 … G − 1; known: whether the runs say which bags are of one group. Earlier
    versions did not; each bag is a group of its own then.
    """

    group: np.ndarray
    known: bool

    @classmethod
    def of(cls, bags: np.ndarray, runs: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> BagGroups:
        """bags: (B,) ascending numbers in the data set; runs: of each its bags (n,), which may repeat, and their groups
        (n,), or None where it does not say."""
        found = np.full(len(bags), -1, np.int64)
        for bag, group in runs:
            if group is None:
                return cls(np.arange(len(bags)), False)
            own = np.isin(bag, bags)
            found[np.searchsorted(bags, bag[own])] = group[own]
        return cls(np.unique(found, return_inverse=True)[1], True)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def named(self) -> bool:
        """Whether some bags are of one group."""
        return self.count < len(self.group)

    def drawn(self, metric: WeightedMetric) -> WeightedMetric:
        """The metric of (B,) weights of bags as one of (G,) weights of groups."""
        return lambda weight: metric(weight[self.group])

    def text(self, noun: str) -> str:
        """Such as `12 groups of 30 images`; without groups `30 images`."""
        bags = counted(len(self.group), noun)
        return f"{counted(self.count, 'group')} of {bags}" if self.named else bags


def group_sentences(all_groups: Iterable[BagGroups], noun: str) -> list[str]:
    """What a reader has to know of the groups that tests or intervals took, none or more of them. noun: what a bag is
    called."""
    found = list(all_groups)
    sentences = []
    if any(one.named for one in found):
        sentences.append(f"{noun.capitalize()}s of one group (patient or the like) are taken together.")
    if any(one.known and not one.named for one in found):
        sentences.append(f"No two {noun}s are said to be of one patient; where some are, this is too sure.")
    if any(not one.known for one in found):
        sentences.append(
            f"Some runs are of a version that did not keep the patients of {noun}s: {noun}s count as independent, and "
            "where several are of one patient, this is too sure."
        )
    return sentences
