"""The stages of a distillation study: in which order and groups they are shown, and what a reader must know of them.

A study has teachers, students that learned from them, and reference rows. The oracle has seen the true instance
labels, which nothing else may see: it is marked in every table and figure, and never the best of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2l_study.errors import UserError, counted
from d2l_study.learning.controls import CONTROLS

if TYPE_CHECKING:
    import pandas

TEACHER, STUDENT, ORACLE = "teacher", "student", "oracle"
MATCHED, NO_SOFT_LABELS = CONTROLS
POOLED, SMOOTHED, NO_TEACHER = "pooled", "smoothed", "no_teacher"
ORACLE_SEARCH_NOTE = "ORACLE: the settings were searched for with true instance labels."
PART_TEACHER = "part_teacher"
"""Trained on a part of the training bags, to label the others for a student: no result, and in no table or figure."""
REFERENCES = (*CONTROLS, POOLED, SMOOTHED, NO_TEACHER, "bag_label", "attention", "cam", "peak", ORACLE)
WITHOUT_PROBABILITY = ("attention",)
"""Stages whose instance scores rank, and are no logits of a probability: they have no calibration, no likelihood, no
Brier score and no figure at a probability of 0.5."""
NO_MATCHED_NOTE = (
    "No teacher of equal training is among the rows (references: matched): what a student gains over its teacher may "
    "come from longer training."
)
"""Of students that are compared with their teachers, without the control that was trained as long, with the same
noise."""
ORACLE_MARK = "†"
"""Stands behind the name of whatever has seen the true instance labels."""

MEANINGS = {
    MATCHED: "matched (“its matched teacher”): the teacher trained anew with the student's augmentation and noise, for "
    "as many instance visits as teacher and student together",
    NO_SOFT_LABELS: "no_soft_labels (“the same without soft labels”): the student from the same weights of its "
    "teacher, trained on known negatives, and on bag labels where it reads them",
    POOLED: "pooled (“its pooled teacher”): the teacher, its bags read by their highest instance score",
    SMOOTHED: "smoothed (“its smoothed teacher”): the teacher, its instance scores averaged over neighbours",
    NO_TEACHER: "no_teacher: the student from new weights, without a teacher's labels, trained on known negatives, "
    "and on bag labels where it reads them",
    "bag_label": "bag_label: an instance classifier trained on the labels of the bags",
    "attention": "attention: the teacher's attention as the score of an instance",
    "cam": "cam: a class activation map, of a network trained on whole images, where the instance is",
    "peak": "peak: such a map, trained by its peaks",
    ORACLE: f"{ORACLE_MARK} oracle: trained on the true instance labels, which no other row has seen; for "
    "orientation, never compared",
}
_ORDER = (TEACHER, STUDENT, None, *REFERENCES)


def sort_order(stage: str | None) -> int:
    """Where a stage stands among the others: teachers, students, stages not known here, references."""
    return _ORDER.index(stage if stage in _ORDER else None)


def group_heading(stage: str | None) -> str:
    """The heading that a stage stands under; empty for a stage not known here."""
    return "references" if stage in REFERENCES else {TEACHER: "teachers", STUDENT: "students"}.get(stage or "", "")


def without_part_teachers(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows that tables and figures show. `UserError` if there are rows, and none of these."""
    kept = rows[rows["stage"] != PART_TEACHER] if (rows["stage"] == PART_TEACHER).any() else rows
    if kept.empty and not rows.empty:
        raise UserError("the rows are of part teachers alone, which label bags for students and are no results; there "
                        "is nothing to show")  # fmt: skip
    return kept


def part_teacher_notes(rows: pandas.DataFrame) -> list[str]:
    """What a reader must know of the part teachers among the rows: how many there are, and how much training saw."""
    of_parts = rows["stage"] == PART_TEACHER
    if not of_parts.any():
        return []
    mine = rows[of_parts]
    count = mine["config_id"].nunique()
    note = f"{counted(count, 'part teacher')}, which label bags for cross-fitted students, are left out"
    seen = mine["instance_visits"].dropna() if "instance_visits" in mine else mine["stage"].iloc[:0]
    if len(seen):
        least, most = round(seen.min()), round(seen.max())
        saw = f"{least:,}" + (f" to {most:,}" if most > least else "")
        note += f"; the training of each saw {saw} instances, which no other row counts"
    return [f"{note}. Such a student's teacher is the one that was trained on all bags."]


def default_metric(rows: pandas.DataFrame) -> str:
    """What a study is about: the instance AUC where it has students and instances of known label, the bag AUC
    otherwise; of a search what it looked at, since its test figures choose nothing."""
    if rows.attrs.get("search", {}).get("metric") in rows:
        return str(rows.attrs["search"]["metric"])
    if "instance_auc" not in rows or not (rows["stage"] == STUDENT).any():
        return "bag_auc"
    measured = rows["status"].eq("done")
    return "bag_auc" if measured.any() and rows.loc[measured, "instance_auc"].isna().all() else "instance_auc"
