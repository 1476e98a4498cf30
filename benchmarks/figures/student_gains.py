"""What students add to teachers that were trained as long, to teachers smoothed over neighbours, to students without a
teacher or without soft labels, and to their own teachers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from records import named, rows_of, with_matched_teachers

from analysis.cells.arrange import arrange
from analysis.cells.differences import (
    TO_MATCHED,
    TO_NO_SOFT_LABELS,
    TO_NO_TEACHER,
    TO_SMOOTHED,
    TO_TEACHER,
    difference_of,
    differences,
)
from analysis.cells.layout import Layout, default_columns, known_panel
from analysis.figures import style
from analysis.statistics.intervals import Interval

MARKS: dict[str, dict[str, Any]] = {
    TO_MATCHED: {"color": "#D55E00", "marker": "D", "markerfacecolor": "white"},
    TO_SMOOTHED: {"color": "#000000", "marker": "^"},
    TO_NO_TEACHER: {"color": "#CC79A7", "marker": "v", "markerfacecolor": "white"},
    TO_NO_SOFT_LABELS: {"color": "#009E73", "marker": "s"},
    TO_TEACHER: {"color": "#0072B2", "marker": "o"},
}
"""By what is on the right of a difference, the hardest first. Of other shapes, so that they differ in grey too; the
rows say it in words."""
NAMES = {
    TO_MATCHED: ("matched", "the teacher, trained as long as both"),
    TO_SMOOTHED: ("smoothed", "the teacher, scores averaged over neighbours"),
    TO_NO_TEACHER: ("no teacher", "the student from new weights"),
    TO_NO_SOFT_LABELS: ("without soft labels", "the student, otherwise the same"),
    TO_TEACHER: ("its teacher", "the one that it learned from"),
}
"""What a row calls the right of its difference, and what the legend says it is."""
DIGITS = "2026-11-22-distill-confirm"
NUCLEI = "2026-11-25-colon-neighbours"
CONTROL = "2026-11-26-colon-control"
PATCHES = "2026-11-28-colon-patches"
FEATURES = "2026-11-26-colon-features"
FEATURES_CONTROL = "2026-11-27-colon-features-control"
SOFT_LABELS = "2026-11-27-soft-labels"
SOFT_LABELS_VAT = "2026-11-27-soft-labels-vat"
FEATURES_SOFT_LABELS = "2026-11-27-colon-features-soft-labels"
PLAIN_SETTINGS = "2026-11-29-plain-settings"
TEACHERS = {"none": "plain", "vat": "VAT", "as_vat": "plain, recipe's", "own": "plain, own", "light": "plain, light"}
"""What an arm of teachers is called; of plain ones also by their learning rate and weight decay."""
LARGEST = 0.1
"""Differences beyond it would leave the others no room: the note says them."""
WIDTH, LETTERS = 5.2, 8.5
"""Inches and points: letters of 11 pixels where the figure is shrunk to 500 pixels, as on a phone."""


@dataclass(frozen=True)
class Entry:
    """A line of the figure. kind: of the difference, a key of `MARKS`."""

    group: str
    name: str
    kind: str
    found: Interval


def draw() -> Figure:
    """A line for each difference with its interval."""
    every = list(_entries())
    entries = [one for one in every if one.found.mean <= LARGEST]
    lines = [line for group in dict.fromkeys(one.group for one in entries)
             for line in (group, *(one for one in entries if one.group == group))]  # fmt: skip
    with style.use("page"):
        figure = style.new_figure()
        figure.set_size_inches(WIDTH, 0.21 * len(lines) + 3.1)
        axis = figure.subplots()
        for y, line in enumerate(lines):
            if isinstance(line, Entry):
                _draw_entry(axis, y, line)
            else:  # a heading is longer than the names below it
                across = blended_transform_factory(figure.transFigure, axis.transData)
                heading = axis.text(0.015, y, line, va="center", fontsize=LETTERS, weight="bold", transform=across)
                heading.set_in_layout(False)
                axis.axhspan(y - 0.5, y + 0.5, color="white", zorder=2.2, lw=0)
        axis.set_yticks(range(len(lines)), [line.name if isinstance(line, Entry) else "" for line in lines])
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(labelsize=LETTERS)
        axis.axvline(0, color=style.GREY, lw=0.9)
        axis.spines["left"].set_visible(False)
        axis.grid(False, axis="y")
        axis.set_xlabel("difference of the AUC of instances", fontsize=LETTERS)
        for kind, (name, meaning) in NAMES.items():
            axis.plot([], [], **MARKS[kind], label=f"{name}: {meaning}")
        figure.legend(loc="outside upper center", title="student of a plain or VAT teacher, minus …", fontsize=LETTERS,
                      title_fontsize=LETTERS, alignment="left")  # fmt: skip
        records = [*with_matched_teachers(), SOFT_LABELS, SOFT_LABELS_VAT, FEATURES_CONTROL, FEATURES_SOFT_LABELS,
                   FEATURES, PATCHES, NUCLEI, CONTROL, DIGITS]  # fmt: skip
        style.footnote(figure, (
            "Mean and 95 % interval of paired differences (their number): of digits over replicates with new bags, of "
            f"nuclei over folds of the same 80 images, corrected for the data that folds share.{_beyond(every)} "
            f"{named(*records).capitalize()}."
        ))  # fmt: skip
    return figure


def _beyond(entries: list[Entry]) -> str:
    """The sentence on the differences that are not drawn."""
    means = [one.found.mean for one in entries if one.found.mean > LARGEST]
    if not means:
        return ""
    names = list(dict.fromkeys(f"{one.group.partition(',')[0]} − {NAMES[one.kind][0]}" for one in entries
                               if one.found.mean > LARGEST))  # fmt: skip
    return f" Not drawn, since it is far beyond: {', '.join(names)}, {min(means):+.2f} to {max(means):+.2f}."


def _draw_entry(axis: Axes, y: int, entry: Entry) -> None:
    found = entry.found
    axis.errorbar(found.mean, y, xerr=found.half_width, **MARKS[entry.kind], capsize=2.5)
    numbers = f"{found.mean:+.3f} ± {found.half_width:.3f} ({found.count})".replace("-", "−")
    axis.text(1.02, y, numbers, transform=axis.get_yaxis_transform(), va="center", fontsize=LETTERS)


def _entries() -> Iterator[Entry]:
    for entry in _of_students("MNIST digits, settings of plain teachers", PLAIN_SETTINGS, "instance_auc"):
        if entry.kind == TO_MATCHED:
            yield entry
    for record in with_matched_teachers():
        if record == PLAIN_SETTINGS:
            continue
        recipe = ", robust recipe" if "robust" in record else f", {record}"
        yield from _of_students(f"MNIST digits{recipe}", record, "instance_auc")
    yield from _soft_labels()
    for entry in _of_students("MNIST digits, soft labels", SOFT_LABELS_VAT, "instance_auc", "bags"):
        if entry.kind == TO_NO_SOFT_LABELS:
            yield entry
    yield from _of_students("Nuclei as vectors, AUC within images", FEATURES_CONTROL, "instance_auc_within")
    group = "Nuclei as vectors, soft labels of neighbours"
    yield from _of_students(group, FEATURES_SOFT_LABELS, "instance_auc_within", "near_bags")
    yield from _of_students("Nuclei as vectors, first study", FEATURES, "instance_auc_within", "near")
    yield from _of_students("Nuclei as patches, AUC within images", PATCHES, "instance_auc_within")
    yield from _control()
    yield from _of_students("Nuclei as patches, first study", NUCLEI, "instance_auc_within")
    yield from _of_students("MNIST digits, settings of version 1", DIGITS, "instance_auc")


def _of_students(group: str, record: str, metric: str, arm: str | None = None) -> Iterator[Entry]:
    """Every difference of a student to its controls and to its own teacher, the hardest first, in each column by
    teacher. arm: of the students, where only one is shown."""
    layout = _layout(record, metric)
    for panel in layout.panels:
        found = [(one.kind, str(one.row.value), one.by_column) for one in differences(layout, panel)]
        for column in layout.columns_of(panel):
            title = f"{group}, {column.text}" if len(layout.columns) > 1 else group
            for kind in MARKS:
                for other, student, by_column in found:
                    teacher, _, own = student.partition(" → ")
                    if other == kind and column in by_column and arm in (None, own):
                        yield Entry(title, _name(kind, teacher), kind, by_column[column])


def _name(kind: str, teacher: str) -> str:
    """What a row is the difference of, which its mark alone would leave to a legend. teacher: its arm."""
    return f"of {TEACHERS.get(teacher, teacher)} − {NAMES[kind][0]}"


def _control() -> Iterator[Entry]:
    """The student of a short teacher against the long one, trained as long as both, and against that teacher."""
    layout = _layout(CONTROL, "instance_auc_within")
    (column,), (panel,) = layout.columns, layout.panels
    cells = {str(row.value): layout.cells[panel, row, column] for row in layout.rows}
    for arm, kind in (("long", TO_MATCHED), ("short", TO_TEACHER)):
        found = difference_of(cells["short → near"], cells[arm])
        yield Entry("Nuclei as patches, ten folds", _name(kind, "none"), kind, found)


def _soft_labels() -> Iterator[Entry]:
    """Students of plain teachers against the same without soft labels, which is an arm of its own there."""
    layout = _layout(SOFT_LABELS, "instance_auc")
    (panel,) = layout.panels
    rows = {str(row.value): row for row in layout.rows}
    for column in layout.columns:
        ours, theirs = (layout.cells[panel, rows[f"none → {arm}"], column] for arm in ("soft", "without"))
        group = f"MNIST digits, soft labels, {column.text}"
        yield Entry(group, _name(TO_NO_SOFT_LABELS, "none"), TO_NO_SOFT_LABELS, difference_of(ours, theirs))


def _layout(record: str, metric: str) -> Layout:
    """The rows of a record as its table arranges them."""
    rows = rows_of(record)
    return arrange(rows, metric, "method", default_columns(rows), known_panel(rows, "mean_bag_size"))
