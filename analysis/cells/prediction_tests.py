"""Tests of two trained models on the test set of one replicate, from the stored predictions (`delong`, `clusters`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.baseline_pairs import CellComparison, Pair
from analysis.cells.layout import Cell
from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import folders_by_config
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import TestResult
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

RESAMPLES = 1999
"""Of the cluster bootstrap."""
FEW_BAGS = 20
"""Of a class, below which DeLong's normal approximation is poor."""


@dataclass(frozen=True)
class _Predictions:
    """The test predictions of a run whose label is known, each (scores,), in the order of bag and instance."""

    bag: np.ndarray
    instance: np.ndarray
    label: np.ndarray
    logit: np.ndarray


def compare_predictions(
    rows: pandas.DataFrame, pairs: Sequence[Pair], test: str, replicates: Sequence[int] | None, notes: list[str]
) -> Iterator[CellComparison]:
    """The test of each pair in each common replicate.

    rows: of `analysis.load` from study folders; test: `delong` or `clusters`; replicates: only these, None for all;
    notes: gets a sentence for pairs that were left out or are too small.
    """
    folders = folders_by_config(rows)
    stored: dict[tuple[str, int], _Predictions] = {}

    def read(cell: Cell, replicate: int) -> _Predictions:
        key = (cell.origin.config_id, replicate)
        if key not in stored:
            stored[key] = _read(folders[key[0]], *key, "bag" if test == "delong" else "instance")
        return stored[key]

    other_bags = few = 0
    for panel, row, column, baseline, cell, baseline_cell in pairs:
        for replicate in sorted(cell.values.keys() & baseline_cell.values.keys()):
            if replicates is not None and replicate not in replicates:
                continue
            ours, theirs = read(cell, replicate), read(baseline_cell, replicate)
            if not (np.array_equal(ours.bag, theirs.bag) and np.array_equal(ours.instance, theirs.instance)):
                other_bags += 1
                continue
            few += test == "delong" and min(np.bincount(ours.label, minlength=2)) < FEW_BAGS
            compare = _delong if test == "delong" else _clusters
            auc, baseline_auc, interval, result, units = compare(ours, theirs)
            yield CellComparison(
                panel, row, column, baseline, auc, baseline_auc, interval, (result,), (), replicate, units
            )
    if few:
        notes.append(f"In {few} of them a class has fewer than {FEW_BAGS} bags: too few for the approximation.")
    if other_bags:
        notes.append(f"{other_bags} pairs were left out: their predictions are of different bags.")


def _read(folder: StudyFolder, config: str, replicate: int, level: str) -> _Predictions:
    frame = run_predictions(folder, config, replicate, split="test", level=level)
    frame = frame[frame["label"].notna()].sort_values(["bag_index", "index"], kind="stable")
    if level == "instance" and (frame["bag_index"] < 0).any():
        raise UserError(
            f"--test clusters: run {config[:10]} r{replicate:03d} does not say which image an instance is of "
            "(drawn bags have no images)"
        )
    if not np.isfinite(frame["logit"]).all():
        raise UserError(f"run {config[:10]} r{replicate:03d} holds predictions that are not finite")
    return _Predictions(*(frame[column].to_numpy(kind) for column, kind in
                          (("bag_index", int), ("index", int), ("label", int), ("logit", float))))  # fmt: skip


_Tested = tuple[float, float, Interval, TestResult, str]
"""The AUCs of both models, their difference, the test, and what it counted."""


def _delong(ours: _Predictions, theirs: _Predictions) -> _Tested:
    from analysis.statistics.delong import delong_test

    test = delong_test(ours.label, ours.logit, theirs.logit)
    interval = Interval(test.difference, test.lower, test.upper, test.positives + test.negatives, "t")
    result = TestResult("DeLong", test.z, test.p, 0.0, test.positives + test.negatives)
    return test.first, test.second, interval, result, f"{test.positives} + {test.negatives} bags"


def _clusters(ours: _Predictions, theirs: _Predictions) -> _Tested:
    from analysis.statistics.cluster_bootstrap import cluster_bootstrap

    test = cluster_bootstrap(ours.label, ours.logit, theirs.logit, ours.bag, resamples=RESAMPLES)
    interval = Interval(test.difference, test.lower, test.upper, test.clusters, "t")
    result = TestResult("cluster bootstrap", math.nan, test.p, test.smallest_p, test.clusters)
    return test.first, test.second, interval, result, f"{test.clusters} images, {test.instances} instances"
