"""The rows of a manifest, the table that lists one's own images: every value checked before any image is opened.

Needed columns are `bag`, `label` and `path`; `group`, `split`, `x`, `y` and `instance_label` may be there
(`manifest_columns`). What is wrong is collected, with row and column, so that it can be mended in one go.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from d2l_study.data.collection import own_group
from d2l_study.data.manifest_columns import MANIFEST, ColumnNames, Columns
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_table import CategoricalColumn, Table, read_table
from d2l_study.data.pool import UNKNOWN
from d2l_study.errors import counted, listed
from d2l_study.nearest_path import path_hint
from d2l_study.slides.opening import is_slide
from d2l_study.slides.physical_size import believed

PARTS = ("train", "val", "test")
"""What `split` may say; in this order the parts 0, 1, 2 of a `BagCollection`."""


ALL_NEGATIVE = "negative"
"""What the column `annotation` says of a slide all of whose tiles are negative."""

NOTHING = ("", "nan", "none", "null")
"""How a table says that something is not known."""

_TCGA_PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])", re.IGNORECASE)
"""The patient at the beginning of TCGA's names of slides (`TCGA-A2-A0T2-01Z-00-DX1`)."""

UNKNOWN_GROUPS = (*NOTHING[1:], "na", "n/a", "#n/a", "unknown")
"""Texts, in lower case, that hardly name a patient."""


@dataclass(frozen=True)
class Rows:
    """n rows of a manifest as columns. number: (n,) of a CSV the line in the file, where the header is 1; of a Parquet
    file the row, counted from 1. bag, group, split: coded texts, empty where not said; path: (n,) indices into `files`;
    label: (n,) int8, −1 where labels are not read; x, y: (n,) float64, NaN where not said; instance_label: (n,) int8,
    −1 unknown; related: further columns of what belongs together; noun: what a file is called in messages; mpp: (n,)
    float64 µm per pixel of slides, NaN where not said; annotation: (n) the files that annotate them, `ALL_NEGATIVE`, or
    empty where nothing is known.
    """

    file: Path
    columns: Columns
    number: np.ndarray
    bag: CategoricalColumn
    label: np.ndarray
    path: np.ndarray
    files: list[Path]
    group: CategoricalColumn
    split: CategoricalColumn
    x: np.ndarray
    y: np.ndarray
    instance_label: np.ndarray
    related: dict[str, CategoricalColumn]
    noun: str = "image"
    mpp: np.ndarray = field(default_factory=lambda: np.empty(0))
    annotation: Sequence[Path | str] = ()

    def __len__(self) -> int:
        return len(self.number)

    def group_codes(self) -> np.ndarray:
        """(n,) int64: rows of one group have the same; without a group the bag is one of its own."""
        without = np.array([not value for value in self.group.values])
        return np.where(without[self.group.codes], len(without) + self.bag.codes, self.group.codes)

    def group_of(self, row: int) -> str:
        """The name of a row's group."""
        return self.group.text(row) or own_group(self.bag.text(row))

    def first_of_bag(self) -> np.ndarray:
        """(bags,) the first row of each bag."""
        return np.unique(self.bag.codes, return_index=True)[1]


def read_rows(file: Path, base: Path, names: ColumnNames = MANIFEST, key: str = "data.path") -> Rows:
    """All rows; paths are those of files, relative ones begin at `base`. names: the columns that are read; where `mpp`
    is one of them the files are slides, which may be folders of DICOM files; where `label` is none of them, labels are
    −1; key: what names the file.

    `UserError` says all that is wrong with single rows, files that do not exist included.
    """
    problems = Problems(file)
    table = read_table(file, problems, names, key)
    shown, number, texts = table.columns.shown, table.number, table.texts
    count = len(number)
    nothing = CategoricalColumn(np.zeros(count, np.int64), [""])
    if "bag" not in texts:
        texts["bag"], shown["bag"] = _named_by_files(texts["path"]), shown["path"]
    for name in (name for name in ("bag", "label", "path") if name in texts):
        blank = [code for code, value in enumerate(texts[name].values) if not value]
        problems.add_values(number, texts[name].codes, blank, lambda _, name=name: (shown[name], "empty"))  # type: ignore[misc]
    label = np.full(count, UNKNOWN, np.int8)
    if "label" in texts:
        label = _classes(texts["label"], number, shown["label"], ("0", "1"), problems)
    instance_label = np.full(count, UNKNOWN, np.int8)
    if "instance_label" in texts:
        instance_label = _classes(
            texts["instance_label"], number, shown["instance_label"], ("0", "1", "-1"), problems,
            NOTHING,
        )  # fmt: skip
    slides = "mpp" in names.optional
    files, path = _find_files(texts["path"], number, shown["path"], base, problems, is_slide if slides else None)
    mpp = resolutions(texts["mpp"], number, shown["mpp"], problems) if "mpp" in texts else np.full(count, np.nan)
    annotation: list[Path | str] = [""] * count
    if "annotation" in texts:
        annotation = _annotations(texts["annotation"], number, shown["annotation"], base, problems)
    problems.stop_if_any()
    columns = dataclasses.replace(table.columns, notes=(*table.columns.notes, *table.notes, *_alone(table)))
    return Rows(
        file, columns, number, texts["bag"], label, path, files, texts.get("group", nothing),
        normalised_splits(texts.get("split", nothing)), table.places.get("x", np.full(count, np.nan)),
        table.places.get("y", np.full(count, np.nan)), instance_label, table.related, mpp=mpp, annotation=annotation,
    )  # fmt: skip


