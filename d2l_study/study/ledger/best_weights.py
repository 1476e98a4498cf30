"""`keep_weights: best`: of the models that a study trains, those of each arm's best configuration stay.

What is best is said by validation alone: by the mean of `val_bag_auc` over replicates, in a search by its own metrics
(of several objectives the Pareto front stays), for each arm at each point of its axes as the search has them. Weights
are dropped as soon as a better configuration has ended, so that a large study never holds many of them.

Left alone are weights of teachers of students, those that another study made, and those that another study needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.errors import DamagedError
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import list_studies
from d2l_study.study.ledger.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas

BEST = "best"
METRIC = "val_bag_auc"

Group = tuple[str, str]
Values = tuple[float, ...]
"""Of each metric the mean over replicates, larger being better."""


class BestWeights:
    """Hears of configurations that have ended, and drops the weights of those that others are better than."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._heard: dict[Group, dict[str, Values]] = {}
        self._mine: dict[str, list[int]] = {}
        self._known: tuple[dict[str, list[Group]], dict[str, int]] | None = None

    def ended(self, config: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """All runs of a configuration have ended; rows: as of `StudyFolder.rows_of`."""
        if self._known is None or config not in self._known[0]:  # a search adds to its plan as it goes
            self._known = _groups(self.folder)
        groups, signs = self._known
        values = _values(rows, signs)
        if config not in groups or values is None:
            return
        self._mine[config] = [row["replicate"] for row in rows if row.get("made_by") == self.folder.name]
        for group in groups[config]:
            self._heard.setdefault(group, {})[config] = values
        chosen = {best for members in self._heard.values() for best in _unbeaten(members)}
        fallen = {c for members in self._heard.values() for c in members} - chosen
        self._drop(fallen)
        self._heard = {
            group: {c: v for c, v in members.items() if c not in fallen} for group, members in self._heard.items()
        }

    def all_ended(self, rows: pandas.DataFrame) -> None:
        """At the end of a command: the same over all that the study has. rows: as of `StudyFolder.rows`."""
        judged, chosen = _judged(self.folder, rows)
        mine = rows[(rows["status"] == "done") & (rows.get("made_by") == self.folder.name)]
        self._mine = {str(config): found.tolist() for config, found in mine.groupby("config_id")["replicate"]}
        self._drop(judged - chosen)

    def _drop(self, configs: set[str]) -> None:
        configs = {config for config in configs if self._mine.get(config)}
        for config in configs - _needed_elsewhere(self.folder, configs):
            for replicate in self._mine[config]:
                self.folder.ledger.drop_file(config, replicate, WEIGHTS, self.folder.name)


def _groups(folder: StudyFolder) -> tuple[dict[str, list[Group]], dict[str, int]]:
    """config_id -> the groups in which it is compared, without those that teach students; metric -> 1 or −1, the
    direction that is better."""
    entries = folder.plan()
    teaching = _teaching(entries)
    document, signs = read_document(folder), {METRIC: 1}
    found: dict[str, list[Group]] = {}
    if document is not None:
        definition = document["definition"]
        goals = zip(definition["metrics"], definition["goals"], strict=True)
        signs = {name: 1 if goal == "max" else -1 for name, goal in goals}
        for trial in document["trials"]:
            found.setdefault(trial["config_id"], []).append(("search", str(trial["search"])))
    searched = set(found)
    for entry in entries:
        if entry["config_id"] not in searched:
            found.setdefault(entry["config_id"], []).append(("arm", entry["method"]))
    return {config: groups for config, groups in found.items() if config not in teaching}, signs


def _teaching(entries: Iterable[Mapping[str, Any]]) -> set[str]:
    return {teacher for entry in entries for teacher in (entry.get("teacher_id") or "").split(",") if teacher}


def _values(rows: Sequence[Mapping[str, Any]], signs: Mapping[str, int]) -> Values | None:
    """The means over the runs that are done; None while a run is missing, or if a metric is defined in none."""
    if any(row["status"] == "missing" for row in rows):
        return None
    found = []
    for name, sign in signs.items():
        values = [row.get(name) for row in rows if row["status"] == "done"]
        known = [float(v) for v in values if v is not None and not math.isnan(v)]
        if not known:
            return None
        found.append(sign * sum(known) / len(known))
    return tuple(found)


def _best(members: Mapping[str, Values]) -> list[str]:
    """Of one metric the best, the first of equal ones in the order of the plan; of several those that none beats."""
    found = _unbeaten(members)
    return found[:1] if found and len(members[found[0]]) == 1 else found


def _unbeaten(members: Mapping[str, Values]) -> list[str]:
    """Those that no other one beats in one metric without losing in another."""
    return [
        config for config, own in members.items()
        if not any(v != own and all(a >= b for a, b in zip(v, own, strict=True)) for v in members.values())
    ]  # fmt: skip


def _judged(folder: StudyFolder, rows: pandas.DataFrame) -> tuple[set[str], set[str]]:
    """The configurations of a study that can be compared, and the best of them."""
    groups, signs = _groups(folder)
    columns = ["config_id", "replicate", "status", *(name for name in signs if name in rows)]
    judged: set[str] = set()
    members: dict[Group, dict[str, Values]] = {}
    for config, mine in rows[columns].drop_duplicates(["config_id", "replicate"]).groupby("config_id", sort=False):
        values = _values(mine.to_dict("records"), signs) if config in groups else None
        if values is not None:
            judged.add(str(config))
            for group in groups[str(config)]:
                members.setdefault(group, {})[str(config)] = values
    return judged, {best for found in members.values() for best in _best(found)}


def _needed_elsewhere(folder: StudyFolder, configs: set[str]) -> set[str]:
    """Those whose weights another study under this root needs: for its students, because it keeps all, or as its best.
    All, where another study cannot be read: what it needs is not known."""
    needed: set[str] = set()
    for name in list_studies(folder.storage) if configs else ():
        if name == folder.name:
            continue
        other = StudyFolder(folder.storage, name)
        try:
            plan, space = other.plan(), other.resolved().get("space", {})
            needed |= configs & _teaching(plan)
            shared = configs & {entry["config_id"] for entry in plan}
            if shared - needed and space.get("keep_weights") != "none":
                keeps = space.get("keep_weights") == BEST
                needed |= shared & _judged(other, other.rows())[1] if keeps else shared
        except (DamagedError, FileNotFoundError, KeyError, TypeError):
            return configs
    return needed
