"""Intervals for the metrics on a model's card: as the tables have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.statistics.intervals import mean_interval


def metric_bounds(values: Sequence[float], row: Mapping[str, Any]) -> tuple[float, float]:
    """The 95 % interval of the mean of a metric over replicates; NaN of one replicate.

    values: of each replicate; row: of one of them, which says whether replicates are folds of one data set.
    """
    folds = row.get("fold") is not None and row.get("train_bags") and row.get("test_bags")
    ratio = row["test_bags"] / row["train_bags"] if folds else None
    found = mean_interval(values, unit_interval=all(0 <= v <= 1 for v in values), test_train_ratio=ratio)
    return found.lower, found.upper
