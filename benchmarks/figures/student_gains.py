"""What students add to their teachers, to teachers that were trained as long, and to themselves without soft labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from records import named, rows_of, with_matched_teachers

from analysis.cells.arrange import arrange
from analysis.cells.differences import TO_MATCHED, TO_NO_SOFT_LABELS, TO_TEACHER, difference_of, differences
from analysis.cells.layout import Layout, default_columns, known_panel
from analysis.figures import style
from analysis.statistics.intervals import Interval

OWN, EQUAL, WITHOUT = "#0072B2", "#D55E00", "#009E73"
MARKS: dict[str, dict[str, Any]] = {
    TO_TEACHER: {"color": OWN, "marker": "o"},
    TO_MATCHED: {"color": EQUAL, "marker": "D", "markerfacecolor": "white"},
    TO_NO_SOFT_LABELS: {"color": WITHOUT, "marker": "s"},
}
"""Of other shapes, so that they differ in grey too; the rows say it in words."""
DIGITS = "2026-11-22-distill-confirm"
NUCLEI = "2026-11-25-colon-neighbours"
CONTROL = "2026-11-26-colon-control"
FEATURES = "2026-11-26-colon-features"
FEATURES_CONTROL = "2026-11-27-colon-features-control"
SOFT_LABELS = "2026-11-27-soft-labels"
SOFT_LABELS_VAT = "2026-11-27-soft-labels-vat"
FEATURES_SOFT_LABELS = "2026-11-27-colon-features-soft-labels"
TEACHERS = {"none": "plain", "vat": "VAT"}


@dataclass(frozen=True)
class Entry:
    """A line of the figure. kind: of the difference, a key of `MARKS`."""

    group: str
    name: str
    kind: str
    found: Interval


def draw() -> Figure:
    """A line for each difference with its interval."""
    entries = list(_entries())
    lines = [line for group in dict.fromkeys(one.group for one in entries)
             for line in (group, *(one for one in entries if one.group == group))]  # fmt: skip
    with style.use("page") as size:
        figure = style.new_figure()
        size.set_size_of(figure, 0.23 * len(lines) + 1.2)
        axis = figure.subplots()
        for y, line in enumerate(lines):
            if isinstance(line, Entry):
                _draw_entry(axis, y, line)
        axis.set_yticks(range(len(lines)), [line.name if isinstance(line, Entry) else line for line in lines])
        for label, line in zip(axis.get_yticklabels(), lines, strict=True):
            label.set_fontweight("normal" if isinstance(line, Entry) else "bold")
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.axvline(0, color=style.GREY, lw=0.9)
        axis.grid(False, axis="y")
        axis.set_xlabel("difference of the AUC of instances")
        for kind, name in (
            (TO_TEACHER, "its own teacher"),
            (TO_MATCHED, "matched teacher, trained as long as both"),
            (TO_NO_SOFT_LABELS, "itself without soft labels"),
        ):
            axis.plot([], [], **MARKS[kind], label=name)
        figure.legend(loc="outside upper center", ncols=3, title="student minus …")
        records = [DIGITS, *with_matched_teachers(), SOFT_LABELS, SOFT_LABELS_VAT, NUCLEI, CONTROL, FEATURES,
                   FEATURES_CONTROL, FEATURES_SOFT_LABELS]  # fmt: skip
        style.footnote(figure, (
            "Mean and 95 % interval of paired differences (their number): of digits over replicates with new bags, of "
            f"nuclei over folds of the same 80 images, corrected for the data that folds share; {named(*records)}."
        ))  # fmt: skip
    return figure


def _draw_entry(axis: Axes, y: int, entry: Entry) -> None:
    found = entry.found
    axis.errorbar(found.mean, y, xerr=found.half_width, **MARKS[entry.kind], capsize=2.5)
    numbers = f"{found.mean:+.3f} ± {found.half_width:.3f} ({found.count})".replace("-", "−")
    axis.text(1.02, y, numbers, transform=axis.get_yaxis_transform(), va="center", fontsize=7.5)


def _entries() -> Iterator[Entry]:
    for group, record in _digit_records():
        yield from _of_students(group, record, "instance_auc")
    yield from _soft_labels()
    for entry in _of_students("MNIST digits, soft labels", SOFT_LABELS_VAT, "instance_auc", "bags"):
        if entry.kind == TO_NO_SOFT_LABELS:
            yield entry
    yield from _of_students("Nuclei, AUC within images", NUCLEI, "instance_auc_within")
    yield from _control()
    yield from _of_students("Nuclei as vectors, AUC within images", FEATURES, "instance_auc_within", "near")
    yield from _of_students("Nuclei as vectors, longer teachers", FEATURES_CONTROL, "instance_auc_within")
    group = "Nuclei as vectors, soft labels of neighbours"
    yield from _of_students(group, FEATURES_SOFT_LABELS, "instance_auc_within", "near_bags")


def _digit_records() -> Iterator[tuple[str, str]]:
    yield "MNIST digits, settings of version 1", DIGITS
    for record in with_matched_teachers():
        recipe = ", robust recipe" if "robust" in record else f", {record}"
        yield f"MNIST digits{recipe}", record


def _of_students(group: str, record: str, metric: str, arm: str | None = None) -> Iterator[Entry]:
    """Every difference of a student to its own teacher and to its controls, in each column by teacher. arm: of the
    students, where only one is shown."""
    layout = _layout(record, metric)
    for panel in layout.panels:
        for column in layout.columns_of(panel):
            found = []
            for one in differences(layout, panel):
                teacher, _, student = str(one.row.value).partition(" → ")
                if one.kind not in MARKS or column not in one.by_column or arm not in (None, student):
                    continue
                name = _name(one.kind, teacher)
                if len(layout.columns) > 1:
                    name = f"{column.text}, {name}"
                found.append((teacher, Entry(group, name, one.kind, one.by_column[column])))
            teachers = list(dict.fromkeys(teacher for teacher, _ in found))
            for _, entry in sorted(found, key=lambda one: (teachers.index(one[0]), one[1].kind != TO_TEACHER)):
                yield entry


def _name(kind: str, teacher: str) -> str:
    """What a row is the difference of, which its mark alone would leave to a legend. teacher: its arm."""
    if kind == TO_NO_SOFT_LABELS:
        return f"{TEACHERS.get(teacher, teacher)} teacher, student − without soft labels"
    which = "its" if kind == TO_TEACHER else "matched"
    return f"student − {which} {TEACHERS.get(teacher, teacher)} teacher"


def _control() -> Iterator[Entry]:
    """The student of a short teacher against that teacher, and against the long one, trained as long as both."""
    group = "The same in other folds"
    layout = _layout(CONTROL, "instance_auc_within")
    (column,), (panel,) = layout.columns, layout.panels
    cells = {str(row.value): layout.cells[panel, row, column] for row in layout.rows}
    for arm, kind in (("short", TO_TEACHER), ("long", TO_MATCHED)):
        yield Entry(group, _name(kind, "none"), kind, difference_of(cells["short → near"], cells[arm]))


def _soft_labels() -> Iterator[Entry]:
    """Students of plain teachers against the same without soft labels, which is an arm of its own there."""
    layout = _layout(SOFT_LABELS, "instance_auc")
    (panel,) = layout.panels
    rows = {str(row.value): row for row in layout.rows}
    for column in layout.columns:
        ours, theirs = (layout.cells[panel, rows[f"none → {arm}"], column] for arm in ("soft", "without"))
        name = f"{column.text}, {_name(TO_NO_SOFT_LABELS, 'none')}"
        yield Entry("MNIST digits, soft labels", name, TO_NO_SOFT_LABELS, difference_of(ours, theirs))


def _layout(record: str, metric: str) -> Layout:
    """The rows of a record as its table arranges them."""
    rows = rows_of(record)
    return arrange(rows, metric, "method", default_columns(rows), known_panel(rows, "mean_bag_size"))
