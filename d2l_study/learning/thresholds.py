"""A threshold for instance predictions that is set without instance labels, and the metrics at it."""

from __future__ import annotations

import math

import numpy as np

from d2l_study.data.pool import Bags
from d2l_study.learning import metrics


def label_free_threshold(instance_logits: np.ndarray, bags: Bags) -> float:
    """The threshold whose induced bag labels agree best with the bags' own.

    instance_logits: (instances,) the scores of the bags' instances, in the order of `bags.instance`. An instance is
    called positive above the threshold t, a bag if one of its instances is, so a bag is called by its highest score;
    t maximises the balanced accuracy over the bags (validation bags, with their labels as training sees them). All t
    between two neighbouring bag maxima call the same bags, so the middle is taken; of several such intervals that do
    equally well the widest, then the lowest. Calling all bags or none (balanced accuracy 1/2) is no choice: a
    threshold has to separate something. NaN if the bags are of one class. Reads no instance label.

    The rule sees errors of whole bags: in bags of K instances it holds down the chance that *any* of K negatives is
    called positive, which makes the instance threshold a high one (precise rather than complete) for large K.
    """
    scores = np.asarray(instance_logits, np.float64)
    if scores.shape != bags.instance.shape:
        raise ValueError(f"{scores.shape} logits for {bags.instance.shape} instances")
    positive = bags.label == 1
    if not 0 < positive.sum() < len(bags):
        return math.nan
    return separating_threshold(np.maximum.reduceat(scores, bags.offsets[:-1]), positive)


def separating_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold above which calling positive agrees best with the labels, by balanced accuracy; of several
    intervals of thresholds that do equally well the middle of the widest, then of the lowest.

    score: (n,) any real numbers; positive: (n,) bool. NaN if one class is missing.
    """
    if not 0 < positive.sum() < len(positive):
        return math.nan
    values = np.unique(score)
    if len(values) == 1:
        return float(values[0])
    # Within the interval [values[i], values[i + 1]) a threshold calls positive the scores above values[i].
    found = np.searchsorted(np.sort(score[positive]), values[:-1], side="right")
    cleared = np.searchsorted(np.sort(score[~positive]), values[:-1], side="right")
    balanced = (1 - found / positive.sum() + cleared / (~positive).sum()) / 2
    width = np.diff(values)
    best = max(range(len(width)), key=lambda i: (round(float(balanced[i]), 12), width[i], -i))
    return float((values[best] + values[best + 1]) / 2)


def tuned_metrics(label: np.ndarray, logit: np.ndarray, threshold: float) -> dict[str, float]:
    """`instance_threshold` and `instance_{accuracy,precision,recall,f1}_tuned`: the instance metrics at a threshold;
    all NaN if it is."""
    if math.isnan(threshold) or not len(label):
        found = dict.fromkeys(("accuracy", "precision", "recall", "f1"), math.nan)
    else:
        found = metrics.at_threshold(label, logit, threshold)
    return {"instance_threshold": threshold} | {f"instance_{name}_tuned": value for name, value in found.items()}
