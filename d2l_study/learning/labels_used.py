"""How many labels of bags a trained network rests on: those of its training bags, and those that chose its snapshot.

Validation labels count as a whole as soon as one choice was made by them: which snapshot is kept, of the network or of
the teachers that it learned from. With `select: last`, and where there is a single validation, they choose nothing, and
a student that selects by its distillation loss asks its teachers alone.

Not counted is what looks at validation labels behind the training: the figures `val_*` themselves, the threshold of the
figures `*_tuned`, temperatures, and the choice among configurations, by a person, a search or a schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEACHERS = ("teacher", "part_teacher", "matched", "pooled", "smoothed", "attention")
"""The stages whose network is a teacher."""


def labels_used(
    stage: str, sections: Mapping[str, Mapping[str, Any]], train_bags: int, val_bags: int | None
) -> int | None:
    """The labels of bags used in all. None if it takes those of validation and their number is not known.

    stage: `teacher`, `student` or a reference; an oracle uses labels of instances besides. sections: `teacher` and
    `student`, as far as the stage has them, key -> value, with lengths in steps.
    """
    if not chosen_by_validation_labels(stage, sections):
        return train_bags
    return None if val_bags is None else train_bags + val_bags


def chosen_by_validation_labels(stage: str, sections: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether labels of validation bags had a say in which weights the network, or a teacher of it, has."""
    if stage in _TEACHERS:
        return _chooses(sections["teacher"])
    student = sections["student"]
    if stage not in ("student", "no_soft_labels"):  # a reference learns, and is selected, from labels themselves
        return _chooses(student)
    distils = student.get("lambda_distill", 1.0) > 0  # else its teacher gives it first weights at most
    taught = distils or student["start"] == "teacher"
    by_distillation = distils and student["select"] == "loss"
    return (taught and _chooses(sections["teacher"])) or (_chooses(student) and not by_distillation)


def snapshot_is_chosen(stage: str, sections: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether validation bags, with labels or without, chose the snapshot of the network or of a teacher of it.

    KeyError if a section lacks the keys that say it.
    """
    read = ("teacher",) if stage in _TEACHERS else ("student", "teacher")
    return any(_chooses(sections[name]) for name in read if name in sections)


def _chooses(section: Mapping[str, Any]) -> bool:
    """Whether a training chooses among snapshots."""
    return bool(section["select"] != "last" and section["eval_every"] < section["steps"])
