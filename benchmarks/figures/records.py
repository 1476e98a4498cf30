"""The records of `benchmarks/records/` as rows and values that figures are drawn from."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import analysis

if TYPE_CHECKING:
    import pandas

RECORDS = Path(__file__).resolve().parents[1] / "records"


def rows_of(record: str) -> pandas.DataFrame:
    """The rows of a record (`analysis.load`). Where a record lacks it, a student's teacher is the configuration of the
    arm before its arrow."""
    file = _file(record)
    rows = _as_written(file)
    if "teacher_id" in rows:
        return analysis.load(file)
    rows["study"] = record
    id_of = rows[rows.stage == "teacher"].groupby("method").config_id.first()
    arms = rows.method.str.split(" → ").str
    rows["teacher_id"] = arms[0].map(id_of).where(rows.stage == "student")
    rows["teacher_method"] = arms[0].where(rows.stage == "student")
    rows["student_method"] = arms[1].where(rows.stage == "student")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "rows.csv")
        rows.to_csv(whole, index=False)
        return analysis.load(whole)


def matching(pattern: str) -> list[str]:
    """The names of the records that have rows and match a pattern, by date."""
    return sorted({path.parent.name for path in RECORDS.glob(f"{pattern}/rows.*")})


def with_matched_teachers() -> list[str]:
    """The names of the records in which students of drawn bags stand beside teachers of equal training (`matched`), by
    date. Records of tuning are left out, since they chose settings, and those of fewer than ten replicates."""
    found = []
    for record in matching("*"):
        rows = _as_written(_file(record))
        if "tuning" in record or not {"stage", "num_bags"} <= set(rows):
            continue
        if (rows.stage == "matched").any() and rows.num_bags.notna().any() and rows.replicate.nunique() >= 10:
            found.append(record)
    return found


def _file(record: str) -> Path:
    return next(path for path in (RECORDS / record / f"rows{end}" for end in (".parquet", ".csv")) if path.exists())


def _as_written(file: Path) -> pandas.DataFrame:
    import pandas as pd

    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, low_memory=False)


def read_json(record: str, file: str) -> Any:
    """A JSON file of a record."""
    return json.loads((RECORDS / record / file).read_text(encoding="utf-8"))


def read_csv(record: str, file: str) -> list[dict[str, str]]:
    """The lines of a CSV file of a record, as texts."""
    with (RECORDS / record / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def named(*records: str) -> str:
    """How a note names records: `records 2026-11-26-gpu-k10, … and …`."""
    *others, last = records
    return f"records {', '.join(others)} and {last}" if others else f"record {last}"
