"""Instance metrics of one model or two with the images as the units: a bootstrap that draws whole images.

Patches of one image share stain, tissue and patient, so their number says little of how much is known; tests that
count patches (DeLong's at the level of instances) are far too sure. Here images are drawn with replacement, each with
all its patches (Field and Welsh, J. R. Statist. Soc. B 2007; for ROC curves Rutter, Academic Radiology 2000).

It assumes that images are independent of each other: where several come from one patient, give the patients as the
clusters. It takes the models as they are and says nothing of other training data. With few images (`FEW_CLUSTERS`)
bootstrap intervals are too narrow, and below `LEAST_CLUSTERS` there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.statistics.weighted_metrics import SortedScores, WeightedMetric

RESAMPLES = 1999
FEW_CLUSTERS = 20
"""Below about so many bootstrap intervals are too narrow."""
LEAST_CLUSTERS = 8
"""Below so many there is no interval and no p-value: too few images say too little of how images differ.

Simulated shares of true nulls that the test of two AUCs rejects at 0.05, by the number of images (400 draws each, 20
patches an image, shifts by image of 0.8 standard deviations; standard error 0.01 to 0.025), and of DeLong's test with
the images as groups:

    images       2     3     4     5     6     7     8     10    12    15    20    30    40
    bootstrap    0.49  0.25  0.18  0.14  0.13  0.10  0.11  0.07  0.12  0.08  0.08  0.08  0.06
    DeLong       0.28  0.20  0.15  0.10  0.11  0.09  0.08  0.06  0.10  0.08  0.08  0.09  0.06
"""
LEAST_DEFINED = 0.5
"""Share of the resamples in which a metric has to be defined for it to have an interval or a test: those left out are
the ones that look unlike the data."""
ROUNDING = 1e-12
"""Up to this values are equal but for the order of sums: on which side of 0 such a difference is says nothing."""


@dataclass(frozen=True)
class ClusterBootstrap:
    """A metric of the first minus that of the second model, or the first alone, with a percentile interval."""

    first: float
    second: float
    difference: float
    lower: float
    upper: float
    p: float
    """As of `two_sided_p`; like the bounds NaN below `LEAST_CLUSTERS`, and where the metric is seldom defined."""
    clusters: int
    instances: int
    resamples: int
    """Those in which the metric was defined, as an AUC is where both classes occurred."""
    drawn: int
    """All resamples."""

    @property
    def seldom_defined(self) -> bool:
        """Whether too few of the resamples have a value (`LEAST_DEFINED`)."""
        return self.resamples < LEAST_DEFINED * self.drawn

    @property
    def smallest_p(self) -> float:
        """The least p-value that so many resamples and clusters can give; NaN where nothing is tested."""
        if self.clusters < LEAST_CLUSTERS or self.seldom_defined:
            return math.nan
        return smallest_cluster_p(self.resamples, self.clusters)


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
    A resample with one class only is left out. No interval and no `p` below `LEAST_CLUSTERS` images, or where fewer
    than `LEAST_DEFINED` of the resamples are left. ValueError for labels that are not 0 or 1, or unequal lengths.
    """
    label, cluster = np.asarray(label), np.asarray(cluster)
    models = [np.asarray(s, np.float64) for s in (first, second) if s is not None]
    if any(one.shape != label.shape for one in (*models, cluster)):
        raise ValueError("label, scores and cluster must be vectors of one length")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; leave unknown ones out")
    names, position = np.unique(cluster, return_inverse=True)
    areas = [SortedScores.of(label, scores, position).auc for scores in models]
    return bootstrap_clusters(areas[0], areas[1] if second is not None else None, len(names), len(label),
                              resamples=resamples, confidence=confidence, seed=seed)  # fmt: skip


def bootstrap_clusters(
    first: WeightedMetric,
    second: WeightedMetric | None,
    clusters: int,
    instances: int,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClusterBootstrap:
    """Bootstrap the difference of two models' values of a metric by cluster, or one model's value without `second`.

    clusters, instances: how many there are. A resample in which a model has no value is left out; without interval and
    test as of `cluster_bootstrap`.
    """
    models = [first] if second is None else [first, second]
    once = np.ones(clusters)
    points = [model(once) for model in models]
    drawn = cluster_draws(models, clusters, resamples, seed)
    values = drawn[:, 0] if second is None else differences_of(drawn[:, 0], drawn[:, 1])
    values = values[~np.isnan(values)]
    estimate = points[0] - points[1] if second is not None else points[0]
    found = ClusterBootstrap(points[0], points[1] if second is not None else math.nan, estimate, math.nan, math.nan,
                             math.nan, clusters, instances, len(values), resamples)  # fmt: skip
    if clusters < LEAST_CLUSTERS or found.seldom_defined:
        return found
    lower, upper = percentile_bounds(values, confidence)
    p = two_sided_p(values, clusters) if second is not None else math.nan
    return replace(found, lower=lower, upper=upper, p=p)


def cluster_draws(
    metrics: Sequence[WeightedMetric], clusters: int, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """(resamples, metrics) the value of each metric in each resample of the clusters, NaN where it has none.

    The resamples depend on `clusters` and `seed` alone: draws of two models on the same clusters are pairs.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(metrics)))
    for i in range(resamples):
        weight = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float64)
        drawn[i] = [metric(weight) for metric in metrics]
    return drawn


def differences_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(resamples,) first − second, paired draws of two models; 0 where they are equal but for rounding."""
    found = first - second
    found[np.abs(found) < ROUNDING] = 0.0
    return found


def without_spread(values: np.ndarray) -> bool:
    """Whether all resampled values, none of them NaN, are the same but for rounding: they do not tell how much others
    would differ."""
    return len(values) > 0 and bool(np.ptp(values) <= ROUNDING * max(1.0, float(np.abs(values).max())))


def percentile_bounds(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values, none of them NaN; NaN of none."""
    if not len(values):
        return math.nan, math.nan
    lower, upper = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lower), float(upper)


def two_sided_p(differences: np.ndarray, clusters: int) -> float:
    """The p-value of "no difference" from resampled differences (`differences_of`), none of them NaN: twice the smaller
    share of resamples on one side of 0, (b + 1) / (B + 1), at most 1 and at least `smallest_cluster_p`. NaN of none,
    and of equal ones that are not 0."""
    if not len(differences) or (without_spread(differences) and differences[0] != 0):
        return math.nan
    side = min(int(np.sum(differences <= 0)), int(np.sum(differences >= 0)))
    share = min(1.0, 2 * (side + 1) / (len(differences) + 1))
    return max(share, smallest_cluster_p(len(differences), clusters))


def smallest_cluster_p(resamples: int, clusters: int) -> float:
    """The least p-value of so many resamples: 2 / (B + 1), but not below 2^(1 − clusters). That all clusters agree is
    no rarer than that where neither model is better, however often they are drawn."""
    return max(2 / (resamples + 1), 2.0 ** (1 - clusters))
