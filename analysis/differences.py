"""Paired differences of the cells of a table: a method minus the method `none`, a student minus its teacher.

Both are paired by replicate: the same bags stand on both sides, so what the bags alone do to a metric cancels. A
student is paired with the very teacher it learned from (`teacher_id`; of an ensemble the first), wherever that
stands in the table. What the intervals say and assume is in `intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from analysis.intervals import Interval, paired_difference
from analysis.layout import Cell, Label, Layout
from analysis.stages import STUDENT

BASELINE = "none"
TO_TEACHER: Final = "student_minus_teacher"
TO_BASELINE: Final = "method_minus_none"


@dataclass(frozen=True)
class Difference:
    """One row of differences: `row` minus `baseline`, by column."""

    kind: str
    """`TO_TEACHER` or `TO_BASELINE`."""
    row: Label
    baseline: str
    by_column: Mapping[Label, Interval]

    @property
    def text(self) -> str:
        who = self.row.text if self.row.key == "method" else f"{self.row.text}: student"
        return f"{who} − {self.baseline}"


def differences(layout: Layout, panel: Label) -> list[Difference]:
    """All differences of a panel that have a pair: methods minus `none` first, then students minus their teachers."""
    return [*_to_baseline(layout, panel), *_to_teacher(layout, panel)]


def teachers_by_id(layout: Layout) -> dict[str, Cell]:
    """The cells by configuration, for `teacher_of`. A configuration that two arms share is the same runs in both."""
    return {cell.origin.config_id: cell for cell in layout.cells.values()}


def teacher_of(cell: Cell, by_id: Mapping[str, Cell]) -> Cell | None:
    """The cell of the teacher that a student's cell learned from; None for what is no student, or has none here."""
    origin = cell.origin
    return by_id.get(origin.teacher_id) if origin.stage == STUDENT and origin.teacher_id is not None else None


def _to_baseline(layout: Layout, panel: Label) -> list[Difference]:
    """Empty unless methods are the rows and one of them is `none`. Where `none` has several configurations, a method
    is compared with the one that agrees with it in stage and in every key that both labels name."""
    if layout.row_key != "method":
        return []
    rows = layout.rows_of(panel)
    baselines = [row for row in rows if row.value == BASELINE]
    found = []
    for row in rows:
        baseline = _baseline_of(row, baselines)
        if baseline is None:
            continue
        by_column = {}
        for column in layout.columns_of(panel):
            ours, theirs = layout.cells.get((panel, row, column)), layout.cells.get((panel, baseline, column))
            if ours is not None and theirs is not None:
                by_column[column] = paired_difference(ours.values, theirs.values)
        if any(i.count for i in by_column.values()):
            found.append(Difference(TO_BASELINE, row, baseline.text, by_column))
    return found


def _to_teacher(layout: Layout, panel: Label) -> list[Difference]:
    by_id = teachers_by_id(layout)
    found = []
    for row in layout.rows_of(panel):
        by_column = {}
        for column in layout.columns_of(panel):
            cell = layout.cells.get((panel, row, column))
            teacher = teacher_of(cell, by_id) if cell is not None else None
            if cell is not None and teacher is not None:
                by_column[column] = paired_difference(cell.values, teacher.values)
        if any(i.count for i in by_column.values()):
            found.append(Difference(TO_TEACHER, row, "its teacher", by_column))
    return found


def _baseline_of(row: Label, baselines: list[Label]) -> Label | None:
    if row.value == BASELINE:
        return None
    ours = dict(row.keys)
    same_stage = [b for b in baselines if b.stage == row.stage]
    if len(same_stage) > 1:
        same_stage = [b for b in same_stage if all(ours.get(k, v) == v for k, v in b.keys)]
    return same_stage[0] if len(same_stage) == 1 else None
