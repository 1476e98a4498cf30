"""The plan of a study: its configurations, and which of their runs are still to be done.

A run is (configuration, replicate), a trial is what is missing of one configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2l_study.errors import UserError, listed
from d2l_study.learning.science_version import changes_of
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, configurations, text_of
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import WITHOUT_WEIGHTS, sections_of
from d2l_study.study.space.space import Space


@dataclass(frozen=True)
class PlannedTrial:
    """The missing replicates of one configuration. A worker trains them all, or some of them (`split_for_slots`)."""

    configuration: Configuration
    replicates: tuple[int, ...]

    @property
    def trial_id(self) -> str:
        """The short id of its configuration."""
        return trial_id(self.configuration.config_id)


@dataclass
class Plan:
    """The plan of a study. replicates: asked of each configuration; done: config_id -> replicates that need no
    training."""

    configurations: list[Configuration]
    replicates: int
    done: dict[str, set[int]] = field(default_factory=dict)

    def missing(self, configuration: Configuration) -> tuple[int, ...]:
        """The replicates of a configuration that are not committed."""
        done = self.done.get(configuration.config_id, set())
        return tuple(r for r in range(self.replicates) if r not in done)

    def to_teach(self, configuration: Configuration) -> set[int]:
        """The replicates of a teacher from which a student, or a reference row, is still to be made."""
        learners = [c for c in self.configurations if configuration.config_id in c.teachers]
        return {r for learner in learners for r in self.missing(learner)}

    def undo_teachers_without_weights(self, ledger: Ledger, fresh_of: str | None = None) -> None:
        """Take committed runs of teachers whose weights are not there, though one is still to learn from them, out of
        those that are done. fresh_of: as of `Ledger.read`."""

        def look(c: Configuration) -> None:
            done = self.done.get(c.config_id, set())
            lost = {
                r
                for r in done & self.to_teach(c)
                if ledger.has(c.config_id, r) and not ledger.has_weights(c.config_id, r, fresh_of)
            }
            done -= lost

        ledger.storage.map(look, {c.config_id: c for c in self.configurations if c.teaches}.values())

    def trials(self, limit: int | None = None) -> list[PlannedTrial]:
        """The trials that are to be run, in the order of the plan, at most `limit` of them. A configuration that
        two arms share is trained once."""
        unique = {c.config_id: c for c in self.configurations}
        trials = [PlannedTrial(c, self.missing(c)) for c in unique.values() if self.missing(c)]
        return trials if limit is None else trials[:limit]

    @property
    def trials_total(self) -> int:
        """Distinct configurations."""
        return len({c.config_id for c in self.configurations})

    @property
    def trials_done(self) -> int:
        """Those of them that have no missing run."""
        return self.trials_total - len(self.trials())

    @property
    def runs_total(self) -> int:
        """Runs of all distinct configurations."""
        return self.trials_total * self.replicates

    @property
    def runs_done(self) -> int:
        """Those of them that are committed."""
        return self.runs_total - sum(len(trial.replicates) for trial in self.trials())

    def entries(self) -> list[dict[str, Any]]:
        """The plan as `StudyFolder.write` keeps it, plain values only."""
        return [
            {
                "config_id": c.config_id,
                "stage": c.stage,
                "method": c.method,
                "teacher_id": ",".join(c.teachers) or None,
                "teacher_method": c.teacher_method,
                "student_method": c.student_method,
                "generation": c.values.get("generations", 0) if c.stage == "student" else 0,
                "oracle": c.stage == "oracle",
                "label": c.label,
                "values": c.values,
                "varied": list(c.varied),
                "replicates": list(range(self.replicates)),
                "data_checksum": c.data_checksum,
                "base_seed": c.base_seed,
                "science_version": c.science_version,
                **{f"{stage}_id": config for stage, config in c.controls.items()},
            }
            for c in self.configurations
        ]


def split_for_slots(
    trials: Sequence[PlannedTrial], slots: int, fills: Callable[[Configuration], int] | None = None, gpus: int = 1
) -> list[tuple[Configuration, tuple[int, ...]]]:
    """(configuration, replicates) that one worker trains together, for `slots` trials at a time.

    These are all missing replicates of a configuration. But if fewer configurations than slots can be trained at once,
    the replicates of each are split, so that no slot stays empty. Students wait for their teachers, so teachers and
    students are counted apart. fills: the runs of a configuration that fill a GPU, of `gpus`; see `runs_together`."""
    found = []
    for waits in (False, True):
        side_by_side = [trial for trial in trials if bool(trial.configuration.teachers) == waits]
        runs = sum(len(trial.replicates) for trial in side_by_side)
        for trial in side_by_side:
            together = runs
            if len(side_by_side) < slots:
                full = 1 if fills is None else fills(trial.configuration)
                together = runs_together(runs, slots, full, gpus)
            for first in range(0, len(trial.replicates), together):
                found.append((trial.configuration, trial.replicates[first : first + together]))
    return found


def runs_together(runs: int, slots: int, full: int, gpus: int) -> int:
    """How many of all runs one trial trains at most, so that no slot stays empty. Several slots share a GPU, which
    trains half a stack in little less time than a whole one: a trial is not made smaller than `full`, the runs that
    fill a GPU, as long as every GPU has one."""
    return max(1, math.ceil(runs / slots), min(full, math.ceil(runs / gpus)))


def make_plan(
    space: Space,
    checksum: Checksum,
    ledger: Ledger | None = None,
    asked: list[Configuration] | None = None,
    pruned_by: str | None = None,
    made_by: str | None = None,
    fresh_of: str | None = None,
) -> Plan:
    """The plan of a space. ledger: where it is read which runs are done; without one none is.

    asked: the configurations that a search has asked for so far, instead of those of the space; pruned_by: a study,
    whose runs that it ended early count as done; made_by: the one study whose runs count as done (`--fresh`);
    fresh_of: a study that trained afresh before, whose own records are looked at before those of others.
    """
    plan = Plan(configurations(space, checksum) if asked is None else asked, space.replicates)
    if ledger is not None:

        def look(c: Configuration) -> None:
            # A search may still ask for students of any teacher.
            wanted = space.keep_weights == "all" or (c.teaches and asked is not None)
            with_weights = wanted and c.stage not in WITHOUT_WEIGHTS
            plan.done[c.config_id] = committed_replicates(ledger, c.config_id, with_weights, made_by, fresh_of)
            if pruned_by is not None:
                missing = plan.missing(c)
                plan.done[c.config_id] |= {r for r in missing if ledger.pruned(c.config_id, r, pruned_by) is not None}

        ledger.storage.map(look, plan.configurations)
        plan.undo_teachers_without_weights(ledger, made_by or fresh_of)
    return plan


def committed_replicates(
    ledger: Ledger, config: str, with_weights: bool = False, made_by: str | None = None, fresh_of: str | None = None
) -> set[int]:
    """The replicates of a configuration that are committed. with_weights: only if their weights are kept too; made_by:
    only those that this study trained; fresh_of: as of `Ledger.read`."""
    names = ledger.storage.list(Ledger.config_key(config))
    replicates = (int(name[1:]) for name in names if name.startswith("r") and name[1:].isdecimal())
    return {r for r in replicates if ledger.has_result(config, r, with_weights, made_by, fresh_of)}


def check_extension(folder: StudyFolder, entries: list[dict[str, Any]]) -> None:
    """`UserError`, which shows the differences, if a study exists and was started with other configurations. The number
    of replicates may differ."""
    before, now = folder.plan_or_empty(), entries
    if not before or {(e["method"], e["config_id"]) for e in before} == {(e["method"], e["config_id"]) for e in now}:
        return
    lines = _differences(before, now)
    raise UserError(
        f"study {folder.name!r} was started with another plan:\n"
        + "".join(f"  {line}\n" for line in lines)
        + "To keep both apart, give the new one a name of its own: --study NEWNAME (runs that both contain are "
        "reused); to go on with this study, of which only the new runs are trained: --extend"
    )


def keep_replicates(folder: StudyFolder, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a new plan, with the finished runs of other replicates that the study had before, if fewer are
    asked for now. What is not finished of these leaves the plan: nothing trains it, whoever waited for it would wait
    for ever, and a study would count as failed for runs that nobody asks for."""
    before = {(e["method"], e["config_id"]): e["replicates"] for e in folder.plan_or_empty()}
    others = [
        (entry, replicate)
        for entry in entries
        for replicate in before.get((entry["method"], entry["config_id"]), ())
        if replicate not in entry["replicates"]
    ]
    run: dict[tuple[str, str], list[int]] = {}
    for row in folder.rows_of_runs(others) if others else ():
        if row["status"] == "done":
            run.setdefault((row["method"], row["config_id"]), []).append(row["replicate"])
    return [
        {**e, "replicates": sorted({*e["replicates"], *run.get((e["method"], e["config_id"]), ())})} for e in entries
    ]


