"""Which columns of a run's row say what the run found, and not how it was computed, how long it took or where."""

from __future__ import annotations

METRIC_PREFIXES = ("val_bag_", "bag_", "instance_", "bagged_")
"""How the columns begin that are metrics."""
NO_METRICS = ("instance_visits",)
"""Columns that begin so and are none: a count of what training has seen."""
FURTHER_RESULTS = ("val_distill_loss", "best_step", "steps_run")
"""Results that begin in another way."""


def is_metric(column: str) -> bool:
    """Whether a column of a committed row is a metric of bags or instances. Tables have the keys of the configuration
    beside these columns, some of which begin in the same way (`bag_order`)."""
    return column.startswith(METRIC_PREFIXES) and column not in NO_METRICS


def is_result(column: str) -> bool:
    """Whether training the same run again must give the same value in this column of a committed row."""
    return is_metric(column) or column in FURTHER_RESULTS
