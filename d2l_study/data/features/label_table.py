"""The labels of slides from a table of their own, `data.label_table`, as STAMP and clinical registers have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.features.finding import bare_name
from d2l_study.data.features.labels import classes
from d2l_study.data.features.slide_columns import OTHER, no_blanks
from d2l_study.data.manifest_columns import ColumnNames
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_table import CategoricalColumn, Table, read_table
from d2l_study.errors import UserError, listed, nearest

SLIDE, GROUP = "slide", "group"


@dataclass(frozen=True)
class JoinedLabels:
    """What the table of labels says of n rows of slides. label: (n,) int8; group: (n,) their patients, None where it
    does not name them slide by slide; shown: how messages call the column of patients; notes: what a user should
    know."""

    label: np.ndarray
    group: CategoricalColumn | None
    shown: str
    notes: tuple[str, ...]


def join_labels(
    file: Path, called: Mapping[str, str], positive: str | None, by_patient: bool, group: CategoricalColumn | None,
    slide: CategoricalColumn, number: np.ndarray, problems: Problems,
) -> JoinedLabels:  # fmt: skip
    """The labels of n rows. Where the table names slides, each has the label of its own slide; else of its patient.

    called: the column of labels, where the user names it; positive: the class; by_patient: a bag is a patient; group:
    (n,) the patients of the rows, None where nothing says them; slide: (n,) their slides; number: (n,) of the rows;
    problems: takes the rows without a label. `UserError` for a table that contradicts itself.
    """
    mine = Problems(file)
    names = ColumnNames(
        ("label",), (GROUP, SLIDE), ("label", SLIDE, GROUP),
        {"label": OTHER["label"], SLIDE: OTHER["bag"], GROUP: OTHER["group"]}, None, called,
    )  # fmt: skip
    table = read_table(file, mine, names, "data.label_table")
    # What was checked not to cross groups was so in the table of slides.
    notes = [f"{file.name}: {note}" for note in table.columns.notes if not note.startswith("checked")]
    key = _key(table, by_patient, group, slide)
    if key not in table.columns:
        raise UserError(f"{file}: no column that names patients or slides, by which its labels are joined")
    if key == GROUP and SLIDE in table.columns and not by_patient:
        notes.append(f"{file.name}: its {table.columns.shown[SLIDE].split(' (')[0]} names none of these slides, so "
                     "labels are joined by patient")  # fmt: skip
    no_blanks(mine, table, key)
    wanted = group if key == GROUP and group is not None else slide
    form = str if key == GROUP else bare_name  # slides with the ending of their files, or without
    names_wanted = {form(value) for value in wanted.values}
    everyone = table.texts[key]
    used = np.flatnonzero(np.array([form(value) in names_wanted for value in everyone.values])[everyone.codes])
    column, lines = CategoricalColumn.of(everyone.codes[used], everyone.values), table.number[used]
    said = CategoricalColumn.of(table.texts["label"].codes[used], table.texts["label"].values)
    label, of_classes = classes(said, lines, table.columns.shown["label"], positive, mine) if len(used) else (
        np.empty(0, np.int8), ())  # fmt: skip
    of_name: dict[str, int] = {}
    first = np.array([of_name.setdefault(form(column.text(i)), i) for i in range(len(used))], np.int64)
    mine.add_rows(lines, np.flatnonzero(label != label[first]), lambda i: (
        table.columns.shown["label"], f"{column.text(i)!r} has another label in row {lines[first[i]]}"))  # fmt: skip
    missing = [code for code, value in enumerate(wanted.values) if form(value) not in of_name]
    unused = [value for value in everyone.values if form(value) not in names_wanted]
    problems.add_values(number, wanted.codes, missing, lambda code: (
        "patient" if key == GROUP else "slide", f"{wanted.values[code]!r} has no label in {file.name}"
        f"{nearest(wanted.values[code], unused, 0.8)}"))  # fmt: skip
    patients = None
    if key == SLIDE and group is None and GROUP in table.texts:
        theirs = CategoricalColumn.of(table.texts[GROUP].codes[used], table.texts[GROUP].values)
        others = np.flatnonzero(theirs.codes != theirs.codes[first])
        mine.add_rows(lines, others, lambda i: (
            table.columns.shown[GROUP], f"{column.text(i)!r} has another patient in row {lines[first[i]]}"
        ))  # fmt: skip
        patient = {name: theirs.text(i) for name, i in of_name.items()}
        patients = CategoricalColumn.of(wanted.codes, [patient.get(form(value), "") for value in wanted.values])
    mine.stop_if_any()
    if unused:
        notes.append(f"{len(unused)} of {file.name} {'is' if len(unused) == 1 else 'are'} in no row of the slides: "
                     f"{listed(unused, 5)}")  # fmt: skip
    known = {name: int(label[i]) for name, i in of_name.items()}
    found = np.array([known.get(form(value), 0) for value in wanted.values], np.int8)[wanted.codes]
    shown = f"{table.columns.shown.get(GROUP, GROUP).split(' (')[0]} of {file.name}"
    return JoinedLabels(found, patients, shown, (*of_classes, *notes))


def _key(table: Table, by_patient: bool, group: CategoricalColumn | None, slide: CategoricalColumn) -> str:
    """The column by which labels are joined: that of slides, where it names any of these. Patients are what is left,
    or what bags are."""
    if GROUP not in table.columns or group is None:
        return SLIDE
    if by_patient or SLIDE not in table.columns:
        return GROUP
    theirs = {bare_name(value) for value in table.texts[SLIDE].values}
    return SLIDE if any(bare_name(value) in theirs for value in slide.values) else GROUP
