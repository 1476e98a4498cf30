"""Means of metrics with their intervals for a model's card: those of the study's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.cells.partitions import DRAWN, metric_interval, partitions_of
from d2l_study.study.trial.model_record import Summary


def summary_of(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """As of `record_of_run`. rows: of one configuration's finished runs, with config_id, replicate, dataset, folds."""
    import pandas

    frame = pandas.DataFrame(rows)
    partition = partitions_of(frame).get(str(frame["config_id"].iloc[0]), DRAWN)

    def summary(metric: str) -> tuple[float, float, float, int]:
        found = metric_interval(frame, metric, partition)
        return found.mean, found.lower, found.upper, found.count

    return summary
