"""The figure of a distillation study: what each student adds to its own teacher, replicate by replicate, and where the
study has them to its controls, which stand first (`cells.student_controls`).

The spread over replicates is far larger than what distillation changes, so teachers and students drawn side by side,
or as a scatter about the identity line, hide the answer. Drawn are the paired differences: a dot for each replicate
(of folds whose repeats are averaged for each fold), their mean with its 95 % t interval, and the means of both sides
as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.differences import (
    OF_STUDENTS,
    OTHER_SIDE,
    TO_MATCHED,
    TO_NO_SOFT_LABELS,
    TO_NO_TEACHER,
    TO_POOLED,
    TO_SMOOTHED,
    TO_TEACHER,
    difference_of,
)
from analysis.cells.hardware import hardware_differences, hardware_differences_of_pairs, note_suffix
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import Cell, CellKey, Label, Layout, default_columns, known_panel, panel_title, why_no_values
from analysis.cells.student_controls import StudentControls
from analysis.figures import style
from analysis.figures.marks import Mark, marks_of
from analysis.rows.stages import STUDENT
from analysis.statistics.intervals import paired_values, unit_values
from d2l_study.errors import UserError, counted, listed

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.42
"""Of one student whose label has at most two lines, in inches."""
DOTS_BELOW = 0.27
"""How far the replicates stand below the mean, in rows."""


@dataclass(frozen=True)
class _Line:
    """A line of the figure: a student minus its teacher or one of its controls.

    row: the student's; kind: of the difference (`OF_STUDENTS`); text: its name in the figure.
    """

    row: Label
    kind: str
    text: str

    def other(self, cell: Cell, controls: StudentControls) -> Cell | None:
        """What stands on the right of the difference of a student's cell."""
        return OTHER_SIDE[self.kind][1](controls, cell)


_SHORT = {TO_MATCHED: "matched", TO_SMOOTHED: "smoothed", TO_POOLED: "pooled", TO_NO_TEACHER: "no_teacher",
          TO_NO_SOFT_LABELS: "without soft labels", TO_TEACHER: "its teacher"}  # fmt: skip
"""Kind of a difference -> what stands on its right, as lines name it."""


def draw_pairs(
    rows: pandas.DataFrame,
    metric: str | None = None,
    *,
    column_key: str | None = None,
    panel_key: str | None = "mean_bag_size",
    size: str = "page",
) -> Figure:
    """Student minus teacher for each student of a study's rows (`analysis.load`), one panel per cell of the table:
    minus the controls that there are, and minus its own.

    metric: by default the instance AUC
    column_key: by default that of the table: num_bags, of folds the metric
    UserError for an unknown metric or key, or a study in which no finished student stands beside its teacher.
    """
    column_key = column_key or default_columns(rows)
    layout = arrange(rows, metric, "method", column_key, known_panel(rows, panel_key))
    controls = StudentControls(layout)
    taught = {cell_key: cell for cell_key, cell in layout.cells.items() if cell.origin.stage == STUDENT}
    students = [row for row in layout.rows if any(row == cell_key[1] for cell_key in taught)]
    lines = _lines(students, taught, controls)
    others = {
        (line, cell_key): line.other(cell, controls)
        for line in lines for cell_key, cell in taught.items() if cell_key[1] == line.row
    }  # fmt: skip
    if not any(_pairs(taught[cell_key], other) for (_, cell_key), other in others.items()):
        raise UserError(
            f"study {layout.study!r} has no finished student beside its teacher with {layout.metric.name}"
            f"{why_no_values(layout)}: there is nothing to pair"
        )
    panels = [(p, c) for p in layout.panels for c in layout.columns if any((p, r, c) in taught for r in students)]
    marks = marks_of(layout)
    with style.use(size) as chosen:
        # The names take at most two fifths of the width.
        labels = [style.wrapped(line.text, int(0.4 * chosen.width / style.INCHES_PER_LABEL_LETTER)) for line in lines]
        # The numbers on the right and the names on the left leave a page room for one panel and a half.
        across = min(len(layout.columns), max(1, chosen.across - 1), len(panels))
        down = math.ceil(len(panels) / across)
        figure = style.new_figure()
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        more = sum(max(0, label.count("\n") - 1) for label in labels)
        chosen.set_size_of(figure, (ROW_HEIGHT * len(lines) + 0.12 * more + 0.7) * down + 0.5)
        for i, axis in enumerate(axes.flat):
            if i >= len(panels):
                axis.set_visible(False)
                continue
            panel, column = panels[i]
            axis.set_title(panel_title(panel, column))
            axis.axvline(0, color=style.GREY, lw=1.0, zorder=1)
            for position, line in enumerate(lines):
                cell_key = (panel, line.row, column)
                if cell_key in taught:
                    _draw_student(axis, position, taught[cell_key], others[line, cell_key], marks[line.row])
            axis.annotate("other → student", (1.02, 1.0), xycoords="axes fraction", fontsize="small", va="bottom",
                          color=style.GREY)  # fmt: skip
            axis.set_yticks(range(len(lines)), labels)
            axis.set_ylim(len(lines) - 0.4, -0.6)
            axis.grid(False, axis="y")
            axis.locator_params(axis="x", nbins=6 if chosen.width / across > 4 else 3)
            if i + across >= len(panels):
                axis.tick_params(axis="x", labelbottom=True)
                axis.set_xlabel(f"difference of {layout.metric.title}")
            _separate_teachers(axis, layout, [line.row for line in lines])
        figure.suptitle(
            f"{layout.metric.heading}: student − {'its teacher' if not _controlled(lines) else 'teacher and controls'}",
            fontsize="large",
        )
        style.footnote(figure, _note(layout, taught, others))
    return figure


