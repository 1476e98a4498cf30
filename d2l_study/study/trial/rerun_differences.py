"""How far a run that was trained again is from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RESULT_SUFFIXES = (
    "_auc", "_nll", "_brier", "_accuracy", "_precision", "_recall", "_f1", "_ap", "best_step", "steps_run",
)  # fmt: skip
"""Suffixes of the columns that say what a run found, and not how long it took or where."""


def replacement_columns(row: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Columns for a run that was trained again: `replaces`, the study that made the record, and
    `replaces_difference`, as `largest_difference`. Empty if there is no record."""
    if record is None:
        return {}
    return {"replaces": record["row"].get("made_by"), "replaces_difference": largest_difference(row, record["row"])}


def largest_difference(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest absolute difference between the metrics of two rows of one run; infinite if one has a metric (or a
    status) that the other has not."""
    if row["status"] != other["status"]:
        return math.inf
    largest = 0.0
    for name in row.keys() | other.keys():
        if not name.endswith(RESULT_SUFFIXES):
            continue
        values = [None if v is None or math.isnan(v) else float(v) for v in (row.get(name), other.get(name))]
        if values[0] is None or values[1] is None:
            largest = max(largest, 0.0 if values[0] is values[1] else math.inf)
        else:
            largest = max(largest, abs(values[0] - values[1]))
    return largest
