"""A table in long form, for programs: one CSV line per planned cell and per paired difference."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import Any

from analysis.differences import differences
from analysis.intervals import Interval
from analysis.layout import Label, Layout

VALUE = "value"
NUMBERS = ("mean", "lower", "upper", "half_width", "count", "planned", "status", "interval", "baseline")


def long_csv(layout: Layout) -> str:
    """One line per planned cell (kind `value`), then the differences; empty fields where there is no number.

    A difference has the keys of the cell that `baseline` was subtracted from, and its kind says which sort it is
    (`differences`).
    """
    keys = [k for k in (layout.panel_key, layout.row_key, layout.column_key) if k is not None]
    named = (k for labels in (layout.rows, layout.columns) for one in labels for k, _ in one.keys)
    stated = ("study", "metric", "split", "kind", "row", *keys, "stage", "teacher_method", "student_method", *named)
    out = io.StringIO()
    writer = csv.DictWriter(out, [*dict.fromkeys([*stated, *NUMBERS])], lineterminator="\n")
    writer.writeheader()

    def write(place: tuple[Label, Label, Label], kind: str, interval: Interval, status: str, baseline: str) -> None:
        cell, labels = layout.cells[place], [one for one in place if one.key is not None]
        own: dict[Any, Any] = {one.key: one.value for one in labels} | {k: v for one in labels for k, v in one.keys}
        writer.writerow({
            **own, "study": layout.study, "metric": layout.metric.name, "split": layout.metric.split, "kind": kind,
            "row": place[1].text, "stage": cell.origin.stage, "teacher_method": cell.origin.teacher_method,
            "student_method": cell.origin.student_method, "mean": _number(interval.mean),
            "lower": _number(interval.lower), "upper": _number(interval.upper),
            "half_width": _number(interval.half_width), "count": interval.count, "planned": cell.planned,
            "status": status, "interval": interval.kind, "baseline": baseline,
        })  # fmt: skip

    for place in itertools.product(layout.panels, layout.rows, layout.columns):
        if place in layout.cells:
            write(place, VALUE, layout.cells[place].interval, layout.cells[place].status, "")
    for panel in layout.panels:
        for one in differences(layout, panel):
            for column, interval in one.by_column.items():
                planned = layout.cells[panel, one.row, column].planned
                status = "done" if interval.count == planned else "partial" if interval.count else "missing"
                write((panel, one.row, column), one.kind, interval, status, one.baseline)
    return out.getvalue()


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