def _named_by_files(column: CategoricalColumn) -> CategoricalColumn:
    """The bags of slides that a table does not name: by their files without ending, or in full where two are alike."""
    names = [text.replace("\\", "/").rstrip("/").rpartition("/")[2] for text in column.values]
    for shorter in (names, [name.rpartition(".")[0] or name for name in names]):
        if len(set(shorter)) == len(column.values):
            names = shorter
    return CategoricalColumn(column.codes, names if len(set(names)) == len(names) else list(column.values))


def _alone(table: Table) -> Iterator[str]:
    if "group" in table.texts:
        yield from without_group(table.texts["group"], table.texts["bag"], table.columns.shown["group"])
        yield from doubtful_groups(table.texts["group"], table.columns.shown["group"])
    else:
        yield from patients_in_names(table.texts["bag"])


def without_group(group: CategoricalColumn, bag: CategoricalColumn, shown: str) -> Iterator[str]:
    """That bags have no group although there are groups; shown: how messages call the column."""
    empty = np.array([not value for value in group.values])
    if count := len(np.unique(bag.codes[empty[group.codes]])):
        shown = shown.split(" (taken as")[0]
        have, taken = ("has", "it is") if count == 1 else ("have", "each is")
        yield f"{counted(count, 'bag')} {have} no {shown}: {taken} taken for a group of its own"


def doubtful_groups(group: CategoricalColumn, shown: str) -> Iterator[str]:
    """That groups are written nearly alike, which would put one patient into two parts, or by a word for what is not
    known, which makes one patient of many. group: the groups; shown: how messages call the column."""
    shown = shown.split(" (taken as")[0]
    alike: dict[str, str] = {}
    pairs = [
        f"{first!r} and {value!r}" for value in group.values
        if value and (first := alike.setdefault(_bare_group(value), value)) != value
    ]  # fmt: skip
    if pairs:
        yield (
            f"column {shown}: {listed(pairs, 3)} differ in case, blanks or zeros only, and are taken for different "
            "ones: if they are the same, write them alike, or they may be both trained and tested on"
        )
    if unknown := [value for value in group.values if value.lower() in UNKNOWN_GROUPS]:
        yield (
            f"column {shown}: all rows with {listed(map(repr, unknown))} are taken for one {shown}: where it is not "
            "known, leave the cell empty"
        )


def patients_in_names(bag: CategoricalColumn) -> Iterator[str]:
    """That bags without a group are of one patient by their names, as TCGA forms them."""
    counts = Counter(found.group(0).upper() for name in bag.values if (found := _TCGA_PATIENT.match(name)))
    if several := [patient for patient, count in counts.items() if count > 1]:
        yield (
            f"by their names several bags are of one patient: {listed(several, 3)}; without a column patient they "
            "may be both trained and tested on"
        )


def _bare_group(text: str) -> str:
    """The same for ways in which tables write one name."""
    text = " ".join(text.casefold().split())
    number = re.fullmatch(r"0*([0-9]+)(?:\.0+)?", text)
    return number.group(1) if number else text


def normalised_splits(column: CategoricalColumn) -> CategoricalColumn:
    """Words of a split in lower case, whole numbers without `.0`, as tables of floats have them."""
    return CategoricalColumn.of(column.codes, [value.lower().removesuffix(".0") for value in column.values])


def resolutions(column: CategoricalColumn, number: np.ndarray, shown: str, problems: Problems) -> np.ndarray:
    """(n,) float64 µm per pixel that a column says, NaN where it says nothing."""
    values, reasons = np.full(len(column.values), np.nan), {}
    for code, text in enumerate(column.values):
        found = None if text.lower() in NOTHING else believed(text, text)
        if found is not None:
            values[code] = found[0]
        elif text.lower() not in NOTHING:
            comma = "; decimals are written with a point" if believed(text.replace(",", "."), 1) else ""
            reasons[code] = f"{text[:60]!r} is no resolution; expected µm per pixel, such as 0.25{comma}"
    problems.add_values(number, column.codes, reasons, lambda code: (shown, reasons[code]))
    return values[column.codes]


