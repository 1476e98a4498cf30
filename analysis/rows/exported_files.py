"""Rows written to a file, and read from one. A file that is read is checked: it may have been edited, cut short, or be
no export at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.rows.csv_text import to_csv, unguarded_frame
from analysis.rows.metrics import metric_of_column
from analysis.rows.mixed_columns import without_mixed_columns
from analysis.rows.output_files import writable_path, writing
from analysis.rows.repeated_runs import unlike_rows
from analysis.rows.study_folders import FOLDERS
from d2l_study.errors import UserError, listed
from d2l_study.learning.controls import CONTROL_IDS
from d2l_study.nearest_path import path_hint
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import LEADING_COLUMNS

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".parquet", ".csv")
NEEDED = ("config_id", "stage", "method", "replicate", "status")
TEXTS = (
    "study",
    "config_id",
    "trial_id",
    "stage",
    "method",
    "teacher_id",
    "teacher_method",
    "student_method",
    *CONTROL_IDS,
    "status",
)
MISSING = ("", "nan", "NaN", "-nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None")
"""What other programs write for a number that is not there."""
STATES = ("done", "failed", "missing", "pruned")


def export(rows: pandas.DataFrame, out: str | Path) -> Path:
    """Write the rows as they are to a .parquet or .csv file; returns its path. UserError where that is not possible."""
    path = writable_path(out, SUFFIXES)
    rows = rows.copy(deep=False)
    rows.attrs = {key: value for key, value in rows.attrs.items() if key != FOLDERS}  # the folders of this machine
    with writing(path) as place:
        if path.suffix.lower() == ".csv":
            place.write_text(to_csv(rows), encoding="utf-8")
        else:
            without_mixed_columns(rows).to_parquet(place, index=False)
    return path


def load_file(path: Path) -> pandas.DataFrame:
    """The rows of an export, or of a study's `rows.parquet`. UserError if the file is not one, or names a value that
    no run can have. A file of chosen columns may lack those that others give: its study has the file's name."""
    try:
        frame = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{path_hint(Path(path))}") from None
    except UserError:
        raise
    except Exception as error:  # pyarrow and pandas each raise their own
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as rows of a study: {text}") from None
    lacking = [c for c in NEEDED if c not in frame]
    if lacking:
        raise UserError(f"{path}: not an export of a study's rows, it lacks the columns {listed(lacking)}")
    if frame.empty:
        raise UserError(f"{path}: holds no rows")
    _check(frame, path)
    if "study" not in frame:
        frame["study"] = path.parent.name if path.stem == "rows" else path.stem
    if unlike := unlike_rows(frame, by_study=True):
        one, other = (_place(path, row) for row in unlike.places)
        raise UserError(f"{path}: {one} and {other} are of one run, {unlike.run}, and differ ({unlike.text}); expected "
                        "one row for each run of a study")  # fmt: skip
    if "trial_id" not in frame:
        frame["trial_id"] = frame["config_id"].map(trial_id)
    for column in LEADING_COLUMNS:  # what nothing fills may have been left out
        if column not in frame:
            frame[column] = math.nan
    frame.attrs.setdefault("study", listed(frame["study"].dropna().unique()))
    return frame.copy()  # columns in one piece: pandas warns of what was put together one by one


def _read_csv(path: Path) -> pandas.DataFrame:
    """Ids and names stay texts: an id of digits, or an arm called `None` or `007`, is no number and not missing."""
    import pandas as pd

    columns = pd.read_csv(path, nrows=0).columns
    empty = {column: [""] if column in TEXTS else [*MISSING] for column in columns}
    texts = {column: str for column in TEXTS if column in columns}
    frame = pd.read_csv(path, low_memory=False, dtype=texts, na_values=empty, keep_default_na=False)
    return unguarded_frame(frame)


def _read_parquet(path: Path) -> pandas.DataFrame:
    """Rows hold numbers, texts, truth values and lists of those; pandas and Python cannot print any date there is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = pa.types
    for field in pq.read_schema(path):
        wrong = kinds.is_temporal(field.type) or kinds.is_struct(field.type) or kinds.is_map(field.type)
        if wrong or kinds.is_binary(field.type) or kinds.is_large_binary(field.type):
            raise UserError(f"{path}: column {field.name}: found {field.type}, expected numbers or texts")
    import pandas as pd

    return pd.read_parquet(path)


def _check(frame: pandas.DataFrame, path: Path) -> None:
    import pandas as pd

    replicate = pd.to_numeric(frame["replicate"], errors="coerce")
    _refuse(frame, path, "replicate", ~((replicate >= 0) & (replicate % 1 == 0)), "a whole number from 0 on")
    frame["replicate"] = replicate.astype(int)
    _refuse(frame, path, "status", ~frame["status"].isin(STATES), " or ".join(STATES))
    for column in map(str, frame.columns):
        metric = metric_of_column(column)
        if metric is None or pd.api.types.is_bool_dtype(frame[column]):
            continue
        values = pd.to_numeric(frame[column], errors="coerce")
        if frame[column].notna().any() and values.isna().all():
            continue  # a key that is called like a metric
        _refuse(frame, path, column, frame[column].notna() & values.isna(), "a number")
        if metric.unit_interval:
            _refuse(frame, path, column, (values < 0) | (values > 1), "a number from 0 to 1")


def _refuse(frame: pandas.DataFrame, path: Path, column: str, wrong: pandas.Series, expected: str) -> None:
    """UserError that names the first of the wrong values."""
    if not wrong.any():
        return
    first = int(wrong.to_numpy().argmax())
    value: Any = frame[column].iloc[first]
    found = "nothing" if value is None or value != value else repr(getattr(value, "item", lambda: value)())
    raise UserError(f"{path}: {_place(path, first)}, column {column}: found {found}, expected {expected}")


def _place(path: Path, row: int) -> str:
    """Where a row of the frame, from 0, stands in its file. The heading is the first line of a CSV file."""
    return f"line {row + 2}" if path.suffix.lower() == ".csv" else f"row {row + 1}"
