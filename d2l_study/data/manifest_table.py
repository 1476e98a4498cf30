"""A manifest as a table of columns: CSV or Parquet, read in bounded memory and without a Python object for each row;
where it is asked for, the first sheet of a spreadsheet, too.

Values of a column are coded: `codes` (n,) say which of the distinct `values` each row has, so that whatever is looked
up or compared as text is so once for each distinct text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.manifest_columns import MANIFEST, MOST_COLUMNS, ColumnNames, Columns, find_columns
from d2l_study.data.manifest_ignored import Ignored
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.spreadsheet import SPREADSHEETS, sheet_rows
from d2l_study.errors import UserError, first_line
from d2l_study.nearest_path import path_hint
from d2l_study.parquet_files import open_parquet, parquet_schema, read_parquet

MOST_ROWS = 10_000_000
MOST_BYTES = 4 * 2**30
"""Of a CSV file, which is read whole."""

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")

_FORMS = {
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"PK\x03\x04": "a spreadsheet (.xlsx) or another zip archive; save the table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls); save the table as CSV in UTF-8",
    b"PAR1": "Parquet; let its name end in .parquet",
}
"""What a file is that begins so, and is no CSV."""

_CELLS = 400_000
"""Values of a CSV that are held as text at a time."""


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of texts. codes: (n,) int64; values: the distinct texts, in the order of their first rows."""

    codes: np.ndarray
    values: list[str]

    def text(self, row: int) -> str:
        return self.values[self.codes[row]]

    @classmethod
    def of(cls, codes: np.ndarray, values: Sequence[str]) -> CategoricalColumn:
        """With the texts stripped, and without those that no row has."""
        kept: dict[str, int] = {}
        used, first = np.unique(codes, return_index=True)
        new = np.zeros(len(values), np.int64)
        for code in used[np.argsort(first)].tolist():
            new[code] = kept.setdefault(values[code].strip(), len(kept))
        return cls(new[codes], list(kept))


@dataclass(frozen=True)
class Table:
    """number: (n,) of each row in the file; texts: name -> column, for all but x and y; places: `x`, `y` -> (n,)
    float64, NaN where empty; related, kept: shown name -> column; what is no number in x and y is in the problems;
    notes: on columns that are not used."""

    columns: Columns
    number: np.ndarray
    texts: dict[str, CategoricalColumn]
    places: dict[str, np.ndarray]
    related: dict[str, CategoricalColumn]
    kept: dict[str, CategoricalColumn]
    notes: tuple[str, ...] = ()


def read_table(file: Path, problems: Problems, names: ColumnNames = MANIFEST, key: str = "data.path") -> Table:
    """The columns of a table that are used. names: those that it may have; key: what names the file.

    `UserError` for a file that cannot be read, or a header that lacks a column; what is wrong with single rows is noted
    in `problems`. Spreadsheets are read, unless it is a manifest.
    """
    if not file.is_file():
        found = "a folder" if file.is_dir() else "neither a file nor a folder" if file.exists() else "no such file"
        raise UserError(f"{key}: {file}: {found}{path_hint(file)}")
    if file.suffix.lower() in (".parquet", ".pq"):
        table = _read_parquet(file, problems, names)
    elif names is not MANIFEST and file.suffix.lower() in SPREADSHEETS:
        table = _gathered(file, sheet_rows(file), names, problems)
    else:
        table = _gathered(file, _csv_rows(file, names, key), names, problems)
    if not len(table.number) and not problems.found:
        raise UserError(f"{file}: no rows below the header")
    return table


def raw_columns(file: Path, names: ColumnNames, key: str) -> dict[str, list[str]]:
    """The columns of a small CSV by their names, all of their values as text; rows may be shorter than the header.
    names, key: as of `read_table`. `UserError` for a row that is longer, and for a column that is there twice."""
    rows = [(number, values) for number, _, values in _csv_rows(file, names, key) if any(v.strip() for v in values)]
    if not rows:
        raise _empty(file, names)
    header = [name.strip() for name in rows[0][1]]
    problems = Problems(file)
    for name in (name for name in names.needed if header.count(name) > 1):
        problems.add("header", f"column {name} is there {header.count(name)} times")
    for number, values in rows[1:]:
        if any(value.strip() for value in values[len(header) :]):
            problems.add(f"row {number}", f"{len(values)} values; the header has {len(header)} columns", number)
    problems.stop_if_any()
    return {
        name: [values[i].strip() if i < len(values) else "" for _, values in rows[1:]] for i, name in enumerate(header)
    }


def _checked(file: Path, header: Sequence[str], names: ColumnNames) -> Columns:
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{file}: {len(header):,} columns; at most {MOST_COLUMNS:,} are read")
    columns, wrong = find_columns(header, names)
    problems = Problems(file)
    for text in wrong:
        problems.add("header", text)
    problems.stop_if_any()
    return columns


def _empty(file: Path, names: ColumnNames) -> UserError:
    return UserError(f"{file}: empty; expected a header with the columns {', '.join(names.needed)}")


