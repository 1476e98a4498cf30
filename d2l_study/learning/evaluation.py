"""Which bags and instances a trained network is evaluated on, and its metrics there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2l_study.data.pool import UNKNOWN, Bags, Replicate
from d2l_study.learning import metrics
from d2l_study.learning.calibration import fit_instance_bias
from d2l_study.learning.instance_metrics import calibrated_metrics, instance_metrics
from d2l_study.learning.prediction import bag_metrics
from d2l_study.learning.thresholds import label_free_threshold
from d2l_study.learning.undefined_metrics import warn_of_undefined

Metrics = dict[str, float]
Logits = dict[tuple[str, str], np.ndarray]
"""(split, level) -> the logits of that split's bags or instances, in order."""


def evaluation_sets(replicate: Replicate) -> dict[tuple[str, str], Bags]:
    """(split, level) -> the bags whose logits a fitted model's results hold, in this order."""
    return {
        ("val", "bag"): replicate.val,
        ("test", "bag"): replicate.test,
        ("test", "instance"): replicate.test_instances,
    }


def evaluation_bags(replicate: Replicate) -> list[Bags]:
    """What the selected snapshot predicts: `evaluation_sets`, and behind them the validation instances as bags of one,
    on which the threshold is set."""
    return [*evaluation_sets(replicate).values(), bags_of_one(replicate.val)]


def bags_of_one(bags: Bags) -> Bags:
    """The instances of the bags, each a bag of one, without their labels."""
    return Bags.of_one(bags.instance, np.full(len(bags.instance), UNKNOWN, np.int8))


def validation_metrics(replicate: Replicate, logit: np.ndarray) -> Metrics | None:
    """AUC and log loss of the validation bags' logits, (bags,); None if a logit is not finite."""
    if not np.isfinite(logit).all():
        return None
    label = replicate.val.label
    return {"val_bag_auc": metrics.auc(label, logit), "val_bag_nll": metrics.log_loss(label, logit)}


def evaluation_metrics(replicate: Replicate, predicted: Sequence[np.ndarray]) -> tuple[Metrics, Logits] | None:
    """`val_bag_*`, `bag_*`, `instance_*`, `instance_threshold`, `instance_*_tuned`, `instance_bias`,
    `instance_*_calibrated`, and the logits they come from.

    predicted: the logits of `evaluation_bags`, in order. None if a logit of `evaluation_sets` is not finite.
    """
    *found, val_instance = predicted
    if not all(np.isfinite(logit).all() for logit in found):
        return None
    sets = evaluation_sets(replicate)
    logits = dict(zip(sets, found, strict=True))
    values: Metrics = {}
    for (split, level), bags in sets.items():
        if level == "bag":
            values |= bag_metrics(bags.label, logits[split, level], "val_bag" if split == "val" else "bag")
    threshold = label_free_threshold(val_instance, replicate.val)
    values |= instance_metrics(replicate, logits["test", "instance"], threshold)
    bias = fit_instance_bias(val_instance, replicate.val)
    values |= calibrated_metrics(replicate, logits["test", "instance"], bias)
    warn_of_undefined(replicate)
    return values, logits
