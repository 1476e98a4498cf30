"""Splits that the user gives: columns of the table, another table of such columns, or the files that CLAM writes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.collection import TEST, TRAIN, VAL
from d2l_study.data.features.finding import bare_name
from d2l_study.data.features.split_table import split_columns
from d2l_study.data.features.tables import TABLES, Slides
from d2l_study.data.manifest_checks import check_agreement, check_split, fold_number
from d2l_study.data.manifest_columns import ColumnNames
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import Rows
from d2l_study.data.manifest_table import CategoricalColumn, raw_columns
from d2l_study.errors import UserError, listed, nearest
from d2l_study.nearest_path import path_hint

_PARTS = {"train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "tune": VAL, "test": TEST,
          "testing": TEST}  # fmt: skip
NONE = -1
"""The part of a bag that a split leaves out."""

_CLAM = ColumnNames(("train", "val", "test"), (), (), {})


@dataclass(frozen=True)
class Given:
    """Splits of the user, as of a `BagCollection`: at most one of `fold` and `part`; notes: what a user should know."""

    fold: np.ndarray | None = None
    part: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def given_splits(slides: Slides, file: Path | None, of_patients: bool = False) -> Given:
    """The splits of the bags. file: `data.splits`, a table or a folder of CLAM's; None: what the table itself says;
    of_patients: a bag is a patient.

    `UserError` for a bag without a part, a bag that is not there, a part without bags or of one class, a group in two
    parts.
    """
    rows = slides.rows
    if file is None:
        if not slides.splits:
            return _of_column(rows) if "split" in rows.columns else Given()
        problems = Problems(rows.file)
        parts, notes = _of_columns(slides, slides.splits, problems)
        if "split" in rows.columns:
            own = rows.columns.shown["split"].split(" (taken as")[0]
            notes = (*notes, f"column {own} is left alone: {listed(slides.splits)} say the splits")
    else:
        problems = Problems(file)
        if files := _clam_files(file):
            parts, notes = _of_clam(slides, files, problems), (f"{len(files)} splits of {file.name}",)
        else:
            table = split_columns(file, slides, of_patients, problems)
            problems.stop_if_any()
            rows = dataclasses.replace(rows, number=table.number)
            if "split" in table.columns:
                known = dataclasses.replace(rows.columns, shown={**rows.columns.shown, "split": table.shown})
                rows = dataclasses.replace(rows, columns=known, split=table.columns["split"])
                check_agreement(rows, problems, ("split",))
                check_split(rows, problems)
                problems.stop_if_any()
                given = _of_column(rows)
                return dataclasses.replace(given, notes=(f"splits of {file.name}, column {table.shown}",))
            parts, notes = _of_columns(dataclasses.replace(slides, rows=rows), table.columns, problems)
            notes = (*notes, *table.notes)
    problems.stop_if_any()
    found = np.stack(list(parts.values()))
    _check(slides, list(parts), found, problems)
    problems.stop_if_any()
    return Given(part=found, notes=notes)


def usable_splits(slides: Slides) -> Given:
    """The table's own splits where they can be trained by, else none; for ids, which depend on them even where they
    are not used. The rows are those of `with_usable_split`."""
    try:
        return dataclasses.replace(given_splits(slides, None), notes=())
    except UserError:
        return Given()


def _of_column(rows: Rows) -> Given:
    """A column `split` that `check_split` has looked at."""
    texts = [rows.split.text(i) for i in rows.first_of_bag().tolist()]
    numbers = [fold_number(text) for text in texts]
    if None not in numbers:
        return Given(fold=np.array(numbers, np.int64))
    return Given(part=np.array([_PARTS[text] for text in texts], np.int8))


def _of_columns(
    slides: Slides, columns: Mapping[str, CategoricalColumn], problems: Problems
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:  # fmt: skip
    """Column -> (B,) parts, of columns fold_0 … that each say train, val or test."""
    rows, found = slides.rows, {}
    first = rows.first_of_bag()
    for name, column in columns.items():
        parts = [_PARTS.get(value.lower(), NONE if not value else None) for value in column.values]
        wrong = [code for code, part in enumerate(parts) if part is None]
        said = {code: f"{column.values[code]!r}; expected train, val, test, or nothing"
                f"{nearest(column.values[code], _PARTS)}" for code in wrong}  # fmt: skip
        problems.add_values(rows.number, column.codes, said, lambda code, name=name, said=said: (name, said[code]))  # type: ignore[misc]
        codes = np.array([NONE if part is None else part for part in parts], np.int8)[column.codes]
        apart = np.flatnonzero(codes != codes[first][rows.bag.codes])
        problems.add_rows(rows.number, apart, lambda i, name=name: (  # type: ignore[misc]
            name, f"bag {rows.bag.text(i)!r} is in another part in row {rows.number[first[rows.bag.codes[i]]]}"
        ))  # fmt: skip
        found[name] = codes[first]
    return found, (f"{len(found)} splits: columns {listed(found)}",)


def _clam_files(path: Path) -> list[Path]:
    """The files `splits_0.csv` … of CLAM that a path names; none if it is another table."""
    if path.is_dir():
        found = [p for p in path.iterdir() if re.fullmatch(r"splits_\d+\.csv", p.name) and not p.is_fifo()]
        if not found:
            raise UserError(f"data.splits: no splits_0.csv, splits_1.csv … in {path}")
        return sorted(found, key=lambda p: int(p.stem.split("_")[1]))
    if not path.is_file():
        raise UserError(f"data.splits: {path}: no such file or folder{path_hint(path)}")
    if path.suffix.lower() not in TABLES:
        raise UserError(f"data.splits: {path}: expected a table ({listed(TABLES)}) or a folder of splits_0.csv …")
    if path.suffix.lower() in (".csv", ".tsv") and {"train", "test"} <= {name.lower() for name in _lists(path)}:
        return [path]
    return []


def _of_clam(slides: Slides, files: Sequence[Path], problems: Problems) -> dict[str, np.ndarray]:
    """File -> (B,) parts: each column, train, val or test, lists the slides of that part, or the bags."""
    rows, found = slides.rows, {}
    of_slide = dict(zip(slides.names, rows.bag.codes.tolist(), strict=True))
    of_slide |= {bare_name(name): bag for name, bag in of_slide.items()}
    of_bag = {name: i for i, name in enumerate(rows.bag.values)}
    lists_of = {file: _lists(file) for file in files}
    parts_of = (values for lists in lists_of.values() for name, values in lists.items() if name.lower() in _CLAM.needed)
    listed_names = {value for values in parts_of for value in values if value}
    bag_of = of_slide | of_bag if _names_bags(listed_names, of_slide, of_bag) else of_bag | of_slide
    for file, lists in lists_of.items():
        parts = np.full(len(rows.bag.values), NONE, np.int8)
        columns = {name.lower(): values for name, values in lists.items()}
        for name in ("train", "test"):
            if name not in columns:
                problems.add(file.name, f"no column {name}{nearest(name, lists)} (found: "
                             f"{listed(name or '(empty)' for name in lists)})")  # fmt: skip
        if {value.lower() for value in columns.get("train", ())} <= {"true", "false"} and columns.get("train"):
            problems.add(f"{file.name}, column train", "True and False, as in CLAM's splits_0_bool.csv; expected names "
                         "of slides, as in its splits_0.csv")  # fmt: skip
            continue
        for name in ("train", "val", "test"):
            for value in columns.get(name, ()):
                if not value:
                    continue
                bag = bag_of.get(value, bag_of.get(bare_name(value)))
                where = f"{file.name}, column {name}"
                if bag is None:
                    problems.add(where, f"{value!r} is in no row of the table{nearest(value, bag_of, 0.8)}")
                elif parts[bag] not in (NONE, _PARTS[name]):
                    problems.add(where, f"{value!r} is in another part, too")
                else:
                    parts[bag] = _PARTS[name]
        found[file.name] = parts
    return found


def _names_bags(listed_names: set[str], of_slide: Mapping[str, int], of_bag: Mapping[str, int]) -> bool:
    """Whether names are those of bags, rather than of slides: a list of nothing but bags. `UserError` where slides and
    patients are numbered alike, and the names may be either."""
    if not listed_names <= of_bag.keys():
        return False
    alike = {name for name in listed_names if name in of_slide and of_slide[name] != of_bag[name]}
    all_slides = all(name in listed_names or bare_name(name) in listed_names for name in of_slide)
    if not alike or not listed_names <= of_slide.keys() or (of_bag.keys() <= listed_names and not all_slides):
        return True
    raise UserError(
        f"data.splits: slides and patients are called alike ({listed(sorted(alike), 4)}), and the lists may be of "
        "either; a table with a column slide, or patient, and one called split says which"
    )


def _lists(file: Path) -> dict[str, list[str]]:
    """The columns of a file of CLAM."""
    return raw_columns(file, _CLAM, "data.splits")


def _check(slides: Slides, names: Sequence[str], parts: np.ndarray, problems: Problems) -> None:
    rows = slides.rows
    first = rows.first_of_bag()
    label, group = rows.label[first], rows.group_codes()[first]
    for name, part in zip(names, parts, strict=True):
        for number, word in ((TRAIN, "train"), (TEST, "test")):
            if not (part == number).any():
                problems.add(name, f"no bag is in {word}")
        if len(labels := np.unique(label[part == TRAIN])) == 1:
            problems.add(name, f"all bags in train have label {labels[0]}; both classes are needed")
        seen: dict[int, int] = {}
        for bag in np.flatnonzero(part != NONE).tolist():
            other = seen.setdefault(int(group[bag]), bag)
            if part[other] != part[bag]:
                problems.add(name, f"{rows.group_of(first[bag])!r} is in two parts, with {rows.bag.values[other]!r} "
                             f"and with {rows.bag.values[bag]!r}; a patient must not be split")  # fmt: skip
    if len(names) > 1 and len({bool((part == VAL).any()) for part in parts}) > 1:
        problems.add(names[0], "some splits have validation bags (val) and some have none")
