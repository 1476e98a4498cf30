"""Instance-level metrics where some truths are unknown and instances stand in images; what is not defined is NaN, with
a warning."""

from __future__ import annotations

import math

import numpy as np

from d2l_study.data.collection import tested_places
from d2l_study.data.pool import UNKNOWN, Replicate
from d2l_study.learning import metrics
from d2l_study.learning.localisation import (
    dice,
    find_detections,
    froc,
    image_average_precision,
    image_dice,
    mean_by_image,
    tile_maps,
)
from d2l_study.learning.prediction import bag_metrics
from d2l_study.learning.thresholds import tuned_metrics


def instance_metrics(replicate: Replicate, logit: np.ndarray, threshold: float) -> dict[str, float]:
    """The metrics of the test instances whose truth is known: `instance_auc`, `_ap`, `_nll`, …, with those of
    `ranking_metrics` and `threshold_metrics`.

    logit: (test instances,)
    """
    singles = replicate.test_instances
    known = singles.label != UNKNOWN
    found = bag_metrics(singles.label[known], logit[known], "instance")
    found |= threshold_metrics(replicate, logit, threshold)
    return found | ranking_metrics(replicate, logit)


def calibrated_metrics(replicate: Replicate, logit: np.ndarray, bias: float) -> dict[str, float]:
    """`instance_bias`, and `instance_nll_calibrated` and `instance_brier_calibrated` of the test instances of known
    truth with the bias added to their logits (`calibration.fit_instance_bias`), NaN if the bias is.

    logit: (test instances,)
    """
    singles = replicate.test_instances
    known = singles.label != UNKNOWN
    truth, moved = singles.label[known], logit[known] + bias
    names = {"instance_nll_calibrated": metrics.log_loss, "instance_brier_calibrated": metrics.brier}
    values = {name: math.nan if math.isnan(bias) else measure(truth, moved) for name, measure in names.items()}
    return {"instance_bias": bias} | values


def threshold_metrics(replicate: Replicate, score: np.ndarray, threshold: float) -> dict[str, float]:
    """The metrics of calling positive what scores above a threshold (`tuned_metrics`), all NaN if that is.

    score: (test instances,), any real numbers. Where instances stand in images (`Bags.number`) also
    `instance_dice_tuned` over all of them, and `instance_dice_within_tuned`, the mean over images that hold a positive.
    """
    singles = replicate.test_instances
    known = singles.label != UNKNOWN
    truth, score = singles.label[known], score[known]
    found = tuned_metrics(truth, score, threshold)
    if not len(singles.number):
        return found
    if math.isnan(threshold):
        return found | {"instance_dice_tuned": math.nan, "instance_dice_within_tuned": math.nan}
    called = score > threshold
    within = mean_by_image(image_dice, truth, called, singles.number[known])
    return found | {"instance_dice_tuned": dice(truth, called), "instance_dice_within_tuned": within}


def ranking_metrics(replicate: Replicate, score: np.ndarray) -> dict[str, float]:
    """The part of `instance_metrics` that needs no probabilities and no threshold, for any real scores.

    score: (test instances,). `instance_auc` and `instance_ap` are over all of them. Where instances stand in images
    there are also `instance_auc_within` and `instance_ap_within`, the means over the images that hold both classes,
    which gain nothing from telling images apart; where they are tiles of grids, `instance_froc` (`localisation`).
    For each further truth, by its name, the same with `_NAME` behind: `instance_auc_NAME`, `instance_auc_within_NAME`.
    """
    singles = replicate.test_instances
    places = tested_places(replicate)
    maps = None if places is None else tile_maps(*places)
    found: dict[str, float] = {}
    for suffix, truth in {"": singles.label, **{f"_{name}": t for name, t in replicate.test_truths.items()}}.items():
        known = truth != UNKNOWN
        found[f"instance_auc{suffix}"] = metrics.auc(truth[known], score[known])
        found[f"instance_ap{suffix}"] = metrics.average_precision(truth[known], score[known])
        if len(singles.number):
            mine = truth[known], score[known], singles.number[known]
            found[f"instance_auc_within{suffix}"] = mean_by_image(metrics.auc, *mine)
            found[f"instance_ap_within{suffix}"] = mean_by_image(image_average_precision, *mine)
        if maps is not None:
            found[f"instance_froc{suffix}"] = froc(find_detections(maps, truth, score))
    return found
