"""Metrics of binary predictions in which whole clusters (patients) count any number of times, as a bootstrap asks for:
those at a threshold, and those of scores as probabilities. With every weight 1 the values are those of
`learning.metrics`."""

from __future__ import annotations

import math

import numpy as np

from analysis.statistics.calibration import BINS
from analysis.statistics.recalibration import recalibration
from analysis.statistics.weighted_metrics import WeightedMetric
from d2l_study.learning.metrics import probability

AT_THRESHOLD = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1")
OF_PROBABILITIES = ("brier", "log_loss", "ece", "calibration_slope", "calibration_intercept")


def threshold_metrics(
    label: np.ndarray, called: np.ndarray, cluster: np.ndarray, clusters: int
) -> dict[str, WeightedMetric]:
    """`AT_THRESHOLD` of predictions; NaN where the ratio has nothing to divide by.

    label: (n,) of 0 and 1; called: (n,) bool, what is predicted positive; cluster: (n,) 0 … clusters − 1.
    """
    positive = np.asarray(label) == 1
    counts = np.stack([
        np.bincount(cluster[which], minlength=clusters).astype(np.float64)
        for which in (positive & called, ~positive & called, positive & ~called, ~positive & ~called)
    ])  # fmt: skip

    def counted(weight: np.ndarray) -> list[float]:
        """Hits, false alarms, misses, and negatives that are left alone."""
        return [float(value) for value in (counts * weight).sum(axis=1)]

    def accuracy(weight: np.ndarray) -> float:
        tp, fp, fn, tn = counted(weight)
        return _ratio(tp + tn, tp + fp + fn + tn)

    def balanced_accuracy(weight: np.ndarray) -> float:
        tp, fp, fn, tn = counted(weight)
        return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2

    def sensitivity(weight: np.ndarray) -> float:
        tp, _, fn, _ = counted(weight)
        return _ratio(tp, tp + fn)

    def specificity(weight: np.ndarray) -> float:
        _, fp, _, tn = counted(weight)
        return _ratio(tn, tn + fp)

    def precision(weight: np.ndarray) -> float:
        tp, fp, _, _ = counted(weight)
        return _ratio(tp, tp + fp)

    def f1(weight: np.ndarray) -> float:
        tp, fp, fn, _ = counted(weight)
        return _ratio(2 * tp, 2 * tp + fp + fn)

    found = (accuracy, balanced_accuracy, sensitivity, specificity, precision, f1)
    return dict(zip(AT_THRESHOLD, found, strict=True))


def probability_metrics(
    label: np.ndarray, logit: np.ndarray, cluster: np.ndarray, clusters: int
) -> dict[str, WeightedMetric]:
    """`OF_PROBABILITIES` of logits: Brier score, log loss in nats, expected calibration error
    (`statistics.calibration`) and logistic recalibration (`statistics.recalibration`). label, logit, cluster: (n,)."""
    label, logit = np.asarray(label, np.float64), np.asarray(logit, np.float64)
    score = probability(logit)
    count = _sums(cluster, np.ones(len(label)), clusters)
    square = _sums(cluster, (score - label) ** 2, clusters)
    loss = _sums(cluster, np.logaddexp(0.0, np.where(label == 1, -logit, logit)), clusters)
    # Of each bin and cluster the sum of (label − score): what the calibration error is made of.
    in_bin = np.minimum((score * BINS).astype(int), BINS - 1)
    gap = _sums(in_bin * clusters + cluster, label - score, BINS * clusters).reshape(BINS, clusters)

    def mean_of(sums: np.ndarray) -> WeightedMetric:
        return lambda weight: _ratio(float((weight * sums).sum()), float((weight * count).sum()))

    def error(weight: np.ndarray) -> float:
        return _ratio(float(np.abs((gap * weight).sum(axis=1)).sum()), float((weight * count).sum()))

    last: list[tuple[np.ndarray, tuple[float, float]]] = []

    def fitted(which: int) -> WeightedMetric:
        def value(weight: np.ndarray) -> float:
            if not last or last[0][0] is not weight:  # slope and intercept are asked for in turn
                last[:] = [(weight, recalibration(label, logit, weight[cluster]))]
            return last[0][1][which]

        return value

    found = (mean_of(square), mean_of(loss), error, fitted(1), fitted(0))
    return dict(zip(OF_PROBABILITIES, found, strict=True))


def _sums(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(index, values, minlength=count)


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan
