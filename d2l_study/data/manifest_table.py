"""A manifest as a table of columns: CSV or Parquet, read in bounded memory and without a Python object for each row.

Values of a column are coded: `codes` (n,) say which of the distinct `values` each row has, so that whatever is looked
up or compared as text is so once for each distinct text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.manifest_columns import MOST_COLUMNS, NEEDED, Columns, find_columns
from d2l_study.errors import UserError, nearest

MOST_ROWS = 10_000_000
MOST_BYTES = 4 * 2**30
"""Of a CSV file, which is read whole."""

MOST_PROBLEMS = 20
"""Problems shown of one manifest; the others are counted."""

_LONGEST = 800
"""Letters of a problem that are shown."""

_CELLS = 400_000
"""Values of a CSV that are held as text at a time."""


@dataclass
class Problems:
    """What is wrong with a manifest. `count` is of all, `found` holds the first ones of each kind, with the row that
    they are shown in the order of."""

    file: Path
    found: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, what: str, row: int = 0) -> None:
        self.count += 1
        if len(text := f"{place}: {what}") > _LONGEST:  # a value may be of any length
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"
        self.found.append((row, text))

    def add_rows(self, number: np.ndarray, rows: np.ndarray, tell: Callable[[int], tuple[str, str]]) -> None:
        """One for each of the rows (indices, rising); number: (n,) of all rows in the file; tell: a row's index ->
        column or "", and what is wrong."""
        for i in rows[:MOST_PROBLEMS].tolist():
            column, what = tell(i)
            place = f"row {number[i]}" + (f", column {column}" if column else "")
            self.add(place, what, int(number[i]))
        self.count += max(0, len(rows) - MOST_PROBLEMS)

    def add_values(
        self, number: np.ndarray, codes: np.ndarray, wrong: Iterable[int], tell: Callable[[int], tuple[str, str]]
    ) -> None:
        """One for each of the wrong values (codes), at the first row that has it."""
        wrong = list(wrong)
        if not wrong:
            return
        rows = np.bincount(codes, minlength=max(wrong) + 1)
        for code in wrong[:MOST_PROBLEMS]:
            if not rows[code]:
                continue
            at = int(number[np.argmax(codes == code)])
            column, what = tell(code)
            more = f" (and so in {rows[code] - 1:,} more rows)" if rows[code] > 1 else ""
            self.add(f"row {at}, column {column}", what + more, at)
        self.count += max(0, len(wrong) - MOST_PROBLEMS)

    def stop_if_any(self) -> None:
        """`UserError` with the first of them, each on a line of its own if there are several."""
        if not self.found:
            return
        if self.count == 1:
            raise UserError(f"{self.file}: {self.found[0][1]}")
        shown = [text for _, text in sorted(self.found, key=lambda entry: entry[0])][:MOST_PROBLEMS]
        more = self.count - len(shown)
        lines = [f"{self.file}: {self.count:,} problems", *shown, *([f"… and {more:,} more"] if more else [])]
        raise UserError("\n  ".join(lines))


@dataclass(frozen=True)
class Coded:
    """A column of texts. codes: (n,) int64; values: the distinct texts, in the order of their first rows."""

    codes: np.ndarray
    values: list[str]

    def text(self, row: int) -> str:
        return self.values[self.codes[row]]

    @classmethod
    def of(cls, codes: np.ndarray, values: Sequence[str]) -> Coded:
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
    float64, NaN where empty; related: shown name -> column; what is no number in x and y is in the problems."""

    columns: Columns
    number: np.ndarray
    texts: dict[str, Coded]
    places: dict[str, np.ndarray]
    related: dict[str, Coded]


def read_table(file: Path, problems: Problems) -> Table:
    """The columns of a manifest that are used. `UserError` for a file that cannot be read, or a header that lacks a
    column; what is wrong with single rows is noted in `problems`."""
    if not file.is_file():
        found = "a folder" if file.is_dir() else "neither a file nor a folder" if file.exists() else "no such file"
        beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() and not file.exists() else []
        raise UserError(f"data.path: {file}: {found}{nearest(file.name, beside, 0.7)}")
    table = (_read_parquet if file.suffix.lower() in (".parquet", ".pq") else _read_csv)(file, problems)
    if not len(table.number) and not problems.found:
        raise UserError(f"{file}: no rows below the header")
    return table


def _checked(file: Path, header: Sequence[str]) -> Columns:
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{file}: {len(header):,} columns; at most {MOST_COLUMNS:,} are read")
    columns, wrong = find_columns(header)
    problems = Problems(file)
    for text in wrong:
        problems.add("header", text)
    problems.stop_if_any()
    return columns


def _too_long(file: Path) -> UserError:
    return UserError(f"{file}: more than {MOST_ROWS:,} rows, which is the most that are read; use a part of them")


# ---- CSV
def _read_csv(file: Path, problems: Problems) -> Table:
    """The rows that are not blank. The separator, comma, semicolon or tab, is that of the header."""
    text = _read_text(file)
    first = text.lstrip().split("\n", 1)[0]
    if not first.strip():
        raise UserError(f"{file}: empty; expected a header with the columns {', '.join(NEEDED)}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    columns: Columns | None = None
    gathered: _Gathered | None = None
    begin, width, step, bag = 1, 0, 1, 0
    numbers: list[int] = []
    records: list[list[str]] = []
    try:
        for values in reader:
            number, begin = begin, reader.line_num + 1
            if gathered is None:
                if any(value.strip() for value in values):
                    columns, width = _checked(file, values), len(values)
                    gathered, bag, step = _Gathered(columns, problems), columns.place["bag"], max(1, _CELLS // width)
            elif len(values) != width:
                if any(value.strip() for value in values):
                    hint = "; a separator within a value needs quotes" if len(values) > width else ""
                    if begin - number > 1:
                        hint = f"; a quote that is opened in row {number} is closed in row {begin - 1}"
                    problems.add(f"row {number}", f"{len(values)} values; the header has {width} columns{hint}", number)
            elif values[bag].strip() or any(value.strip() for value in values):
                numbers.append(number)
                records.append(values)
                if len(records) >= step:
                    gathered.add(numbers, records)
                    numbers, records = [], []
    except csv.Error as error:
        raise UserError(f"{file}: row {begin}: {_quoting(str(error))}") from None
    assert columns is not None and gathered is not None
    gathered.add(numbers, records)
    return gathered.table()


def _quoting(error: str) -> str:
    if "unexpected end" in error or "field larger" in error:
        return "a quote is opened here and not closed"
    if "expected after" in error:
        return f"a quote is opened here, and something follows where it is closed ({error})"
    return error


class _Gathered:
    """The columns of a CSV, part by part."""

    def __init__(self, columns: Columns, problems: Problems) -> None:
        self.columns, self.problems = columns, problems
        self.names = [name for name in columns.place if name not in ("x", "y")]
        self.seen: dict[int, dict[str, int]] = {columns.place[name]: {} for name in self.names}
        self.seen |= {i: {} for i in columns.related.values()}
        self.codes: dict[int, list[np.ndarray]] = {i: [] for i in self.seen}
        self.places: dict[str, list[np.ndarray]] = {name: [] for name in ("x", "y") if name in columns}
        self.number: list[np.ndarray] = []
        self.rows = 0

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

    def table(self) -> Table:
        coded = {i: Coded.of(np.concatenate(self.codes[i]), list(seen)) for i, seen in self.seen.items()}
        return Table(
            self.columns, np.concatenate(self.number), {name: coded[self.columns.place[name]] for name in self.names},
            {name: np.concatenate(parts) for name, parts in self.places.items()},
            {shown: coded[i] for shown, i in self.columns.related.items()},
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

    def tell(i: int) -> tuple[str, str]:
        text = texts[i].strip()[:60]
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return column, f"{text!r} is not a place in an image"
        comma = "; decimals are written with a point" if "," in text else ""
        return column, f"{text!r} is not a number{comma}"

    problems.add_rows(number, strange, tell)
    return found


def _read_text(file: Path) -> str:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"{file}: {size / 2**30:.1f} GiB; a CSV file of at most {MOST_BYTES / 2**30:.0f} GiB is read (Parquet "
                "is smaller)"
            )
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"data.path: {file}: cannot be read: {error.strerror or error}") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:1000]:
        raise UserError(f"{file}: not UTF-8 text (it looks like UTF-16, or a spreadsheet); save it as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: row {line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as CSV in "
                        "UTF-8") from None  # fmt: skip


# ---- Parquet
def _read_parquet(file: Path, problems: Problems) -> Table:
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        header = [str(name) for name in parquet.schema_arrow.names]
        rows = parquet.metadata.num_rows
    except Exception as error:  # pyarrow's own, OSError, and others for what is damaged
        raise UserError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    columns = _checked(file, header)
    if rows > MOST_ROWS:
        raise _too_long(file)
    wanted = dict.fromkeys((*columns.place.values(), *columns.related.values()))
    try:
        table = pq.read_table(file, columns=[header[i] for i in wanted])
    except Exception as error:
        raise UserError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
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
    return Table(columns, number, texts, places, {shown: coded[i] for shown, i in columns.related.items()})


def _arrow_texts(file: Path, name: str, table: Any) -> Coded:
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
                        f"({str(error).splitlines()[0]})") from None  # fmt: skip
    return Coded.of(np.where(codes < 0, len(values), codes), [*values, ""])


def _arrow_numbers(
    file: Path, name: str, table: Any, number: np.ndarray, shown: str, problems: Problems
) -> np.ndarray:  # fmt: skip
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        found = column.to_numpy().astype(np.float64)
        problems.add_rows(number, np.flatnonzero(np.isinf(found)), lambda i: (shown, "inf is not a place in an image"))
        return np.where(np.isinf(found), np.nan, found)
    texts = _arrow_texts(file, name, table)
    return _numbers([texts.values[code] for code in texts.codes], number, shown, problems)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
