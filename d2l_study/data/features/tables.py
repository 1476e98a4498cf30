"""The table of slides: which slide is in which bag, its label, its patient; and the table of labels that may be joined.

A row is a slide. Columns are known by the names that the tools give them (CLAM `case_id, slide_id, label`; STAMP
`PATIENT, FILENAME`, and `PATIENT` with the labels in a table of their own; nnMIL `slide_id, patient_id, split, label`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from d2l_study.data.annotation_keys import AnnotationKeys
from d2l_study.data.features.checks import describe_files, note_unreadable
from d2l_study.data.features.finding import Folder, parallel_files
from d2l_study.data.features.label_table import join_labels
from d2l_study.data.features.labels import classes
from d2l_study.data.features.opening import ENDINGS, load_values, stem_of
from d2l_study.data.features.slide_columns import FOLDS, OTHER, OWN, TAKEN, no_blanks
from d2l_study.data.manifest_columns import ColumnNames, Columns
from d2l_study.data.manifest_problems import FileRows, Problems
from d2l_study.data.manifest_rows import (
    ALL_NEGATIVE,
    NOTHING,
    Rows,
    doubtful_groups,
    find_file,
    normalised_splits,
    patients_in_names,
    without_group,
)
from d2l_study.data.manifest_table import CategoricalColumn, Table, read_table
from d2l_study.data.pool import UNKNOWN
from d2l_study.data.purpose import TRAINING, Purpose
from d2l_study.errors import UserError, listed, nearest

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".xlsx", ".xlsm")


@dataclass(frozen=True)
class Slides:
    """The slides of a table: `rows` has one for each of them. names: (S,) of the slides; truth: (S,) the files that
    label their instances as a column of the table names them, None where it names none, and `ALL_NEGATIVE` where it
    says so; splits: column -> (S,) what it says; notes: what a user should know; file_rows: where a table names the
    files."""

    rows: Rows
    names: list[str]
    truth: list[Path | str | None]
    splits: dict[str, CategoricalColumn] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file_rows: FileRows | None = None


@dataclass(frozen=True)
class TableKeys:
    """Of the keys of the `data` section those that say how the table is read; and what for."""

    label_column: str | None = None
    positive: str | None = None
    bag: str = "slide"
    label_table: Path | None = None
    truth: str | None = None
    splits: Path | None = None
    skip_empty: bool = False
    annotations: AnnotationKeys = field(default_factory=AnnotationKeys)
    purpose: Purpose = TRAINING


def read_slides(file: Path, folder: Folder, keys: TableKeys) -> Slides:
    """All rows of a table; the slides' files are in `folder`. `UserError` says all that is wrong with single rows,
    files that do not exist included."""
    problems = Problems(file)
    table = read_table(file, problems, _names(keys, with_label=keys.label_table is None))
    columns, number, texts = table.columns, table.number, table.texts
    if folder.doubt and "path" not in columns:
        raise UserError(folder.doubt)
    notes = [*columns.notes, *table.notes]
    if keys.splits is not None and ("split" in columns or table.kept):
        place = {name: i for name, i in columns.place.items() if name != "split"}
        columns = dataclasses.replace(columns, place=place)
        notes.append("its own columns of splits are left alone: data.splits names others")
    shown = columns.shown
    if keys.label_table is not None and "label" in columns:
        own = shown["label"].split(" (taken as")[0]
        notes.append(f"its own column {own} is left alone: data.label_table has the labels")
    nothing = CategoricalColumn(np.zeros(len(number), np.int64), [""])
    slide, patient = texts.get(OWN, texts["bag"]), texts.get("group")
    no_blanks(problems, table, "bag", OWN)
    if keys.label_table is None:
        label, more = classes(texts["label"], number, shown["label"], keys.positive, problems)
    else:
        joined = join_labels(
            keys.label_table, _called(keys), keys.positive, keys.bag == "patient", patient, slide, number, problems
        )
        label, more = joined.label, joined.notes
        if joined.group is not None:
            patient, shown = joined.group, {**shown, "group": joined.shown}
    bag, group = texts["bag"], patient or nothing
    if keys.bag == "patient":
        bag, group = _patients(patient, shown, number, problems), nothing
        shown = {**shown, "bag": shown["group"]}
    files, path, names = _files(table, folder, slide, problems)
    truth = _truth_entries(table, file, problems, named=keys.truth is not None)
    if problems.found:  # all that is wrong at once, with the files that are there
        note_unreadable(problems, files, describe_files(files))
    problems.stop_if_any()
    if patient is None:
        notes += patients_in_names(bag)
    else:
        notes += without_group(group, bag, shown["group"]) if keys.bag == "slide" else ()
        notes += doubtful_groups(patient, shown["group"])
    nowhere = np.full(len(number), np.nan)
    rows = Rows(
        file, dataclasses.replace(columns, shown=shown), number, bag, label, path, files, group,
        normalised_splits(texts.get("split", nothing)), nowhere, nowhere, np.full(len(number), UNKNOWN, np.int8),
        table.related, noun="slide",
    )  # fmt: skip
    return Slides(rows, names, truth, table.kept if keys.splits is None else {}, (*notes, *more), problems.rows)


@dataclass(frozen=True)
class SlideList:
    """The n slides of a table that needs no labels. bags, slides: their names; truth: as of `Slides`."""

    bags: list[str]
    slides: list[str]
    files: list[Path]
    truth: list[Path | None]


def list_slides(file: Path, folder: Folder, of_patients: bool = False) -> SlideList:
    """The slides of a table, with labels or without; their files are in `folder`. of_patients: a bag is a patient,
    where the table names patients. `UserError` says all that is wrong with the rows."""
    problems = Problems(file)
    table = read_table(file, problems, _names(TableKeys(), with_label=False), "input")
    if folder.doubt and "path" not in table.columns:
        raise UserError(folder.doubt)
    texts, number = table.texts, table.number
    slide = texts.get(OWN, texts["bag"])
    bag = texts["group"] if of_patients and "group" in texts else texts["bag"]
    no_blanks(problems, table, "bag", OWN, *(["group"] if bag is not texts["bag"] else []))
    files, path, names = _files(table, folder, slide, problems)
    truth = _truth_files(table, file, problems)
    problems.stop_if_any()
    first = np.unique(path, return_index=True)[1][path]
    problems.add_rows(number, np.flatnonzero(first != np.arange(len(path))), lambda i: ("", (
        f"{files[path[i]].name} is in row {number[first[i]]} already: the same slide twice")))  # fmt: skip
    problems.stop_if_any()
    return SlideList([bag.text(i) for i in range(len(path))], names, [files[p] for p in path.tolist()], truth)


def has_slides(file: Path, keys: TableKeys) -> bool:
    """Whether a table may be that of the slides: it has a column that names them, and one of labels or of patients."""
    try:
        columns = read_table(file, Problems(file), _names(keys, with_label=False)).columns
    except UserError:
        return False
    return "label" in columns or (keys.label_table is not None and "group" in columns)


def slides_of_folder(folder: Folder, labels: Path) -> Slides:
    """The slides of torchmil's folders, each a bag: a file in `labels` has its label."""
    problems = Problems(labels)
    names, files, said = sorted(folder.names), [], []
    there = parallel_files(labels, [folder.path / folder.names[name][0] for name in names])
    for label_file in sorted(labels.iterdir()):
        if label_file.name.lower().endswith(ENDINGS) and stem_of(label_file.name) not in folder.names:
            problems.add(label_file.name, f"no feature file of this slide in {folder.path}")
    for name, path in zip(names, there, strict=True):
        files.append(folder.path / folder.names[name][0])
        if len(folder.names[name]) > 1:
            problems.add(name, f"{listed(folder.names[name])} are feature files of it; leave one")
        if path is None:
            problems.add(name, "no label file of this slide")
            continue
        try:
            values = np.ravel(load_values(path, ("labels", "label")))
        except UserError as error:
            problems.add_text(str(error))
            continue
        if values.size != 1 or values.dtype.kind not in "biuf" or values[0] not in (0, 1):
            problems.add(path.name, f"{listed(values, 3)}; expected 0 or 1")
            continue
        said.append(int(values[0]))
    problems.stop_if_any()
    count = len(names)
    own, nothing = CategoricalColumn(np.arange(count), names), CategoricalColumn(np.zeros(count, np.int64), [""])
    shown = {"bag": folder.path.name, "label": labels.name}
    rows = Rows(
        folder.path, Columns({"bag": 0, "label": 1}, shown, {}, ()), np.arange(1, count + 1), own,
        np.array(said, np.int8), np.arange(count), files, nothing, nothing,
        np.full(count, np.nan), np.full(count, np.nan), np.full(count, UNKNOWN, np.int8), {}, noun="slide",
    )  # fmt: skip
    return Slides(rows, names, [None] * count)


def _called(keys: TableKeys) -> dict[str, str]:
    """The column of labels, where the user names it."""
    return {} if keys.label_column is None else {"label": keys.label_column}


def _names(keys: TableKeys, with_label: bool) -> ColumnNames:
    called = _called(keys)
    needed = ("bag", "label") if with_label else ("bag",)
    optional = (OWN, "group", "split", "path", "truth", *(() if with_label else ("label",)))
    if keys.truth is not None:
        called["truth"] = keys.truth
    names = ColumnNames(
        needed, optional, TAKEN, {name: OTHER[name] for name in TAKEN}, FOLDS, called,
        {"label": "data.label_column"},
    )  # fmt: skip
    return names.for_purpose(keys.purpose)


def _patients(
    patient: CategoricalColumn | None, shown: Mapping[str, str], number: np.ndarray, problems: Problems
) -> CategoricalColumn:
    """The bags where a bag is a patient: each must be named."""
    if patient is None:
        problems.add("header", "no column that names patients (patient, case_id and the like), which data.bag: patient "
                     "needs")  # fmt: skip
        problems.stop_if_any()
    assert patient is not None
    blank = [code for code, value in enumerate(patient.values) if not value]
    problems.add_values(number, patient.codes, blank, lambda _: (shown["group"], "empty"))
    return patient


def _files(
    table: Table, folder: Folder, slide: CategoricalColumn, problems: Problems
) -> tuple[list[Path], np.ndarray, list[str]]:  # fmt: skip
    """The distinct files of the rows, (n,) which of them each row has, and (n,) the names of the slides. `problems`
    gets to know in which rows they stand."""
    column = table.texts.get("path", slide)
    shown = table.columns.shown.get("path") or table.columns.shown.get(OWN, table.columns.shown["bag"])
    places: dict[Path, int] = {}
    place_of, reasons = np.zeros(len(column.values), np.int64), {}
    first = dict(zip(*np.unique(column.codes, return_index=True), strict=True))
    row_of: dict[Path, int] = {}
    for code, text in enumerate(column.values):
        path, reason = folder.find(text)
        if path is not None:
            place_of[code] = places.setdefault(path, len(places))
            row_of.setdefault(path, int(table.number[first[code]]))
        elif text or "path" in table.texts:
            reasons[code] = reason if text else "empty"
    used = {path.name for path in places}
    free = [stem for stem, names in folder.names.items() if used.isdisjoint(names)]
    problems.add_values(table.number, column.codes, reasons, lambda code: (
        shown, reasons[code] + nearest(column.values[code], free, 0.8)))  # fmt: skip
    problems.rows = FileRows(shown, row_of)
    files = list(places)
    path = place_of[column.codes]
    names = [slide.text(i) for i in range(len(path))]
    if OWN not in table.texts and len(set(names)) < len(names) and files:  # a bag of several files
        names = [files[p].name for p in path.tolist()]
    return files, path, names


def _truth_entries(table: Table, file: Path, problems: Problems, named: bool) -> list[Path | str | None]:
    """As of `Slides.truth`. named: the user has named the column, so that the word in it is no file."""
    found: list[Path | str | None] = [*_truth_files(table, file, problems, (ALL_NEGATIVE, *NOTHING) if named else ())]
    if named and "truth" in table.columns:
        column = table.texts["truth"]
        negative = np.array([text.lower() == ALL_NEGATIVE for text in column.values])[column.codes]
        found = [ALL_NEGATIVE if word else entry for entry, word in zip(found, negative, strict=True)]
    return found


def _truth_files(table: Table, file: Path, problems: Problems, words: tuple[str, ...] = ()) -> list[Path | None]:
    """The files of the column that names those with the labels of the instances; None for words, too."""
    if "truth" not in table.columns:
        return [None] * len(table.number)
    column = table.texts["truth"]
    found: list[Path | None] = []
    reasons = {}
    for code, text in enumerate(column.values):
        path, reason = (None, "") if not text or text.lower() in words else find_file(file.parent, text)
        found.append(path)
        if reason:
            reasons[code] = reason
    problems.add_values(table.number, column.codes, reasons, lambda code: (
        table.columns.shown["truth"], reasons[code]))  # fmt: skip
    return [found[code] for code in column.codes.tolist()]
