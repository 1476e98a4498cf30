"""Reading a manifest, the table that lists one's own images: CSV or Parquet, every row checked before any image is.

Needed columns are `bag`, `label` and `path`; `group`, `split`, `x`, `y` and `instance_label` may be there, and any
other columns are left alone. Upper and lower case are the same. What is wrong is collected, with row and column, so
that it can be mended in one go.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from d2l_study.data.pool import UNKNOWN
from d2l_study.errors import UserError, listed, nearest

NEEDED = ("bag", "label", "path")
OPTIONAL = ("group", "split", "x", "y", "instance_label")
PARTS = ("train", "val", "test")
"""What `split` may say; in this order the parts 0, 1, 2 of a `BagCollection`."""

MOST_PROBLEMS = 20
"""Problems shown of one manifest; the others are counted."""


@dataclass
class Problems:
    """What is wrong with a manifest, in the order found."""

    file: Path
    found: list[str] = field(default_factory=list)

    def add(self, place: str, what: str) -> None:
        self.found.append(f"{place}: {what}")

    def stop_if_any(self) -> None:
        """`UserError` with the first of them, each on a line of its own if there are several."""
        if not self.found:
            return
        if len(self.found) == 1:
            raise UserError(f"{self.file}: {self.found[0]}")
        shown = self.found[:MOST_PROBLEMS]
        more = len(self.found) - len(shown)
        lines = [f"{self.file}: {len(self.found)} problems", *shown, *([f"… and {more} more"] if more else [])]
        raise UserError("\n  ".join(lines))


@dataclass(frozen=True)
class Row:
    """A row of a manifest. number: of a CSV the line in the file, where the header is 1; of a Parquet file the row,
    counted from 1. group, split: empty where not said; x, y: NaN where not said; instance_label: −1 unknown."""

    number: int
    bag: str
    label: int
    path: Path
    group: str
    split: str
    x: float
    y: float
    instance_label: int


def read_rows(file: Path, base: Path) -> tuple[list[Row], frozenset[str]]:
    """All rows and the columns that the manifest has; paths are those of files, relative ones begin at `base`.

    `UserError` says all that is wrong with single rows, files that do not exist included.
    """
    header, records = _read_parquet(file) if file.suffix.lower() in (".parquet", ".pq") else _read_csv(file)
    problems = Problems(file)
    names = [name.strip().lower() for name in header]
    _check_header(names, header, problems)
    problems.stop_if_any()
    if not records:
        raise UserError(f"{file}: no rows below the header")
    places = {name: names.index(name) for name in (*NEEDED, *OPTIONAL) if name in names}
    files = _Files(base)
    rows = []
    for number, values in records:
        if len(values) != len(names):
            hint = "; a separator within a value needs quotes" if len(values) > len(names) else ""
            problems.add(f"row {number}", f"{len(values)} values; the header has {len(names)} columns{hint}")
            continue
        rows.append(_row(number, {name: values[i].strip() for name, i in places.items()}, files, problems))
    problems.stop_if_any()
    return [row for row in rows if row is not None], frozenset(places)


def _check_header(names: Sequence[str], header: Sequence[str], problems: Problems) -> None:
    for name in dict.fromkeys(names):
        if names.count(name) > 1 and name in (*NEEDED, *OPTIONAL):
            problems.add("header", f"column {name} is there {names.count(name)} times")
    unused = [n for n in names if n not in (*NEEDED, *OPTIONAL)]
    for name in NEEDED:
        if name not in names:
            hint = nearest(name, [n for n in unused if n])
            problems.add("header", f"no column {name}{hint} (found: {listed(h.strip() or '(empty)' for h in header)})")
    for name in unused:  # a column that is meant, but misspelt, would be left out silently
        close = difflib.get_close_matches(name, [o for o in (*OPTIONAL, *NEEDED) if o not in names], n=1, cutoff=0.8)
        if close and close[0] in OPTIONAL:
            problems.add("header", f"unknown column {name!r}; did you mean {close[0]!r}?")
    if ("x" in names) != ("y" in names):
        problems.add("header", "only one of the columns x and y is there; points need both")


def _row(number: int, values: dict[str, str], files: _Files, problems: Problems) -> Row | None:
    before = len(problems.found)

    def wrong(column: str, what: str) -> None:
        problems.add(f"row {number}, column {column}", what)

    for column in NEEDED:
        if not values[column]:
            wrong(column, "empty")
    label = _whole(values["label"], ("0", "1"))
    if label is None and values["label"]:
        wrong("label", f"{values['label']!r} is not allowed; expected 0 or 1")
    known = values.get("instance_label", "")
    instance_label = UNKNOWN if known.lower() in ("", "nan", "none", "null") else _whole(known, ("0", "1", "-1"))
    if instance_label is None:
        wrong("instance_label", f"{known!r} is not allowed; expected 0, 1, or nothing where it is not known")
    place = {}
    for column in ("x", "y"):
        text = values.get(column, "")
        try:
            place[column] = float(text) if text else math.nan
        except ValueError:
            place[column] = math.nan
            comma = "; decimals are written with a point" if "," in text else ""
            wrong(column, f"{text!r} is not a number{comma}")
        else:
            if text and not math.isfinite(place[column]):
                wrong(column, f"{text!r} is not a place in an image")
    path = None
    if values["path"]:
        path, reason = files.find(values["path"])
        if reason:
            wrong("path", reason)
    if len(problems.found) > before or label is None or path is None or instance_label is None:
        return None
    split = values.get("split", "").lower()
    return Row(number, values["bag"], label, path, values.get("group", ""), split, place["x"], place["y"],
               instance_label)  # fmt: skip


def _whole(text: str, allowed: Iterable[str]) -> int | None:
    """The whole number that a text says, `1.0` too, if it is allowed."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and str(int(value)) in allowed else None


