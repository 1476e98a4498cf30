"""Instance-level metrics where some truths are unknown and instances stand in images; what is not defined is NaN, with
a warning."""

from __future__ import annotations

import math

import numpy as np

from d2l_study.data.pool import UNKNOWN, Bags, Replicate
from d2l_study.learning import metrics
from d2l_study.learning.prediction import bag_metrics
from d2l_study.learning.thresholds import tuned_metrics


def instance_metrics(replicate: Replicate, logit: np.ndarray, threshold: float) -> dict[str, float]:
    """The metrics of the test instances whose truth is known: `instance_auc`, `_ap`, `_nll`, …, and those at the
    threshold (`tuned_metrics`).

    logit: (test instances,). Where instances stand in images (`Bags.number`) also `instance_auc_within`, see
    `within_auc`; and for each further truth, by its name, `instance_auc_NAME`, `instance_ap_NAME` and
    `instance_auc_within_NAME`.
    """
    singles = replicate.test_instances
    known = singles.label != UNKNOWN
    found = bag_metrics(singles.label[known], logit[known], "instance")
    found |= tuned_metrics(singles.label[known], logit[known], threshold)
    return found | ranking_metrics(replicate, logit)


def ranking_metrics(replicate: Replicate, score: np.ndarray) -> dict[str, float]:
    """The part of `instance_metrics` that needs no probabilities: areas and average precisions, for any real scores."""
    singles = replicate.test_instances
    found: dict[str, float] = {}
    for suffix, truth in {"": singles.label, **{f"_{name}": t for name, t in replicate.test_truths.items()}}.items():
        known = truth != UNKNOWN
        found[f"instance_auc{suffix}"] = metrics.auc(truth[known], score[known])
        found[f"instance_ap{suffix}"] = metrics.average_precision(truth[known], score[known])
        if len(singles.number):
            found[f"instance_auc_within{suffix}"] = within_auc(singles, truth, score)
    return found


def within_auc(singles: Bags, truth: np.ndarray, score: np.ndarray) -> float:
    """The mean over images of the AUC among the instances of one image, of those that hold both classes.

    singles: bags of one with the `number` of the image that each stands in; truth: (instances,), −1 unknown. Unlike
    the pooled AUC it gains nothing from telling images apart. NaN if no image holds both classes.
    """
    known = truth != UNKNOWN
    areas = []
    for image in np.unique(singles.number[known]):
        mine = known & (singles.number == image)
        if len(np.unique(truth[mine])) == 2:
            areas.append(metrics.auc(truth[mine], score[mine]))
    return float(np.mean(areas)) if areas else math.nan
