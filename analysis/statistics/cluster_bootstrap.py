"""The instance AUC of two models with the images as the units: a bootstrap that draws whole images.

Patches of one image share stain, tissue and patient, so their number says little of how much is known; tests that
count patches (DeLong's at the level of instances) are far too sure. Here images are drawn with replacement, each with
all its patches (Field and Welsh, J. R. Statist. Soc. B 2007; for ROC curves Rutter, Academic Radiology 2000).

It assumes that images are independent of each other: where several come from one patient, give the patients as the
clusters. It takes the models as they are and says nothing of other training data. With few images (below about 20)
bootstrap intervals are too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1999


@dataclass(frozen=True)
class ClusterBootstrap:
    """AUC of the first minus AUC of the second model, or the first alone, with a percentile interval."""

    first: float
    second: float
    difference: float
    lower: float
    upper: float
    p: float
    """Two-sided: twice the smaller share of resamples on one side of 0, (b + 1) / (B + 1), at most 1."""
    clusters: int
    instances: int
    resamples: int
    """Those in which both classes occurred."""

    @property
    def smallest_p(self) -> float:
        """The least p-value that so many resamples can give."""
        return 2 / (self.resamples + 1) if self.resamples else math.nan


def cluster_bootstrap(
    label: np.ndarray,
    first: np.ndarray,
    second: np.ndarray | None,
    cluster: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClusterBootstrap:
    """Bootstrap the difference of two AUCs by cluster.

    label: (instances,) of 0 and 1, unknown ones left out before; first, second: (instances,) scores, finite; without
    `second` the AUC itself is bootstrapped (and `p` is NaN); cluster: (instances,) the image of each instance.
    A resample with one class only is left out. ValueError for labels that are not 0 or 1, or unequal lengths.
    """
    label, cluster = np.asarray(label), np.asarray(cluster)
    models = [np.asarray(s, np.float64) for s in (first, second) if s is not None]
    if any(one.shape != label.shape for one in (*models, cluster)):
        raise ValueError("label, scores and cluster must be vectors of one length")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; leave unknown ones out")
    names, position = np.unique(cluster, return_inverse=True)
    sorted_models = [_Sorted.of(label, scores, position) for scores in models]
    once = np.ones(len(names))
    points = [one.auc(once) for one in sorted_models]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        areas = [one.auc(weight) for one in sorted_models]
        if not math.isnan(areas[0]):
            drawn.append(areas[0] - areas[1] if second is not None else areas[0])
    values = np.asarray(drawn)
    estimate = points[0] - points[1] if second is not None else points[0]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    lower, upper = np.quantile(values, tails) if len(values) and len(names) > 1 else (math.nan, math.nan)
    p = math.nan
    if second is not None and len(values) and len(names) > 1:
        side = min(int(np.sum(values <= 0)), int(np.sum(values >= 0)))
        p = min(1.0, 2 * (side + 1) / (len(values) + 1))
    return ClusterBootstrap(points[0], points[1] if second is not None else math.nan, estimate, float(lower),
                            float(upper), p, len(names), len(label), len(values))  # fmt: skip


@dataclass(frozen=True)
class _Sorted:
    """Scores in ascending order, once, so that a resample costs no sort: it only weighs the instances."""

    positive: np.ndarray
    cluster: np.ndarray
    ties: np.ndarray
    """(instances,) the number of the score among the distinct ones."""

    @classmethod
    def of(cls, label: np.ndarray, scores: np.ndarray, cluster: np.ndarray) -> _Sorted:
        order = np.argsort(scores, kind="stable")
        in_order = scores[order]
        ties = np.concatenate([[0], np.cumsum(np.diff(in_order) != 0)]) if len(order) else np.empty(0, int)
        return cls(label[order] == 1, cluster[order], ties)

    def auc(self, weight: np.ndarray) -> float:
        """The AUC with each instance counted as often as its cluster was drawn; NaN if a class is missing."""
        own = weight[self.cluster]
        count = int(self.ties[-1]) + 1 if len(self.ties) else 0
        positive = np.bincount(self.ties[self.positive], own[self.positive], count)
        negative = np.bincount(self.ties[~self.positive], own[~self.positive], count)
        pairs = positive.sum() * negative.sum()
        if pairs == 0:
            return math.nan
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / pairs)