def _too_long(file: Path) -> UserError:
    return UserError(f"{file}: more than {MOST_ROWS:,} rows, which is the most that are read; use a part of them")


# ---- CSV
Record = tuple[int, int, list[str]]
"""The first and the last line of a row in its file, and its values."""


def _csv_rows(file: Path, names: ColumnNames, key: str) -> Iterator[Record]:
    """The separator, comma, semicolon or tab, is that of the header."""
    text = _read_text(file, key)
    first = text.lstrip().split("\n", 1)[0]
    if not first.strip():
        raise _empty(file, names)
    if "|" in first and not any(mark in first for mark in ",;\t"):
        raise UserError(f"{file}: the columns are separated by |; expected comma, semicolon or tab")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    begin = 1
    try:
        for values in reader:
            yield begin, reader.line_num, values
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}: row {begin}: {_quoting(str(error))}") from None


def _gathered(file: Path, rows: Iterator[Record], names: ColumnNames, problems: Problems) -> Table:
    """The rows that are not blank, below the first one that is not, the header."""
    gathered: _Gathered | None = None
    width, step = 0, 1
    numbers: list[int] = []
    records: list[list[str]] = []
    for number, last, values in rows:
        if gathered is None:
            if any(value.strip() for value in values):
                width = len(values)
                gathered, step = _Gathered(_checked(file, values, names), problems), max(1, _CELLS // width)
        elif len(values) != width:
            if any(value.strip() for value in values):
                hint = "; a separator within a value needs quotes" if len(values) > width else ""
                if last > number:
                    hint = f"; a quote that is opened in row {number} is closed in row {last}"
                problems.add(f"row {number}", f"{len(values)} values; the header has {width} columns{hint}", number)
        elif any(value.strip() for value in values):
            numbers.append(number)
            records.append(values)
            if len(records) >= step:
                gathered.add(numbers, records)
                numbers, records = [], []
    if gathered is None:
        raise _empty(file, names)
    gathered.add(numbers, records)
    return gathered.table()


def _quoting(error: str) -> str:
    if "unexpected end" in error or "field larger" in error:
        return "a quote is opened here and not closed"
    if "expected after" in error:
        return f"a quote is opened here, and something follows where it is closed ({error})"
    return error


class _Gathered:
    """The columns of a table, part by part."""

    def __init__(self, columns: Columns, problems: Problems) -> None:
        self.columns, self.problems = columns, problems
        self.names = [name for name in columns.place if name not in ("x", "y")]
        self.seen: dict[int, dict[str, int]] = {columns.place[name]: {} for name in self.names}
        self.seen |= {i: {} for i in (*columns.related.values(), *columns.kept.values())}
        self.codes: dict[int, list[np.ndarray]] = {i: [] for i in self.seen}
        self.places: dict[str, list[np.ndarray]] = {name: [] for name in ("x", "y") if name in columns}
        self.number: list[np.ndarray] = []
        self.rows = 0
        self.ignored = Ignored(columns.ignored)

    def add(self, numbers: list[int], records: list[list[str]]) -> None:
        self.rows += len(records)
        if self.rows > MOST_ROWS:
            raise _too_long(self.problems.file)
        number = np.array(numbers, np.int64)
        self.number.append(number)
        for i, seen in self.seen.items():
            codes = [seen.setdefault(record[i], len(seen)) for record in records]
            self.codes[i].append(np.array(codes, np.int64))
        for name, parts in self.places.items():
            at = self.columns.place[name]
            parts.append(_numbers([record[at] for record in records], number, self.columns.shown[name], self.problems))
        if "bag" not in self.columns:
            return
        bags = [record[self.columns.place["bag"]].strip() for record in records]
        for name in tuple(self.ignored.values):
            self.ignored.add(name, bags, [record[self.columns.ignored[name]].strip() for record in records])

    def table(self) -> Table:
        coded = {i: CategoricalColumn.of(np.concatenate(self.codes[i]), list(seen)) for i, seen in self.seen.items()}
        related, kept = (
            {shown: coded[i] for shown, i in more.items()} for more in (self.columns.related, self.columns.kept)
        )
        return Table(
            self.columns, np.concatenate(self.number), {name: coded[self.columns.place[name]] for name in self.names},
            {name: np.concatenate(parts) for name, parts in self.places.items()},
            related, kept, self.ignored.notes(),
        )  # fmt: skip


def _numbers(texts: Sequence[str], number: np.ndarray, column: str, problems: Problems) -> np.ndarray:
    """(n,) float64, NaN where a text is empty; what is no place in an image is noted."""
    try:
        found = np.array(list(map(float, texts)), np.float64)
        strange = np.flatnonzero(~np.isfinite(found))
    except ValueError:
        found = np.full(len(texts), np.nan)
        wrong = []
        for i, text in enumerate(texts):
            try:
                found[i] = float(text) if text.strip() else np.nan
            except ValueError:
                wrong.append(i)
                continue
            if text.strip() and not np.isfinite(found[i]):
                wrong.append(i)
        strange = np.array(wrong, np.int64)
    if not len(strange):
        return found
    kinds: dict[str, int] = {}
    example: list[str] = []
    codes = np.full(len(texts), -1, np.int64)
    for i in strange.tolist():  # what is wrong in all rows is one problem
        text = texts[i].strip()[:60]
        codes[i] = kinds.setdefault("," if _DECIMAL_COMMA.fullmatch(text) else text, len(kinds))
        if codes[i] == len(example):
            example.append(text)

    def tell(code: int) -> tuple[str, str]:
        text = example[code]
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return column, f"{text!r} is not a place in an image"
        comma = "; decimals are written with a point" if "," in text else ""
        return column, f"{text!r} is not a number{comma}"

    problems.add_values(number[strange], codes[strange], range(len(kinds)), tell)
    return found


def _read_text(file: Path, key: str) -> str:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"{file}: {size / 2**30:.1f} GiB; a CSV file of at most {MOST_BYTES / 2**30:.0f} GiB is read (Parquet "
                "is smaller)"
            )
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{key}: {file}: cannot be read: {error.strerror or error}") from None
    for begin, what in _FORMS.items():
        if data.startswith(begin):
            raise UserError(f"{file}: this is {what}")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:1000]:
        raise UserError(f"{file}: not UTF-8 text (it looks like UTF-16, or a spreadsheet); save it as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: row {line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as CSV in "
                        "UTF-8") from None  # fmt: skip


