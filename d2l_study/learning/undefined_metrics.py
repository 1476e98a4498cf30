"""Which main metrics the labels of a replicate leave undefined; they are NaN there. Known before training."""

from __future__ import annotations

import warnings

import numpy as np

from d2l_study.data.pool import UNKNOWN, Replicate


class UndefinedMetricWarning(UserWarning):
    """A metric of a replicate is not defined by its labels, and is NaN."""


def undefined_metrics(replicate: Replicate) -> list[str]:
    """Which main metrics the replicate's labels leave undefined, and why. Truths that a data set has nowhere (a bag
    data set without instance labels) are no surprise and not named."""
    found = []
    for metric, what, label in (
        ("val_bag_auc", "validation bags", replicate.val.label),
        ("bag_auc", "test bags", replicate.test.label),
        ("instance_auc", "test instances of known truth", replicate.test_instances.label),
    ):
        known = label[label != UNKNOWN]
        if len(np.unique(known)) == 1:
            found.append(
                f"{metric} is not defined: all {len(known)} {what} are {'positive' if known[0] else 'negative'}"
            )
    return found


def warn_of_undefined(replicate: Replicate) -> None:
    for reason in undefined_metrics(replicate):
        place = f"replicate {replicate.number}" + ("" if replicate.fold is None else f" (fold {replicate.fold})")
        warnings.warn(f"{place}: {reason}", UndefinedMetricWarning, stacklevel=2)
