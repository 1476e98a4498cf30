"""ROC and precision-recall curves averaged over replicates, vertically, on a fixed grid (Fawcett 2006, "An
introduction to ROC analysis", section 8). Pointwise bands say how a curve varies at one rate; they are not a band that
holds a whole curve.
"""

from __future__ import annotations

import numpy as np

from analysis.statistics.intervals import Interval, mean_difference
from d2l_study.learning.metrics import roc_curve

GRID = np.linspace(0, 1, 101)
"""False positive rates of averaged ROC curves."""
RECALL_GRID = np.linspace(0.01, 1, 100)


def roc_on_grid(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """True positive rate at each rate of `GRID`, (101,): linear between the points of the curve, and 0 at 0 (where
    the curve rises upright, its foot)."""
    false, true = roc_curve(labels, logits)
    found = np.interp(GRID, false, true)
    found[0] = 0.0
    return found


def precision_on_grid(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Precision at each recall of `RECALL_GRID`, (100,): that of the highest threshold which reaches the recall. No
    line is drawn between points, which would flatter (Davis & Goadrich 2006)."""
    positives, negatives = _counts(labels, logits)
    recall, precision = positives / positives[-1], positives / (positives + negatives)
    return precision[np.searchsorted(recall, RECALL_GRID - 1e-12)]


def sensitivity_at(labels: np.ndarray, logits: np.ndarray, specificity: float) -> float:
    """The highest sensitivity of a threshold whose specificity is at least the one given, without interpolation."""
    false, true = roc_curve(labels, logits)
    return float(true[false <= 1 - specificity + 1e-12].max())


def mean_band(curves: np.ndarray, ratio: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper bound of the pointwise 95 % t interval, each (points,), the bounds within [0, 1].

    curves: (units, points); below two units the bounds are NaN, as where a point has too few values. ratio: of folds,
    test bags over training bags, for the corrected interval; None for independent replicates.
    """
    found: list[Interval] = [mean_difference(curves[:, i], test_train_ratio=ratio) for i in range(curves.shape[1])]
    mean, lower, upper = (np.array([getattr(i, name) for i in found]) for name in ("mean", "lower", "upper"))
    return mean, np.clip(lower, 0, 1), np.clip(upper, 0, 1)


def _counts(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above each distinct logit, from the highest down."""
    order = np.argsort(-logits, kind="stable")
    hit = labels[order] == 1
    last = np.append(np.diff(logits[order]) != 0, True)
    return np.cumsum(hit)[last].astype(float), np.cumsum(~hit)[last].astype(float)
