"""A table of splits, `data.splits`: what it says of each slide, by slides, bags or patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.features.finding import bare_name
from d2l_study.data.features.slide_columns import FOLDS, OTHER
from d2l_study.data.features.tables import Slides
from d2l_study.data.manifest_columns import ColumnNames, find_columns
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import normalised_splits
from d2l_study.data.manifest_table import CategoricalColumn, read_table
from d2l_study.errors import UserError, listed, nearest


@dataclass(frozen=True)
class SplitTable:
    """What a table says of the splits of S slides. columns: column -> (S,), `split` alone or those called fold_0 …;
    shown: how messages call the column `split`; number: (S,) the rows that say it; notes: on columns left alone."""

    columns: dict[str, CategoricalColumn]
    shown: str
    number: np.ndarray
    notes: tuple[str, ...] = ()


def split_columns(file: Path, slides: Slides, of_patients: bool, problems: Problems) -> SplitTable:
    """What a table of splits says of each slide; it names slides (with the ending of their files or without), bags or
    patients. of_patients: a bag is a patient. Slides that it does not name, and rows that contradict each other, are
    noted in `problems`."""
    names = ColumnNames(
        ("bag",), ("split", "group"), ("bag", "split", "group"),
        {"bag": (*OTHER["bag"], *OTHER["group"]), "split": OTHER["split"], "group": ()}, FOLDS,
    )  # fmt: skip
    table = read_table(file, problems, names, "data.splits")
    shown = table.columns.shown.get("split", "split")
    # As in the table of slides itself.
    found = table.kept or ({"split": normalised_splits(table.texts["split"])} if "split" in table.columns else {})
    if not found:
        raise UserError(f"{file}: no column split, and none called fold_0, fold_1 …")
    notes: tuple[str, ...] = ()
    if table.kept and "split" in table.columns:
        notes = (f"column {shown.split(' (')[0]} of {file.name} is left alone: {listed(table.kept)} say the splits",)
    column = table.texts["bag"]
    first: dict[str, int] = {}
    for i in range(len(column.codes)):
        before = first.setdefault(column.text(i), i)
        for name, said_of in found.items():
            if said_of.codes[before] != said_of.codes[i]:
                row = int(table.number[i])
                problems.add(f"row {row}", f"{column.text(i)!r} has {said_of.text(i)!r} in column {name}, and "
                             f"{said_of.text(before)!r} in row {table.number[before]}", row)  # fmt: skip
    at = _lines(first, slides, of_patients, table.columns.shown["bag"].split(" (taken as")[0])
    for i in np.flatnonzero(at < 0).tolist():
        said = slides.names[i]
        problems.add(f"{slides.rows.noun} {said!r}", f"not in {file.name}{nearest(said, first, 0.8)}", i)
    places = np.maximum(at, 0)
    return SplitTable(
        {name: CategoricalColumn.of(c.codes[places], c.values) for name, c in found.items()}, shown,
        table.number[places], notes,
    )  # fmt: skip


def _lines(first: Mapping[str, int], slides: Slides, of_patients: bool, header: str) -> np.ndarray:
    """(S,) the line of each slide, -1 where there is none. first: name -> its first line; header: of the column of
    names, which says what they are: slides and patients may be numbered alike."""
    rows = slides.rows
    by_name = {
        "slide": slides.names,
        "bag": [rows.bag.text(i) for i in range(len(rows))],
        "patient": [rows.group.text(i) or rows.bag.text(i) for i in range(len(rows))],
    }
    groups = of_patients or any(rows.group.values)
    wanted: tuple[str, ...]
    if _is_patient(header):
        wanted = ("bag",) if of_patients else ("patient",) if groups else ("bag", "slide")
    elif header.strip().lower() == "bag":
        wanted = ("bag", "slide")
    else:
        wanted = ("slide",) if of_patients else ("slide", "bag")
    bare = {bare_name(text): line for text, line in reversed([*first.items()])}
    found = [np.array([first.get(text, bare.get(bare_name(text), -1)) for text in by_name[name]]) for name in wanted]
    return max(found, key=lambda lines: int(np.sum(lines >= 0)))


def _is_patient(header: str) -> bool:
    """Whether a column of this name is one of patients."""
    return "group" in find_columns([header], ColumnNames((), ("group",), ("group",), {"group": OTHER["group"]}))[0]
