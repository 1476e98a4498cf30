"""The science version of a configuration: raised for those whose results a change of the code changed, for no others.

It is part of a configuration's id (`study.ledger.config_id`), so that results of before the change are found no more
where they would be other ones today, and stay valid everywhere else. `CHANGES` is the one place that says which change
raised which version for which values; `d2l_study.SCIENCE_VERSION` is the latest of them, what this code can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FIRST = 1
"""The version of what no change has touched."""


@dataclass(frozen=True)
class Change:
    """A change of results for the configurations that have `key` in their identity with a value not in `unless`."""

    version: int
    key: str
    """section.key"""
    unless: tuple[Any, ...]
    """Values that the change leaves alone. What an identity does not hold (`Options.identity`) is left alone too."""
    what: str
    """What is different since."""
    spares: tuple[str, ...] = ()
    """Stages whose results do not depend on the key."""
    if_section: Callable[[Mapping[str, Any]], bool] = lambda section: True
    """Whether the change can make a difference, from the other keys of the section."""
    other_keys: tuple[str, ...] = ()
    """The keys (section.key) that `if_section` looks at."""

    def touches(self, stage: str, section: Mapping[str, Any]) -> bool:
        """Whether it changes results of a stage. section: the values of the section that has the key."""
        value = section[self.key.partition(".")[2]]
        return value not in self.unless and stage not in self.spares and self.if_section(section)


def _several_validations(section: Mapping[str, Any]) -> bool:
    return bool(section["eval_every"] < section["steps"])


CHANGES = (
    Change(2, "data.witness_rate", (None, 1.0), "witness_rate is the mean share of witnesses in a positive bag; before "
           "it was the rate of a binomial conditioned on one, whose share is higher, the more so the smaller the bag"),
    Change(2, "teacher.mixup", (0.0,), "mixup gives every bag of a step another one as partner, of the other class "
           "where there is one; before, half of all steps of two bags mixed nothing"),
    Change(2, "student.mixup", (0.0,), "mixup gives every instance of a step another one as partner, from a bag of the "
           "other class where there is one", spares=("cam", "peak")),
    Change(3, "student.select", ("loss", "last"), "of snapshots of equal validation bag AUC that of the lowest bag log "
           "loss is kept; before, that of the lowest distillation loss, which says less of its labels",
           spares=("cam", "peak"), if_section=_several_validations,
           other_keys=("student.eval_every", "student.steps")),
)  # fmt: skip


def science_version(stage: str, sections: Mapping[str, Mapping[str, Any]], latest: int | None = None) -> int:
    """The version of a configuration; sections: section -> `Options.identity()` (or more keys); latest: the version of
    the code, if it is an earlier one."""
    versions = (change.version for change in changes_of(stage, sections))
    return max((version for version in versions if latest is None or version <= latest), default=FIRST)


def changes_of(stage: str, sections: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """The changes that touch a configuration's results."""
    found = []
    for change in CHANGES:
        section, key = change.key.split(".")
        values = sections.get(section, {})
        if key in values and change.touches(stage, values):
            found.append(change)
    return found


def version_of_keys(keys: Iterable[str]) -> int:
    """The highest version that any value of these keys (section.key) may have."""
    keys = set(keys)
    return max((change.version for change in CHANGES if keys & {change.key, *change.other_keys}), default=FIRST)
