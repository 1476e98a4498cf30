"""Tests of two trained models on the test set of one replicate, from the stored predictions (`delong`, `clusters`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.baseline_pairs import CellComparison, Pair
from analysis.cells.layout import Cell
from analysis.cells.scored_instances import NEEDS, RunInstances, read_instances, scored_instances, thresholds_of
from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import folders_by_config
from analysis.statistics.intervals import Interval, without_void_bounds
from analysis.statistics.paired_tests import TestResult
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

RESAMPLES = 1999
"""Of the cluster bootstrap."""
FEW_BAGS = 20
"""Of a class, below which DeLong's normal approximation is poor."""
CLUSTERS = "--test clusters"


@dataclass(frozen=True)
class _Bags:
    """The test bags of a run whose label is known, each (bags,), in order."""

    bag: np.ndarray
    label: np.ndarray
    logit: np.ndarray


def compare_predictions(
    rows: pandas.DataFrame, pairs: Sequence[Pair], test: str, replicates: Sequence[int] | None, notes: list[str]
) -> Iterator[CellComparison]:
    """The test of each pair in each common replicate.

    rows: of `analysis.load` from study folders; test: `delong` or `clusters`; replicates: only these, None for all;
    notes: gets a sentence for pairs that were left out or are too small.
    """
    compare = _Delong(rows) if test == "delong" else _Clusters(rows)
    other_bags = 0
    for panel, row, column, baseline, cell, baseline_cell in pairs:
        for replicate in sorted(cell.values.keys() & baseline_cell.values.keys()):
            if replicates is not None and replicate not in replicates:
                continue
            found = compare(cell, baseline_cell, replicate)
            if found is None:
                other_bags += 1
                continue
            value, baseline_value, interval, result, units = found
            yield CellComparison(
                panel, row, column, baseline, value, baseline_value, interval, (result,), (), replicate, units,
                cell.origin.config_id, baseline_cell.origin.config_id,
            )  # fmt: skip
    if isinstance(compare, _Delong) and compare.few:
        notes.append(f"In {compare.few} of them a class has fewer than {FEW_BAGS} bags: too few for the approximation.")
    if other_bags:
        notes.append(f"{other_bags} pairs were left out: their predictions are of different bags.")


_Tested = tuple[float, float, Interval, TestResult, str]
"""The values of both models, their difference, the test, and what it counted."""


class _Delong:
    """DeLong's test of the test bags of two runs. few: of how many comparisons a class was too small."""

    def __init__(self, rows: pandas.DataFrame) -> None:
        self.folders = folders_by_config(rows)
        self.stored: dict[tuple[str, int], _Bags] = {}
        self.few = 0

    def __call__(self, cell: Cell, baseline: Cell, replicate: int) -> _Tested | None:
        """None if their bags are not the same."""
        from analysis.statistics.delong import delong_test

        ours, theirs = (self._read(one.origin.config_id, replicate) for one in (cell, baseline))
        if not np.array_equal(ours.bag, theirs.bag):
            return None
        self.few += int(min(np.bincount(ours.label, minlength=2)) < FEW_BAGS)
        test = delong_test(ours.label, ours.logit, theirs.logit)
        bags = test.positives + test.negatives
        found = Interval(test.difference, test.lower, test.upper, bags, "no spread" if test.has_no_spread else "t")
        interval = without_void_bounds(found, 2.0)
        result = TestResult("DeLong", test.z, test.p, 0.0, bags)
        return test.first, test.second, interval, result, f"{test.positives} + {test.negatives} bags"

    def _read(self, config: str, replicate: int) -> _Bags:
        if (config, replicate) not in self.stored:
            self.stored[config, replicate] = _read_bags(self.folders[config], config, replicate)
        return self.stored[config, replicate]


def _read_bags(folder: StudyFolder, config: str, replicate: int) -> _Bags:
    frame = run_predictions(folder, config, replicate, split="test", level="bag")
    frame = frame[frame["label"].notna()].sort_values("bag_index", kind="stable")
    if not np.isfinite(frame["logit"]).all():
        raise UserError(f"run {config[:10]} r{replicate:03d} holds predictions that are not finite")
    return _Bags(frame["bag_index"].to_numpy(int), frame["label"].to_numpy(int), frame["logit"].to_numpy(float))


class _Clusters:
    """The cluster bootstrap of the test instances of two runs."""

    def __init__(self, rows: pandas.DataFrame) -> None:
        self.folders = folders_by_config(rows)
        self.thresholds: Mapping[tuple[str, int], float] = thresholds_of(rows)
        self.stored: dict[tuple[str, int], RunInstances] = {}

    def __call__(self, cell: Cell, baseline: Cell, replicate: int) -> _Tested | None:
        """None if their instances are not the same. `UserError` if they lack what the metric of the cells needs."""
        from analysis.statistics.cluster_bootstrap import bootstrap_clusters
        from analysis.statistics.weighted_metrics import weighted_metric

        runs = [self._read(one.origin.config_id, replicate) for one in (cell, baseline)]
        if not runs[0].same_instances(runs[1]):
            return None
        name, bags = cell.metric.name, runs[0].bags
        ours, theirs = (weighted_metric(name, scored_instances([run], bags)) for run in runs)
        if ours is None or theirs is None:
            lacks = (cell if ours is None else baseline).origin.config_id
            raise UserError(f"{CLUSTERS}: {name} needs {NEEDS[name]}; run {lacks[:10]} r{replicate:03d} has none")
        known = int(np.sum(runs[0].label >= 0))
        test = bootstrap_clusters(ours, theirs, len(bags), known, resamples=RESAMPLES)
        interval = without_void_bounds(Interval(test.difference, test.lower, test.upper, test.clusters, "t"), 2.0)
        result = TestResult("cluster bootstrap", math.nan, test.p, test.smallest_p, test.clusters)
        return test.first, test.second, interval, result, f"{test.clusters} images, {test.instances} instances"

    def _read(self, config: str, replicate: int) -> RunInstances:
        key = config, replicate
        if key not in self.stored:
            threshold = self.thresholds.get(key, math.nan)
            self.stored[key] = read_instances(self.folders[config], *key, threshold, CLUSTERS)
        return self.stored[key]