def _lines(students: list[Label], taught: Mapping[CellKey, Cell], controls: StudentControls) -> list[_Line]:
    lines = []
    for row in students:
        cells = [cell for cell_key, cell in taught.items() if cell_key[1] == row]
        for kind in OF_STUDENTS:
            if kind == TO_TEACHER or any(OTHER_SIDE[kind][1](controls, cell) is not None for cell in cells):
                lines.append(_Line(row, kind, f"{row.text} − {_SHORT[kind]}"))
    return lines if _controlled(lines) else [replace(line, text=line.row.text) for line in lines]


def _controlled(lines: Iterable[_Line]) -> bool:
    """Whether a student is compared with anything but its own teacher."""
    return any(line.kind != TO_TEACHER for line in lines)


def _draw_student(axis: Axes, position: int, cell: Cell, other: Cell | None, mark: Mark) -> None:
    both = _pairs(cell, other)
    if other is None or not both:
        text = cell.status if not cell.values else "not here" if other is None else "no pair"
        axis.annotate(text, (0.02, position), xycoords=("axes fraction", "data"), va="center", color=style.GREY,
                      fontsize="small", style="italic",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        return
    interval = difference_of(cell, other)
    dots = paired_values(cell.values, other.values, cell.units)
    axis.plot(dots, [position + DOTS_BELOW] * len(dots), "o", color=mark.colour, markersize=3.2, alpha=0.45,
              markeredgewidth=0, zorder=2)  # fmt: skip
    if interval.has_bounds:
        bounds = [interval.lower, interval.upper]
        axis.plot(bounds, [position] * 2, color=mark.colour, lw=1.4, zorder=3)
        axis.plot(bounds, [position] * 2, "|", color=mark.colour, markersize=6, zorder=3)
    face = "white" if _is_hollow(cell, both) else mark.colour
    axis.plot([interval.mean], [position], mark.marker, color=mark.colour, markerfacecolor=face, zorder=4)
    before, after = (float(np.mean(unit_values({r: one.values[r] for r in both}, cell.units)))
                     for one in (other, cell))  # fmt: skip
    lost = ", no interval" if interval.is_void else ""
    numbers = f"{before:.4f} → {after:.4f} ({interval.count}{lost})"
    axis.annotate(numbers, (1.02, position), xycoords=("axes fraction", "data"), va="center", fontsize="small",
                  annotation_clip=False)  # fmt: skip


def _pairs(cell: Cell, other: Cell | None) -> list[int]:
    """The replicates that a student and what it is compared with both have."""
    return sorted(cell.values.keys() & other.values.keys()) if other is not None else []


def _is_hollow(cell: Cell, both: list[int]) -> bool:
    """Whether a student has fewer pairs than planned."""
    return len(both) < cell.planned_runs


def _separate_teachers(axis: Axes, layout: Layout, students: list[Label]) -> None:
    origins = {row: cell.origin.teacher_method for (_, row, _), cell in layout.cells.items()}
    if len({origins[row] for row in students}) == len(students):
        return
    for position in range(1, len(students)):
        if origins[students[position - 1]] != origins[students[position]]:
            axis.axhline(position - 0.5 + 0.05, color="#BBBBBB", lw=0.7)


def _note(layout: Layout, taught: Mapping[CellKey, Cell], others: Mapping[tuple[_Line, CellKey], Cell | None]) -> str:
    kind = "corrected t" if layout.has_folds else "t"
    text = f"dots: {layout.units_text}; mean and 95 % {kind} interval of the paired differences"
    text += f"; {layout.metric.better} is better"
    kinds = {line.kind for line, _ in others}
    if TO_MATCHED in kinds:
        text += "; matched: the teacher trained for as long as student and teacher together, with the student's "
        text += "augmentation and noise"
    if TO_SMOOTHED in kinds:
        text += "; smoothed: the teacher, its scores averaged over neighbours"
    if TO_POOLED in kinds:
        text += "; pooled: the teacher, its bags read by their highest instance"
    if TO_NO_TEACHER in kinds:
        text += "; no_teacher: the student from new weights, on known negatives and its bag labels"
    if TO_NO_SOFT_LABELS in kinds:
        text += "; without soft labels: the student from the same weights, on known negatives and its bag labels"
    pairs_drawn = ((taught[cell_key], _pairs(taught[cell_key], other)) for (_, cell_key), other in others.items())
    if any(both and _is_hollow(cell, both) for cell, both in pairs_drawn):
        text += "; hollow: fewer pairs than planned"
    infinite = [line.text for (line, cell_key), other in others.items()
                if other is not None and math.isinf(difference_of(taught[cell_key], other).mean)]  # fmt: skip
    if infinite:
        text += f"; not drawn: {counted(len(infinite), 'infinite mean')} ({listed(dict.fromkeys(infinite), 6)})"
    pairs = ((line.text, taught[cell_key], other) for (line, cell_key), other in others.items() if other is not None)
    said = [*hardware_differences(layout), *hardware_differences_of_pairs(pairs), *labels_used_sentences(layout)]
    return text + note_suffix(said)
