"""Tests of two trained models on the test set of one replicate, from the stored predictions (`delong`, `clusters`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.bag_groups import BagGroups, group_sentences
from analysis.cells.baseline_pairs import CellComparison, Pair
from analysis.cells.bootstrap_intervals import (
    OF_IMAGES,
    bootstrap_interval,
    few_clusters_sentences,
    resamples_sentences,
    too_few_sentences,
)
from analysis.cells.layout import Cell
from analysis.cells.partitions import partitions_of
from analysis.cells.scored_instances import (
    NEEDS,
    RunInstances,
    groups_column,
    read_instances,
    scored_instances,
    thresholds_of,
)
from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import RunFolders, RunKey
from analysis.statistics.cluster_bootstrap import LEAST_CLUSTERS, ClusterBootstrap
from analysis.statistics.intervals import Interval, Kind, without_void_bounds
from analysis.statistics.paired_tests import TestResult
from d2l_study.errors import UserError, counted

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
    """The test bags of a run whose label is known, each (bags,), in order; group: None where the run did not keep
    it."""

    bag: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    group: np.ndarray | None


def compare_predictions(
    rows: pandas.DataFrame, pairs: Sequence[Pair], test: str, replicates: Sequence[int] | None, notes: list[str]
) -> tuple[list[CellComparison], int]:
    """The test of each pair in each common replicate, and how many were left out since their bags are not the same.

    rows: of `analysis.load` from study folders; test: `delong` or `clusters`; replicates: only these, None for all;
    notes: gets a sentence for pairs that were left out or are too small.
    """
    compare = _Delong(rows) if test == "delong" else _Clusters(rows)
    tested, other_bags = list[CellComparison](), 0
    for panel, row, column, baseline, cell, baseline_cell in pairs:
        for replicate in sorted(cell.values.keys() & baseline_cell.values.keys()):
            if replicates is not None and replicate not in replicates:
                continue
            runs = [
                (one.origin.config_id, replicate, label.study)
                for one, label in ((cell, row), (baseline_cell, baseline))
            ]
            found = compare(cell, baseline_cell, runs)
            if found is None:
                other_bags += 1
                continue
            value, baseline_value, interval, result, units = found
            tested.append(CellComparison(
                panel, row, column, baseline, value, baseline_value, interval, (result,), (), replicate, units,
                cell.origin.config_id, baseline_cell.origin.config_id,
            ))  # fmt: skip
    notes += compare.sentences_on_counts()
    notes += group_sentences(compare.groups, compare.noun)
    if other_bags:
        were = "was" if other_bags == 1 else "were"
        notes.append(f"{counted(other_bags, 'pair')} {were} left out: their predictions are of different bags.")
    return tested, other_bags


_Tested = tuple[float, float, Interval, TestResult, str]
"""The values of both models, their difference, the test, and what it counted."""


class _Delong:
    """DeLong's test of the test bags of two runs. few: in how many comparisons a class was too small; alone: in how
    many it was in a single bag or group; groups: those of the bags, where bags are given; few_groups: how many there
    were where they were too few to be tested."""

    noun = "bag"

    def __init__(self, rows: pandas.DataFrame) -> None:
        self.folders = RunFolders.of(rows)
        self.given = partitions_of(rows).keys()
        self.stored: dict[RunKey, _Bags] = {}
        self.groups: list[BagGroups] = []
        self.few = self.alone = 0
        self.few_groups: list[int] = []

    def __call__(self, cell: Cell, baseline: Cell, runs: Sequence[RunKey]) -> _Tested | None:
        """None if their bags are not the same."""
        from analysis.statistics.delong import delong_test

        ours, theirs = map(self._read, runs)
        if not (np.array_equal(ours.bag, theirs.bag) and np.array_equal(ours.label, theirs.label)):
            return None
        # The numbers of drawn bags are those of their draw, and classes alternate in every one.
        if cell.origin.config_id not in self.given and cell.source.differences(baseline.source):
            return None
        groups = BagGroups.of(ours.bag, [(one.bag, one.group) for one in (ours, theirs)])
        if cell.origin.config_id in self.given:
            self.groups.append(groups)
        independent = min(len(np.unique(groups.group[ours.label == of_class])) for of_class in (0, 1))
        self.few += int(independent < FEW_BAGS)
        self.alone += int(independent < 2)
        test = delong_test(ours.label, ours.logit, theirs.logit, group=groups.group if groups.named else None)
        bags = test.positives + test.negatives
        if groups.named and groups.count < LEAST_CLUSTERS:
            self.few_groups.append(groups.count)
            interval = Interval(test.difference, math.nan, math.nan, bags, "none")
            result = TestResult("DeLong", math.nan, math.nan, math.nan, bags)
        else:
            kind: Kind = "no spread" if test.has_no_spread else "normal"
            found = Interval(test.difference, test.lower, test.upper, bags, kind)
            interval = without_void_bounds(found, 2.0)
            result = TestResult("DeLong", test.z, test.p, 0.0, bags)
        of_groups = f" of {counted(groups.count, 'group')}" if groups.named else ""
        return test.first, test.second, interval, result, f"{test.positives} + {test.negatives} bags{of_groups}"

    def sentences_on_counts(self) -> list[str]:
        """What a reader has to know of how few bags were tested, none or more of them."""
        by_group = any(one.named for one in self.groups)
        found = []
        if self.few:
            few = f"{FEW_BAGS} bags" + (f", or is in fewer than {FEW_BAGS} groups" if by_group else "")
            found.append(f"In {self.few} of them a class has fewer than {few}: too few for the approximation.")
        if self.alone:
            one = "one bag" + (", or is in one group," if by_group else "")
            found.append(f"In {self.alone} of them a class has {one} only: not tested.")
        return found + too_few_sentences(self.few_groups, "groups of bags")

    def _read(self, run: RunKey) -> _Bags:
        if run not in self.stored:
            self.stored[run] = _read_bags(self.folders.folder(*run), *run[:2])
        return self.stored[run]


def _read_bags(folder: StudyFolder, config: str, replicate: int) -> _Bags:
    frame = run_predictions(folder, config, replicate, split="test", level="bag")
    frame = frame[frame["label"].notna()].sort_values("bag_index", kind="stable")
    if not np.isfinite(frame["logit"]).all():
        raise UserError(f"run {config[:10]} r{replicate:03d} holds predictions that are not finite")
    bag, label = (frame[name].to_numpy(int) for name in ("bag_index", "label"))
    return _Bags(bag, label, frame["logit"].to_numpy(float), groups_column(frame))


class _Clusters:
    """The cluster bootstrap of the test instances of two runs. groups: those of the images; drawn: what came of each
    pair."""

    noun = "image"

    def __init__(self, rows: pandas.DataFrame) -> None:
        self.folders = RunFolders.of(rows)
        self.groups: list[BagGroups] = []
        self.drawn: list[ClusterBootstrap] = []
        self.thresholds: Mapping[RunKey, float] = thresholds_of(rows)
        self.stored: dict[RunKey, RunInstances] = {}

    def __call__(self, cell: Cell, baseline: Cell, runs: Sequence[RunKey]) -> _Tested | None:
        """None if their instances are not the same. `UserError` if they lack what the metric of the cells needs."""
        from analysis.statistics.cluster_bootstrap import bootstrap_clusters
        from analysis.statistics.weighted_metrics import weighted_metric

        both = [self._read(run) for run in runs]
        if not both[0].same_instances(both[1]):
            return None
        name, bags = cell.metric.name, both[0].bags
        ours, theirs = (weighted_metric(name, scored_instances([one], bags)) for one in both)
        if ours is None or theirs is None:
            lacks = (cell if ours is None else baseline).origin.config_id
            raise UserError(f"{CLUSTERS}: {name} needs {NEEDS[name]}; run {lacks[:10]} r{runs[0][1]:03d} has none")
        known = int(np.sum(both[0].label >= 0))
        groups = BagGroups.of(bags, [(one.bag, one.group) for one in both])
        self.groups.append(groups)
        drawn = groups.drawn(ours), groups.drawn(theirs)
        test = bootstrap_clusters(*drawn, groups.count, known, resamples=RESAMPLES)
        self.drawn.append(test)
        interval = bootstrap_interval(test, 2.0)
        result = TestResult("cluster bootstrap", math.nan, test.p, test.smallest_p, test.clusters)
        return test.first, test.second, interval, result, f"{groups.text('image')}, {test.instances} instances"

    def sentences_on_counts(self) -> list[str]:
        """What a reader has to know of how few images were drawn, and how often in vain, none or more of them."""
        counts = [one.clusters for one in self.drawn]
        return few_clusters_sentences(counts, OF_IMAGES) + resamples_sentences(self.drawn)

    def _read(self, run: RunKey) -> RunInstances:
        if run not in self.stored:
            threshold = self.thresholds.get(run, math.nan)
            self.stored[run] = read_instances(self.folders.folder(*run), *run[:2], threshold, CLUSTERS)
        return self.stored[run]
