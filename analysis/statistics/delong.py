"""DeLong's test: two classifiers scored on the same bags (DeLong, DeLong and Clarke-Pearson, Biometrics 1988), by the
fast algorithm of Sun and Xu (IEEE Signal Processing Letters 21(11), 2014): midranks, O(n log n).

It assumes that the bags are independent of each other and were drawn from the population the AUC is meant for, and
that there are enough of them for the normal approximation. It takes both classifiers as they are: how they would have
come out with other training bags or another initialisation it cannot say; for that, pair replicates (`paired_tests`).
Bags of one patient are not independent: given their groups, the variance is that of Obuchowski (Biometrics 53, 1997,
567–578), which sums the terms of DeLong's by group, positives and negatives of a group together. Patches of one image
are not independent either, and their number hides it: for them use `cluster_bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NO_VARIANCE = 1e-20
"""Variances up to this are 0 but for rounding, which leaves about 1e-34."""


@dataclass(frozen=True)
class DeLong:
    """AUC of the first minus AUC of the second classifier on one test set."""

    first: float
    second: float
    difference: float
    lower: float
    """Of the normal interval of the difference, cut at −1 and 1; NaN where a class has fewer than two bags, and where
    the variance is 0."""
    upper: float
    z: float
    p: float
    """Two-sided; where the variance is 0, 1 without a difference and NaN with one; NaN where a class has fewer than two
    bags or groups."""
    positives: int
    negatives: int
    has_no_spread: bool = False
    """Whether the variance of the difference is 0, as between rankings alike, or one that is perfect and one that is
    constant: it does not tell how sure the difference is."""


def delong_covariance(
    label: np.ndarray, scores: np.ndarray, group: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUCs and their covariance.

    label: (bags,) of 0 and 1; scores: (models, bags), any real numbers, ties allowed; group: (bags,) bags of one group
    (patient) are not independent, None if all are. Returns ((models,), (models, models)); NaN where a class is missing,
    a NaN covariance where one has fewer than two bags, or is in fewer than two groups.
    ValueError for other shapes, other labels or a NaN among the scores.
    """
    from scipy.stats import rankdata

    label, scores = np.asarray(label), np.asarray(scores, np.float64)
    if label.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(label):
        raise ValueError(f"labels {label.shape} and scores {scores.shape}: expected (bags,) and (models, bags)")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; leave unknown ones out")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
    if group is not None and np.shape(group) != label.shape:
        raise ValueError(f"groups {np.shape(group)} and labels {label.shape}: expected one for each bag")
    positive, negative = scores[:, label == 1], scores[:, label == 0]
    models, m, n = len(scores), positive.shape[1], negative.shape[1]
    if m == 0 or n == 0:
        return np.full(models, math.nan), np.full((models, models), math.nan)
    together = rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    # Sun and Xu, equations 5 to 7: for each positive the share of negatives below it, and the other way round.
    above = (together[:, :m] - rankdata(positive, axis=1)) / n
    below = 1 - (together[:, m:] - rankdata(negative, axis=1)) / m
    auc = above.mean(axis=1)
    if m < 2 or n < 2:
        return auc, np.full((models, models), math.nan)
    if group is None:
        return auc, np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return auc, _covariance_by_group(above - auc[:, None], below - auc[:, None], label, np.asarray(group))


def _covariance_by_group(above: np.ndarray, below: np.ndarray, label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(models, models) Obuchowski's covariance of AUCs. above, below: (models, positives) and (models, negatives), the
    terms of DeLong's minus the AUC. NaN where a class is in fewer than two groups."""
    position = np.unique(group, return_inverse=True)[1]
    groups, models = int(position.max()) + 1, len(above)

    def by_group(terms: np.ndarray, of_class: int) -> tuple[np.ndarray, int]:
        """(models, groups) the mean over the class, split by group; and in how many groups the class is."""
        own = position[label == of_class]
        sums = np.stack([np.bincount(own, row, minlength=groups) for row in terms])
        return sums / len(own), len(np.unique(own))

    (of_positives, with_positive), (of_negatives, with_negative) = by_group(above, 1), by_group(below, 0)
    if min(with_positive, with_negative) < 2:
        return np.full((models, models), math.nan)
    crossed = of_positives @ of_negatives.T * groups / (groups - 1)
    return (
        of_positives @ of_positives.T * with_positive / (with_positive - 1)
        + of_negatives @ of_negatives.T * with_negative / (with_negative - 1)
        + crossed + crossed.T
    )  # fmt: skip


def delong_interval(label: np.ndarray, score: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The AUC of one classifier with its normal interval, cut at 0 and 1: (AUC, lower, upper).

    label, score: (bags,). The bounds are NaN where a class has fewer than two bags, and where the variance is 0: if all
    positives lie above all negatives, the method cannot tell how sure that is.
    """
    from scipy.special import ndtri

    auc, covariance = delong_covariance(label, np.asarray(score)[None])
    value, variance = float(auc[0]), float(covariance[0, 0])
    if math.isnan(variance) or variance <= NO_VARIANCE:
        return value, math.nan, math.nan
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
    return value, max(0.0, value - half), min(1.0, value + half)


def delong_test(
    label: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    confidence: float = 0.95,
    group: np.ndarray | None = None,
) -> DeLong:
    """DeLong's two-sided test that two classifiers have the same AUC on the population of the bags.

    label, first, second, group: (bags,), of the same bags in the same order; group: as of `delong_covariance`.
    """
    from scipy.special import ndtr, ndtri

    auc, covariance = delong_covariance(label, np.stack([np.asarray(first), np.asarray(second)]), group)
    a, b = map(float, auc)
    difference = a - b
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    positives = int(np.sum(np.asarray(label) == 1))
    counts = positives, len(np.asarray(label)) - positives
    if math.isnan(variance):
        return DeLong(a, b, difference, math.nan, math.nan, math.nan, math.nan, *counts)
    if variance <= NO_VARIANCE:
        z, p = (0.0, 1.0) if abs(difference) < 1e-12 else (math.nan, math.nan)
        return DeLong(a, b, difference, math.nan, math.nan, z, p, *counts, has_no_spread=True)
    deviation = math.sqrt(variance)
    half = float(ndtri(0.5 + confidence / 2)) * deviation
    z = difference / deviation
    lower, upper = max(-1.0, difference - half), min(1.0, difference + half)
    return DeLong(a, b, difference, lower, upper, z, float(2 * ndtr(-abs(z))), *counts)
