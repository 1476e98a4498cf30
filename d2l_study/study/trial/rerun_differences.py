"""How far a run that was trained again is from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from d2l_study.study.trial.result_columns import is_result

ROUNDING, LOGIT_ROUNDING = 1e-6, 1e-5
"""Metrics, and logits, that differ by no more are equal within rounding: numbers of float32 near a logit of 8 lie 1e-6
apart. How a stack is rounded depends on how many runs it holds, so that a replicate of vectors that is trained alone
differs by as much from the same one among others."""


def replacement_columns(row: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Columns for a run that was trained again: `replaces`, the study that made the record, and
    `replaces_difference`, as `largest_difference`. Empty if there is no record."""
    if record is None:
        return {}
    return {"replaces": record["row"].get("made_by"), "replaces_difference": largest_difference(row, record["row"])}


def largest_difference(row: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    """The largest absolute difference between the results of a run and of its record, rows both (`is_result`). Infinite
    where one has a value that the other has not, or another status. Results that only the new row has a column for,
    since the version that made the record did not compute them, are not compared."""
    if row["status"] != before["status"]:
        return math.inf
    return max((_distance(old, new) for old, new in differing_results(row, before).values()), default=0.0)


def differing_results(row: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The results that are not the same: column -> the value of the record, that of the new row. NaN counts as None."""
    pairs = {name: (_known(old), _known(row.get(name))) for name, old in before.items() if is_result(name)}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _distance(old: Any, new: Any) -> float:
    """Between two different values; infinite if one is no number."""
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(float(old) - float(new))
    return math.inf
