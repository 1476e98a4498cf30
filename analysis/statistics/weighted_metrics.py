"""Metrics of instances in which whole images count any number of times, which is what a bootstrap of images asks for.

Scores are sorted once; each resample only weighs them. With every weight 1 the values are those of `learning.metrics`
and `learning.localisation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from d2l_study.learning import metrics
from d2l_study.learning.localisation import (
    TileMaps,
    by_image,
    find_detections,
    froc,
    image_average_precision,
    image_dice,
    tile_maps,
)

WeightedMetric = Callable[[np.ndarray], float]
"""(clusters,) how often each counts -> the value; NaN where it is not defined."""


@dataclass(frozen=True)
class ScoredInstances:
    """Test instances with their scores, n of them.

    cluster: (n,) int64 position of each one's bag among the clusters, 0 … C − 1; label: (n,) of 0, 1 and −1, unknown;
    score: (n,), finite; called: (n,) bool, what is predicted positive, None where there is no threshold; image: (n,)
    and xy: (n, 2) their places, None where they are not known.
    """

    cluster: np.ndarray
    label: np.ndarray
    score: np.ndarray
    called: np.ndarray | None = None
    image: np.ndarray | None = None
    xy: np.ndarray | None = None


def weighted_metric(name: str, scored: ScoredInstances) -> WeightedMetric | None:
    """The metric of that name, one of `WEIGHTED_METRICS`; None if the instances lack what it needs."""
    return WEIGHTED_METRICS[name](scored)


def _pooled_auc(scored: ScoredInstances) -> WeightedMetric:
    return SortedScores.of_known(scored).auc


def _pooled_average_precision(scored: ScoredInstances) -> WeightedMetric:
    return SortedScores.of_known(scored).average_precision


def _auc_within(scored: ScoredInstances) -> WeightedMetric:
    return _mean_of_images(scored, metrics.auc, scored.score)


def _average_precision_within(scored: ScoredInstances) -> WeightedMetric:
    return _mean_of_images(scored, image_average_precision, scored.score)


def _pooled_dice(scored: ScoredInstances) -> WeightedMetric | None:
    if scored.called is None:
        return None
    known = scored.label >= 0
    cluster, positive, called = scored.cluster[known], scored.label[known] == 1, scored.called[known]
    size = int(scored.cluster.max(initial=-1)) + 1
    both = np.bincount(cluster[positive & called], minlength=size)
    total = np.bincount(cluster[positive], minlength=size) + np.bincount(cluster[called], minlength=size)

    def value(weight: np.ndarray) -> float:
        of = float(weight[:size] @ total)
        return 2 * float(weight[:size] @ both) / of if of else math.nan

    return value


def _dice_within(scored: ScoredInstances) -> WeightedMetric | None:
    return None if scored.called is None else _mean_of_images(scored, image_dice, scored.called)


def _froc(scored: ScoredInstances) -> WeightedMetric | None:
    if scored.image is None or scored.xy is None:
        return None
    maps = tile_maps(scored.image, scored.xy)
    if maps is None:
        return None
    found, of_image = find_detections(maps, scored.label, scored.score), _cluster_of_image(maps, scored.cluster)
    return lambda weight: froc(found, weight[of_image])


WEIGHTED_METRICS: dict[str, Callable[[ScoredInstances], WeightedMetric | None]] = {
    "instance_auc": _pooled_auc,
    "instance_ap": _pooled_average_precision,
    "instance_dice_tuned": _pooled_dice,
    "instance_auc_within": _auc_within,
    "instance_ap_within": _average_precision_within,
    "instance_dice_within_tuned": _dice_within,
    "instance_froc": _froc,
}
"""By the names of the columns that runs have."""


def _mean_of_images(scored: ScoredInstances, metric: Callable[..., float], score: np.ndarray) -> WeightedMetric:
    """The mean over the clusters that have a value by themselves."""
    known = scored.label >= 0
    cluster = scored.cluster[known]
    values = by_image(metric, scored.label[known], score[known], cluster)
    own = ~np.isnan(values)
    values, there = values[own], np.unique(cluster)[own]

    def value(weight: np.ndarray) -> float:
        counted = weight[there]
        total = float(counted.sum())
        return float(counted @ values) / total if total else math.nan

    return value


def _cluster_of_image(maps: TileMaps, cluster: np.ndarray) -> np.ndarray:
    found = np.zeros(maps.images, np.int64)
    found[maps.image] = cluster
    return found


@dataclass(frozen=True)
class SortedScores:
    """Scores of known labels from the highest down."""

    positive: np.ndarray
    """(instances,) 1.0 or 0.0."""
    cluster: np.ndarray
    first: np.ndarray | None
    """The first instance of each distinct score; None where no two are equal."""

    @classmethod
    def of_known(cls, scored: ScoredInstances) -> SortedScores:
        """Of the instances whose label is known."""
        known = scored.label >= 0
        return cls.of(scored.label[known], scored.score[known], scored.cluster[known])

    @classmethod
    def of(cls, label: np.ndarray, scores: np.ndarray, cluster: np.ndarray) -> SortedScores:
        """label: of 0 and 1."""
        order = np.argsort(-scores, kind="stable")
        first = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0)) if len(order) else np.empty(0, np.int64)
        return cls((label[order] == 1).astype(np.float64), cluster[order], first if len(first) < len(order) else None)

    def _counts(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positives, and all, of each distinct score, each instance as often as its cluster counts: whole numbers."""
        own = weight[self.cluster]
        positive = own * self.positive
        if self.first is None:
            return positive, own
        return np.add.reduceat(positive, self.first), np.add.reduceat(own, self.first)

    def auc(self, weight: np.ndarray) -> float:
        """The AUC; NaN if a class is missing."""
        positive, every = self._counts(weight)
        negative = every - positive
        pairs = positive.sum() * negative.sum()
        if pairs == 0:
            return math.nan
        # A negative has above it all positives of higher scores, and half of those of its own.
        above = positive.cumsum() - positive / 2
        return float((negative * above).sum() / pairs)  # a BLAS product of so many would start threads

    def average_precision(self, weight: np.ndarray) -> float:
        """The average precision; NaN without positives."""
        positive, every = self._counts(weight)
        found, called = positive.cumsum(), every.cumsum()
        if not len(found) or found[-1] == 0:
            return math.nan
        # Where nothing counts down to a score, no positive is found there either.
        return float((positive * (found / np.maximum(called, 1.0))).sum() / found[-1])