def _differences(before: list[dict[str, Any]], now: list[dict[str, Any]], most: int = 8) -> list[str]:
    """The differences between two plans, one key to a line: `key: values before -> values now`."""
    then_ids, now_ids = ({(e["method"], e["config_id"]) for e in part} for part in (before, now))
    head = (
        f"{len(now_ids - then_ids)} of {len(now_ids)} configurations are new, "
        f"{len(then_ids - now_ids)} of {len(then_ids)} are gone"
    )
    about = ("method", "stage", "base_seed", "data_checksum", "science_version")
    sides = [[{**{k: e[k] for k in about if k in e}, **e["values"]} for e in part] for part in (before, now)]
    found = []
    for key in dict.fromkeys(key for side in sides for values in side for key in values):
        old, new = (dict.fromkeys(text_of(values[key]) for values in side if key in values) for side in sides)
        if set(old) != set(new):
            found.append(f"{key}: {listed(old, 8) or '(none)'} -> {listed(new, 8) or '(none)'}")
            if key == "science_version":  # what this version computes in another way than that of the stored study
                what = dict.fromkeys(c.what for e in now for c in changes_of(e["stage"], sections_of(e["values"])))
                found[-1] += f" ({listed(what, 3)})" if what else ""
    if not found:  # the same values, combined in another way
        for method in dict.fromkeys(e["method"] for e in (*before, *now)):
            old_ids, new_ids = ({i for m, i in ids if m == method} for ids in (then_ids, now_ids))
            if old_ids != new_ids:
                counts = f"{len(old_ids)} -> {len(new_ids)} configurations"
                found.append(f"method {method}: {counts}, with other combinations of values")
    return [head, *found[:most]] + ([f"… and {len(found) - most} more"] if len(found) > most else [])