def _classes(
    column: CategoricalColumn, number: np.ndarray, shown: str, allowed: Iterable[str], problems: Problems,
    unknown: Iterable[str] = (),
) -> np.ndarray:  # fmt: skip
    """(n,) int8: the whole numbers that a column says, −1 for the words for unknown."""
    values, wrong = [], []
    for code, text in enumerate(column.values):
        text = {"true": "1", "false": "0"}.get(text.lower(), text)  # as Parquet's truth values
        found = UNKNOWN if text.lower() in unknown else _whole(text, allowed)
        values.append(UNKNOWN if found is None else found)
        if found is None and text:
            wrong.append(code)
    said = [text for text in column.values if text.lower() not in NOTHING]
    named = "0, 1, or nothing where it is not known" if unknown else "0 or 1"
    hint = ""
    if 2 < len(said) <= 10 and not unknown:
        hint = (f" (there are {len(said)} values; bags are positive, 1, or negative, 0: write in column {shown} which "
                "are which)")  # fmt: skip
    elif {column.values[code].lower() for code in wrong} & {"pos", "neg", "positive", "negative"}:
        hint = " (positive is written 1, negative 0)"

    def tell(code: int) -> tuple[str, str]:
        last = hint if code == wrong[-1] else ""
        return shown, f"{column.values[code][:60]!r} is not allowed; expected {named}{last}"

    problems.add_values(number, column.codes, wrong, tell)
    return np.array(values, np.int8)[column.codes]


def _whole(text: str, allowed: Iterable[str]) -> int | None:
    """The whole number that a text says, `1.0` too, if it is allowed."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 10 and str(int(value)) in allowed else None


def _annotations(
    column: CategoricalColumn, number: np.ndarray, shown: str, base: Path, problems: Problems
) -> list[Path | str]:  # fmt: skip
    """(n) what `Rows.annotation` holds."""
    values: list[Path | str] = []
    reasons = {}
    for code, text in enumerate(column.values):
        word = text.lower()
        if word in NOTHING or word == ALL_NEGATIVE:
            values.append("" if word in NOTHING else ALL_NEGATIVE)
            continue
        path, reason = find_file(base, text)
        values.append(path or "")
        if path is None:
            reasons[code] = f"{reason}; expected a file, the word {ALL_NEGATIVE}, or nothing where it is not known"
    problems.add_values(number, column.codes, reasons, lambda code: (shown, reasons[code]))
    return [values[code] for code in column.codes.tolist()]


def _find_files(
    column: CategoricalColumn, number: np.ndarray, shown: str, base: Path, problems: Problems,
    accept: Callable[[Path], bool] | None = None,
) -> tuple[list[Path], np.ndarray]:  # fmt: skip
    """The distinct files of a column of paths, and (n,) which of them each row has."""
    places: dict[Path, int] = {}
    place_of, reasons = np.zeros(len(column.values), np.int64), {}
    for code, text in enumerate(column.values):
        path, reason = find_file(base, text, accept)
        if path is not None:
            place_of[code] = places.setdefault(path, len(places))
        elif text:
            reasons[code] = reason
    problems.add_values(number, column.codes, reasons, lambda code: (shown, reasons[code]))
    return list(places), place_of[column.codes]


def find_file(base: Path, text: str, accept: Callable[[Path], bool] | None = None) -> tuple[Path | None, str]:
    """The file that a text of a column names, or None with what is wrong. accept: whether a folder will do, too."""
    if "\0" in text:
        return None, f"{text!r} is no path"
    if "://" in text:
        return None, f"{text!r} is an address, not a file; copy the images to a folder"
    path = base / text
    try:
        if not path.is_file() and "\\" in text:  # written on Windows
            path = base / text.replace("\\", "/")
        if path.is_file():
            return path, ""
        if path.is_dir() and accept is not None and accept(path):
            return path, ""
        if path.is_dir():
            return None, f"{text!r} is a folder; expected an image"
        if len(text) > 2 and text[1] == ":" and text[2] in "\\/":
            return None, f"{text!r}: no such file here; it has a drive, paths relative to the manifest go everywhere"
        near = path_hint(path, 0.8)
    except OSError as error:
        return None, f"{text[:60]!r} cannot be looked up: {error.strerror or error}"
    return None, f"{text!r}: no such file (looked for {path}){near}"


__all__ = ["PARTS", "Rows", "read_rows"]
