"""Instance metrics with unknown truths, within images and for further truths; what is undefined is NaN and said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from d2l_study.data.pool import Bags
from d2l_study.learning.instance_metrics import (
    instance_metrics,
    within_auc,
)
from d2l_study.learning.undefined_metrics import UndefinedMetricWarning, undefined_metrics, warn_of_undefined


@pytest.fixture
def scored(make_replicate):
    """A replicate of 60 test instances in five images, some of unknown truth, with scores."""
    rng = np.random.default_rng(4)
    truth = rng.integers(-1, 2, 60).astype(np.int8)
    image = np.repeat(np.arange(5), 12) + 70
    truth[image == 72] = 1  # one image has one class only
    truth[image == 73] = -1  # and one is unknown
    replicate = make_replicate()
    singles = dataclasses.replace(Bags.of_one(np.arange(60), truth), number=image)
    other = rng.integers(0, 2, 60).astype(np.int8)
    return dataclasses.replace(replicate, test_instances=singles, test_truths={"wide": other}), rng.normal(0, 2, 60)


def test_instances_of_unknown_truth_count_nowhere(scored):
    replicate, logit = scored
    truth = replicate.test_instances.label
    known = truth >= 0
    found = instance_metrics(replicate, logit, threshold=0.3)
    assert found["instance_auc"] == pytest.approx(roc_auc_score(truth[known], logit[known]))
    assert found["instance_ap"] == pytest.approx(average_precision_score(truth[known], logit[known]))
    assert found["instance_accuracy"] == pytest.approx(np.mean((logit > 0)[known] == truth[known]))
    assert found["instance_accuracy_tuned"] == pytest.approx(np.mean((logit > 0.3)[known] == truth[known]))
    shaken = logit + np.where(known, 0, 100 * np.random.default_rng(0).normal(size=60))
    other = instance_metrics(replicate, shaken, threshold=0.3)
    assert {k: v for k, v in found.items() if "wide" not in k} == {k: v for k, v in other.items() if "wide" not in k}


def test_within_images_the_level_of_an_image_counts_for_nothing(scored):
    replicate, logit = scored
    singles = replicate.test_instances
    areas = []
    for image in (70, 71, 74):
        mine = (singles.number == image) & (singles.label >= 0)
        areas.append(roc_auc_score(singles.label[mine], logit[mine]))
    found = instance_metrics(replicate, logit, 0.0)["instance_auc_within"]
    assert found == pytest.approx(np.mean(areas))
    shifted = logit + 10.0 * singles.number
    assert within_auc(singles, singles.label, shifted) == pytest.approx(found)


def test_further_truths_have_metrics_of_their_own(scored):
    replicate, logit = scored
    found = instance_metrics(replicate, logit, 0.0)
    assert found["instance_auc_wide"] == pytest.approx(roc_auc_score(replicate.test_truths["wide"], logit))
    assert found["instance_ap_wide"] == pytest.approx(average_precision_score(replicate.test_truths["wide"], logit))
    assert "instance_auc_within_wide" in found


def test_without_any_known_truth_instance_metrics_are_nan_and_no_surprise(scored):
    replicate, logit = scored
    unknown = dataclasses.replace(replicate.test_instances, label=np.full(60, -1, np.int8))
    replicate = dataclasses.replace(replicate, test_instances=unknown, test_truths={})
    found = instance_metrics(replicate, logit, 0.0)
    assert all(math.isnan(v) for k, v in found.items() if k != "instance_threshold")
    assert not [reason for reason in undefined_metrics(replicate) if reason.startswith("instance")]


def test_a_part_of_one_class_is_said_with_its_fold(scored):
    replicate, _ = scored
    bags = replicate.test
    one = dataclasses.replace(bags, label=np.ones_like(bags.label))
    replicate = dataclasses.replace(replicate, test=one, fold=3)
    with pytest.warns(UndefinedMetricWarning, match=r"\(fold 3\): bag_auc is not defined: all 8 test bags are pos"):
        warn_of_undefined(replicate)


def test_drawn_bags_have_no_figures_within_images(make_replicate):
    replicate = make_replicate()
    found = instance_metrics(replicate, np.zeros(60), 0.0)
    assert "instance_auc_within" not in found and found["instance_auc"] == 0.5
