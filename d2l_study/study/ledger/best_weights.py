"""`keep_weights: best`: a study keeps the weights of the best configuration of each arm, and drops the others.

The best configuration has the largest mean of `val_bag_auc` over replicates: validation alone decides. In a search its
own metrics decide, for each arm at each point of its axes, and of several objectives the Pareto front stays. Weights
are dropped as soon as a better configuration has ended, so that a large study never holds many of them.

The weights of teachers of students are never dropped, nor those that another study made or needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.errors import DamagedError
from d2l_study.learning.part_config import PART_TEACHER
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
"""The means over replicates, one for each metric, with signs such that larger is better."""


class BestWeights:
    """Drops the weights of configurations that have ended and are not the best of their arm."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._compared: dict[Group, dict[str, Values]] = {}
        self._replicates: dict[str, list[int]] = {}
        self._groups: tuple[dict[str, list[Group]], dict[str, int]] | None = None

    def configuration_ended(self, config: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Called when all runs of a configuration have ended. rows: those of `StudyFolder.rows_of`."""
        if self._groups is None or config not in self._groups[0]:  # a search adds to its plan as it goes
            self._groups = _groups(self.folder)
        groups, signs = self._groups
        values = _values(rows, signs, self.folder.replicates_asked)
        if config not in groups or values is None:
            return
        self._replicates[config] = [row["replicate"] for row in rows if row.get("made_by") == self.folder.name]
        for group in groups[config]:
            self._compared.setdefault(group, {})[config] = values
        chosen = {best for members in self._compared.values() for best in _pareto_front(members)}
        fallen = {c for members in self._compared.values() for c in members} - chosen
        self._drop(fallen)
        self._compared = {
            group: {c: v for c, v in members.items() if c not in fallen} for group, members in self._compared.items()
        }

    def study_ended(self, rows: pandas.DataFrame) -> None:
        """Called at the end of a command: compares all configurations of the study. rows: those of
        `StudyFolder.rows`."""
        judged, chosen = _judged(self.folder, rows)
        mine = rows[(rows["status"] == "done") & (rows.get("made_by") == self.folder.name)]
        self._replicates = {str(config): found.tolist() for config, found in mine.groupby("config_id")["replicate"]}
        self._drop(judged - chosen)

    def _drop(self, configs: set[str]) -> None:
        configs = {config for config in configs if self._replicates.get(config)}
        for config in configs - _needed_elsewhere(self.folder, configs):
            for replicate in self._replicates[config]:
                self.folder.ledger.drop_file(config, replicate, WEIGHTS, self.folder.name)


def best_of_arms(folder: StudyFolder, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Arm -> config_id of its best configuration, of those that have ended. Arms of teachers of students have one, too.

    The largest mean over replicates decides, of the validation bag AUC, or of the first metric of a search; of equal
    ones the first in the plan. rows: as of `StudyFolder.rows`.
    """
    name, sign = next(iter(_groups(folder)[1].items()))
    asked = folder.replicates_asked
    by_config: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(str(row["config_id"]), {})[int(row["replicate"])] = row
    best: dict[str, tuple[float, str]] = {}
    for entry in folder.plan():
        if entry["stage"] == PART_TEACHER:  # no arm of the study
            continue
        arm, config = str(entry["method"]), str(entry["config_id"])
        values = _values([*by_config.get(config, {}).values()], {name: sign}, asked)
        if values is not None and (arm not in best or values[0] > best[arm][0]):
            best[arm] = (values[0], config)
    return {arm: config for arm, (_, config) in best.items()}


def _groups(folder: StudyFolder) -> tuple[dict[str, list[Group]], dict[str, int]]:
    """config_id -> the groups in which it is compared, without teachers of students; metric -> 1 if more is better, −1
    if less is."""
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


def _values(rows: Sequence[Mapping[str, Any]], signs: Mapping[str, int], asked: float) -> Values | None:
    """The means over finished runs of the first `asked` replicates; None while a run is missing, or if no run has a
    value of a metric."""
    rows = [row for row in rows if row["replicate"] < asked]
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
    """Of one metric the best configuration, of equal ones the first; of several metrics the Pareto front."""
    found = _pareto_front(members)
    return found[:1] if found and len(members[found[0]]) == 1 else found


def _pareto_front(members: Mapping[str, Values]) -> list[str]:
    """The Pareto front: configurations such that no other one is better in a metric and worse in none."""
    return [
        config for config, own in members.items()
        if not any(v != own and all(a >= b for a, b in zip(v, own, strict=True)) for v in members.values())
    ]  # fmt: skip


def _judged(folder: StudyFolder, rows: pandas.DataFrame) -> tuple[set[str], set[str]]:
    """The configurations of a study that can be compared, and the best of them."""
    groups, signs = _groups(folder)
    asked = folder.replicates_asked
    columns = ["config_id", "replicate", "status", *(name for name in signs if name in rows)]
    judged: set[str] = set()
    members: dict[Group, dict[str, Values]] = {}
    for config, mine in rows[columns].drop_duplicates(["config_id", "replicate"]).groupby("config_id", sort=False):
        values = _values(mine.to_dict("records"), signs, asked) if config in groups else None
        if values is not None:
            judged.add(str(config))
            for group in groups[str(config)]:
                members.setdefault(group, {})[str(config)] = values
    return judged, {best for found in members.values() for best in _best(found)}


def _needed_elsewhere(folder: StudyFolder, configs: set[str]) -> set[str]:
    """The configurations whose weights another study under this root needs: for its students, because it keeps all
    weights, or because they are its best. All of them if another study cannot be read."""
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
