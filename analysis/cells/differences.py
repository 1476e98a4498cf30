"""Paired differences of the cells of a table: a method minus the plain one, a student minus each of its controls and
minus its own teacher.

All are paired by replicate: the same bags stand on both sides, so what the bags alone do to a metric cancels; where
they do not, there is no difference. A
student is paired with the very teacher it learned from (`teacher_id`; of an ensemble the first), and with its own
controls (`cells.student_controls`), wherever these stand in the table. What the intervals say and assume is in
`statistics.intervals`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from analysis.cells.layout import Cell, Label, Layout
from analysis.cells.other_bags import share_bags
from analysis.cells.student_controls import StudentControls
from analysis.rows.stages import MATCHED, NO_SOFT_LABELS, STUDENT, TEACHER
from analysis.statistics.intervals import Interval, paired_difference, paired_values
from analysis.statistics.paired_tests import TestResult, corrected_t

BASELINE = "none"
"""The arm that others are compared with, where a study has it; else it is the first."""
TO_TEACHER: Final = "student_minus_teacher"
TO_MATCHED: Final = "student_minus_matched"
TO_NO_SOFT_LABELS: Final = "student_minus_no_soft_labels"
TO_SMOOTHED: Final = "student_minus_smoothed"
TO_POOLED: Final = "student_minus_pooled"
TO_NO_TEACHER: Final = "student_minus_no_teacher"
OF_STUDENTS = (TO_MATCHED, TO_SMOOTHED, TO_POOLED, TO_NO_TEACHER, TO_NO_SOFT_LABELS, TO_TEACHER)
"""The kinds of differences that have a student on their left, in the order of tables."""
TO_BASELINE: Final = "method_minus_none"


@dataclass(frozen=True)
class Difference:
    """One row of differences: `row` minus `baseline`, by column."""

    kind: str
    """One of `OF_STUDENTS`, or `TO_BASELINE`."""
    row: Label
    baseline: str
    by_column: Mapping[Label, Interval]
    tests: Mapping[Label, TestResult] = field(default_factory=dict)
    """By column the paired t test, corrected for folds of one data set; p-values as they are, for Holm to correct."""

    @property
    def text(self) -> str:
        """The name of the row of differences: `vat − none`."""
        who = self.row.text if self.row.key == "method" else f"{self.row.text}: student"
        return f"{who} − {self.baseline}"


def difference_of(cell: Cell, other: Cell) -> Interval:
    """cell − other, paired by replicate, with the interval that folds of one data set ask for."""
    return paired_difference(
        cell.values, other.values, test_train_ratio=cell.test_train_ratio, units=cell.units,
        unit_interval=cell.metric.unit_interval,
    )  # fmt: skip


def paired_test_of(cell: Cell, other: Cell) -> TestResult:
    """Student's paired t test of cell − other, corrected where replicates are folds."""
    return corrected_t(paired_values(cell.values, other.values, cell.units), cell.test_train_ratio or 0.0)


def differences(layout: Layout, panel: Label) -> list[Difference]:
    """All differences of a panel that have a pair: methods minus the plain one first, then students minus their
    controls, in the order of `OF_STUDENTS`, and last minus their own teachers."""
    return [
        *_to_baseline(layout, panel),
        *(one for kind in OF_STUDENTS for one in _of_students(layout, panel, kind)),
    ]


OTHER_SIDE: Final[Mapping[str, tuple[str, Callable[[StudentControls, Cell], Cell | None]]]] = {
    TO_MATCHED: ("its matched teacher", lambda controls, cell: controls.control(MATCHED, cell)),
    TO_SMOOTHED: ("its smoothed teacher", StudentControls.smoothed),
    TO_POOLED: ("its pooled teacher", StudentControls.pooled),
    TO_NO_TEACHER: ("no_teacher", StudentControls.no_teacher),
    TO_NO_SOFT_LABELS: ("the same without soft labels", lambda controls, cell: controls.control(NO_SOFT_LABELS, cell)),
    TO_TEACHER: ("its teacher", StudentControls.teacher),
}
"""Kind of a student's differences -> what stands on their right: its name, and the cell of it for a student's."""


def _to_baseline(layout: Layout, panel: Label) -> list[Difference]:
    """Empty unless methods are the rows. Where the plain arm has several configurations, a method is compared with the
    one that agrees with it in stage and in every key that both labels name."""
    if layout.row_key != "method":
        return []
    rows, plain = layout.rows_of(panel), plain_arm(layout)
    by_stage: dict[str | None, list[Label]] = {}
    for row in rows:
        if row.value == plain:
            by_stage.setdefault(row.stage, []).append(row)
    columns, found = layout.columns_of(panel), []
    for row in rows:
        baseline = baseline_for(row, by_stage.get(row.stage, []), partial(share_bags, layout, panel, row))
        if baseline is None:
            continue
        pairs = {}
        for column in columns:
            ours, theirs = layout.cells.get((panel, row, column)), layout.cells.get((panel, baseline, column))
            if ours is not None and theirs is not None and not ours.source.differences(theirs.source):
                pairs[column] = (ours, theirs)
        found += _difference(TO_BASELINE, row, baseline.text, pairs)
    return found


def plain_arm(layout: Layout) -> str | None:
    """The arm that the others of its stage are compared with: `none`, else the first of the teachers that has one row
    in each panel. None where there is none, or of several studies, whose first arms need not be plain."""
    if any(row.value == BASELINE for row in layout.rows):
        return BASELINE
    rows = [row for row in layout.rows if row.stage in (None, TEACHER)]
    if not rows or layout.by_study or len({row.value for row in rows}) < 2:
        return None
    first = rows[0].value
    counts = [sum(row.value == first for row in layout.rows_of(panel)) for panel in layout.panels]
    return str(first) if max(counts, default=0) == 1 else None


def rows_without_baseline(layout: Layout) -> list[Label]:
    """The methods that are not compared with `none` in some panel, since several of its rows are called so."""
    found: dict[Label, None] = {}
    for panel in layout.panels if layout.row_key == "method" else ():
        rows = layout.rows_of(panel)
        for row in rows:
            same = [one for one in rows if (one.value, one.stage, one.study) == (BASELINE, row.stage, row.study)]
            shares_bags = partial(share_bags, layout, panel, row)
            if row.value != BASELINE and len(same) > 1 and baseline_for(row, same, shares_bags) is None:
                found[row] = None
    return [*found]


def _of_students(layout: Layout, panel: Label, kind: str) -> list[Difference]:
    """Students minus what stands on the right of the kind."""
    baseline, other_of = OTHER_SIDE[kind]
    if not any(cell.origin.stage == STUDENT for cell in layout.cells.values()):
        return []
    controls = StudentControls(layout)
    columns, found = layout.columns_of(panel), []
    for row in layout.rows_of(panel):
        pairs = {}
        for column in columns:
            cell = layout.cells.get((panel, row, column))
            other = other_of(controls, cell) if cell is not None else None
            if cell is not None and other is not None:
                pairs[column] = (cell, other)
        found += _difference(kind, row, baseline, pairs)
    return found


def _difference(kind: str, row: Label, baseline: str, pairs: Mapping[Label, tuple[Cell, Cell]]) -> list[Difference]:
    """The row of differences; none where no column has a pair."""
    by_column = {column: difference_of(*pair) for column, pair in pairs.items()}
    if not any(interval.count for interval in by_column.values()):
        return []
    return [
        Difference(kind, row, baseline, by_column, {column: paired_test_of(*pair) for column, pair in pairs.items()})
    ]


def baseline_for(row: Label, baselines: Sequence[Label], shares_bags: Callable[[Label], bool]) -> Label | None:
    """The one of the baselines that a row is compared with: always of the row's own study where rows name that, and of
    its own stage where there is one, else of the others; of several, the one that agrees with the row in every key that
    both labels name. None for a baseline, and where none or more than one is left.

    shares_bags: whether a baseline was tested on the same bags as the row; where none was, the first is returned, so
    that it can be said why the two are not compared
    """
    if row in baselines:
        return None
    ours = dict(row.keys)
    baselines = [b for b in baselines if b.study == row.study]
    left = [b for b in baselines if b.stage == row.stage] or [*baselines]
    two = [*itertools.islice((b for b in left if shares_bags(b)), 2)]  # of a thousand, to ask each takes long
    if len(two) < 2:
        return next(iter(two or left), None)
    left = [b for b in left if all(ours.get(k, v) == v for k, v in b.keys) and shares_bags(b)]
    return left[0] if len(left) == 1 else None