class _Files:
    """Paths of a manifest as files; each is looked up once."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.found: dict[str, tuple[Path | None, str]] = {}

    def find(self, text: str) -> tuple[Path | None, str]:
        """The file, or None with what is wrong."""
        if text not in self.found:
            self.found[text] = self._find(text)
        return self.found[text]

    def _find(self, text: str) -> tuple[Path | None, str]:
        if "\0" in text:
            return None, f"{text!r} is no path"
        if "://" in text:
            return None, f"{text!r} is an address, not a file; copy the images to a folder"
        path = self.base / text
        try:
            if not path.is_file() and "\\" in text:  # written on Windows
                path = self.base / text.replace("\\", "/")
            if path.is_file():
                return path, ""
            if path.is_dir():
                return None, f"{text!r} is a folder; expected an image"
            drive = len(text) > 2 and text[1] == ":" and text[2] in "\\/"
            if drive:
                return (
                    None,
                    f"{text!r}: no such file here; it has a drive, paths relative to the manifest go everywhere",
                )
            near = nearest(path.name, [p.name for p in path.parent.iterdir()], 0.8) if path.parent.is_dir() else ""
        except OSError as error:
            return None, f"{text!r} cannot be looked up: {error.strerror or error}"
        return None, f"{text!r}: no such file (looked for {path}){near}"


Records = list[tuple[int, list[str]]]
"""(row number, values) of each row."""


def _read_csv(file: Path) -> tuple[list[str], Records]:
    """The header and the rows that are not blank. The separator, comma, semicolon or tab, is that of the header."""
    data = _read_bytes(file)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:1000]:
        raise UserError(f"{file}: not UTF-8 text (it looks like UTF-16, or a spreadsheet); save it as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: row {line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as CSV in "
                        "UTF-8") from None  # fmt: skip
    first = text.lstrip().split("\n", 1)[0]
    if not first.strip():
        raise UserError(f"{file}: empty; expected a header with the columns {', '.join(NEEDED)}")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    records: Records = []
    begin = 1
    try:
        for values in reader:
            number, begin = begin, reader.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if header:
                records.append((number, values))
            else:
                header = values
    except csv.Error as error:
        raise UserError(f"{file}: row {begin}: {error}") from None
    return header, records


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        near = nearest(file.name, [p.name for p in file.parent.iterdir()], 0.7) if file.parent.is_dir() else ""
        raise UserError(f"data.path: {file}: no such file{near}") from None
    except OSError as error:
        raise UserError(f"data.path: {file}: cannot be read: {error.strerror or error}") from None


def _read_parquet(file: Path) -> tuple[list[str], Records]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = _read_bytes(file)
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    header = list(table.column_names)
    columns = [
        [_text(value) for value in table.column(i).to_pylist()]
        if name.strip().lower() in (*NEEDED, *OPTIONAL)
        else [""] * len(table)
        for i, name in enumerate(header)
    ]
    return header, [(i + 1, [column[i] for column in columns]) for i in range(len(table))]


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