# ---- Parquet
def _read_parquet(file: Path, problems: Problems, names: ColumnNames) -> Table:
    try:
        with open_parquet(file) as parquet:
            header = [str(name) for name in parquet.schema_arrow.names]
            rows = parquet.metadata.num_rows
    except Exception as error:  # pyarrow's own, OSError, and others for what is damaged
        raise UserError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
    columns = _checked(file, header, names)
    if rows > MOST_ROWS:
        raise _too_long(file)
    wanted = dict.fromkeys((*columns.place.values(), *columns.related.values(), *columns.kept.values()))
    try:
        table = read_parquet(file, [header[i] for i in wanted])
    except Exception as error:
        raise UserError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
    number = np.arange(1, rows + 1)
    places = {}
    for name in ("x", "y"):
        if name in columns:
            places[name] = _arrow_numbers(
                file, header[columns.place[name]], table, number, columns.shown[name], problems
            )
    coded = {
        i: _arrow_texts(file, header[i], table) for i in wanted if i not in [columns.place.get(n) for n in ("x", "y")]
    }
    texts = {name: coded[i] for name, i in columns.place.items() if name not in ("x", "y")}
    related, kept = ({shown: coded[i] for shown, i in more.items()} for more in (columns.related, columns.kept))
    notes = _ignored_notes(file, header, columns, texts["bag"]) if "bag" in texts else ()
    return Table(columns, number, texts, places, related, kept, notes)


def _ignored_notes(file: Path, header: Sequence[str], columns: Columns, bag: CategoricalColumn) -> tuple[str, ...]:
    """What is said of the columns that are not used; they are read one by one, and those of numbers with a fraction
    and the like name nothing."""
    import pyarrow as pa

    types = parquet_schema(file)
    ignored = Ignored(
        name for name, i in columns.ignored.items()
        if (kind := types.field(i).type) in (pa.string(), pa.large_string())
        or pa.types.is_integer(kind) or pa.types.is_dictionary(kind)
    )  # fmt: skip
    for name in tuple(ignored.values):
        shown = header[columns.ignored[name]]
        try:
            column = _arrow_texts(file, shown, read_parquet(file, [shown]))
        except Exception:  # it is not used, so that nothing needs to be right in it
            continue
        pairs = np.unique(np.stack([bag.codes, column.codes], axis=1), axis=0).tolist()
        ignored.add(name, [bag.values[b] for b, _ in pairs], [column.values[c] for _, c in pairs])
    return ignored.notes()


def _arrow_texts(file: Path, name: str, table: Any) -> CategoricalColumn:
    import pyarrow as pa

    column = table.column(name)
    try:
        array = column.combine_chunks()
        array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode(null_encoding="encode")
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.unify_dictionaries().chunks)
        array.validate(full=True)  # a damaged file may lead beyond its values
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = [_text(value) for value in array.dictionary.to_pylist()]
    except Exception as error:  # values that Python has none for, such as times before the year 1
        raise UserError(f"{file}: column {name}: values of type {column.type} cannot be read as text "
                        f"({first_line(error)})") from None  # fmt: skip
    return CategoricalColumn.of(np.where(codes < 0, len(values), codes), [*values, ""])


def _arrow_numbers(
    file: Path, name: str, table: Any, number: np.ndarray, shown: str, problems: Problems
) -> np.ndarray:  # fmt: skip
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        found = column.to_numpy().astype(np.float64)
        wrong = np.flatnonzero(np.isinf(found))
        problems.add_values(number[wrong], np.zeros(len(wrong), np.int64), [0] if len(wrong) else [],
                            lambda _: (shown, "inf is not a place in an image"))  # fmt: skip
        return np.where(np.isinf(found), np.nan, found)
    texts = _arrow_texts(file, name, table)
    return _numbers([texts.values[code] for code in texts.codes], number, shown, problems)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
