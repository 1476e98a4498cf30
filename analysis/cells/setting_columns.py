"""Which columns of rows say how a run was configured, and what their values are in a table."""

from __future__ import annotations

from typing import Any

from analysis.cells.layout import is_missing
from analysis.rows.metrics import metric_of_column
from d2l_study.learning.controls import CONTROL_IDS

OF_STUDENTS = "student"
"""The column that says of a control, of which students it is one (`configurations.with_students_of_controls`)."""

# Columns that describe a run, not its configuration: they name no cell and lead to no label.
RUN_COLUMNS = frozenset({
    "study", "config_id", "trial_id", "replicate", "repeat", "fold", "teacher_id", "status", "cause", "attempt",
    "device", "precision", "code_version", "best_step", "steps_run", "threads", "made_by", "committed_at", "oracle",
    "search_oracle", "instance_threshold", "instance_bias", "host", "warning", "replaces", "replaces_difference",
    "partition", "fold_count", "test_set", "train_bags", "test_bags", "train_instances", "val_instances",
    "test_instances", *CONTROL_IDS, "instance_visits", "labels_used",
    OF_STUDENTS,
})  # fmt: skip


def is_setting(column: str) -> bool:
    """Whether a column says how a run was configured, and not how it went."""
    return column not in RUN_COLUMNS and metric_of_column(column) is None


def plain_value(value: Any) -> Any:
    """A hashable value in which 50.0, 50 and NumPy's 50 are the same."""
    if is_missing(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value if isinstance(value, int | float | str) else str(value)
