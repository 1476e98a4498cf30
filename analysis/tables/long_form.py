"""A table in long form, for programs: one row per planned cell and per paired difference."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import TYPE_CHECKING, Any

from analysis.cells.best import is_tied
from analysis.cells.layout import METRICS, Cell, CellKey, Layout
from analysis.rows.csv_text import guarded
from analysis.rows.stages import ORACLE_SEARCH_NOTE
from analysis.statistics.intervals import Interval
from analysis.tables.study_sheet import TableContent
from d2l_study.study.ledger.ledger import trial_id

if TYPE_CHECKING:
    import pandas

ORACLE_SEARCH_COLUMN = "search_oracle"
"""A column of the tables, and of the rows, of a search that looked at true instance labels; others do not have it."""

VALUE, POOLED = "value", "pooled_out_of_fold"
NUMBERS = ("mean", "lower", "upper", "half_width", "count", "planned", "status", "interval", "baseline")
TESTS = ("best", "not_told_from_best", "p_to_best", "p_to_best_holm")
_NUMERIC = ("mean", "lower", "upper", "half_width", "p_to_best", "p_to_best_holm")


def long_rows(table: TableContent) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the columns, and a dictionary per row: the cells (kind `value`), the pooled ones, the differences.

    A difference has the keys of the cell that `baseline` was subtracted from, and its kind says which sort it is
    (`differences`). Numbers that are not there are NaN.
    """
    layout = table.layout
    keys = [k for k in (layout.panel_key, layout.row_key, layout.column_key) if k is not None and k != METRICS]
    named = (k for labels in (layout.rows, layout.columns, layout.panels) for one in labels for k, _ in one.keys)
    stated = (
        "study",
        "metric",
        "split",
        "kind",
        "row",
        *keys,
        "trial_id",
        "stage",
        "teacher_method",
        "student_method",
        *named,
    )
    rows: list[dict[str, Any]] = []
    for cell_key in itertools.product(layout.panels, layout.rows, layout.columns):
        cell = layout.cells.get(cell_key)
        if cell is None:
            continue
        test = table.tested.get(cell_key)
        row = _row(layout, cell_key, cell, VALUE, cell.interval, cell.status, "")
        row |= {"best": cell_key in table.best, "not_told_from_best": None if test is None else is_tied(test),
                "p_to_best": math.nan if test is None else test.p,
                "p_to_best_holm": math.nan if test is None else test.p_holm}  # fmt: skip
        rows.append(row)
    if table.pooled is not None:
        for cell_key, cell in table.pooled.cells.items():
            rows.append(_row(table.pooled, cell_key, cell, POOLED, cell.interval, cell.status, ""))
    for panel in layout.panels:
        for one in table.differences[panel]:
            for column, interval in one.by_column.items():
                cell = layout.cells[panel, one.row, column]
                status = "done" if interval.count == cell.planned else "partial" if interval.count else "missing"
                cell_key = (panel, one.row, column)
                rows.append(_row(layout, cell_key, cell, one.kind, interval, status, one.baseline))
    marked = {ORACLE_SEARCH_COLUMN: True} if any(ORACLE_SEARCH_NOTE in note for note in layout.notes) else {}
    return [*dict.fromkeys([*stated, *NUMBERS, *TESTS, *marked])], [row | marked for row in rows]


def long_frame(table: TableContent) -> pandas.DataFrame:
    """The rows as a DataFrame."""
    import pandas as pd

    columns, rows = long_rows(table)
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("best", "not_told_from_best"):
        frame[name] = frame[name].astype("boolean")
    return frame


def long_csv(table: TableContent) -> str:
    """The rows as CSV, numbers unrounded, `inf` among them; empty fields where there is no number."""
    columns, rows = long_rows(table)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts: dict[Any, Any] = {name: _number(row[name]) for name in _NUMERIC if name in row}
        texts |= {name: "" if row.get(name) is None else str(row[name]).lower() for name in TESTS[:2]}
        writer.writerow({name: guarded(value) for name, value in {**row, **texts}.items() if name not in _NUMERIC}
                        | {name: texts[name] for name in _NUMERIC if name in texts})  # fmt: skip
    return out.getvalue()


def _row(
    layout: Layout,
    cell_key: CellKey,
    cell: Cell,
    kind: str,
    interval: Interval,
    status: str,
    baseline: str,
) -> dict[str, Any]:
    labels = [one for one in cell_key if one.key is not None and one.key != METRICS]
    own: dict[str, Any] = {str(one.key): one.value for one in labels} | {k: v for one in cell_key for k, v in one.keys}
    return {
        "study": layout.study, **own, "metric": cell.metric.name, "split": cell.metric.split, "kind": kind,
        "row": cell_key[1].text, "trial_id": trial_id(cell.origin.config_id), "stage": cell.origin.stage,
        "teacher_method": cell.origin.teacher_method, "student_method": cell.origin.student_method,
        "mean": interval.mean, "lower": interval.lower, "upper": interval.upper, "half_width": interval.half_width,
        "count": interval.count, "planned": cell.planned, "status": status, "interval": interval.kind,
        "baseline": baseline,
    }  # fmt: skip


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
