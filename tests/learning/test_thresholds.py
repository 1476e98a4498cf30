"""The threshold without instance labels: against brute force, its ties, and what it must not read."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from d2l_study.data.pool import Bags
from d2l_study.learning.thresholds import label_free_threshold, tuned_metrics


def bags_of(sizes, label):
    count = int(np.sum(sizes))
    return Bags(
        np.concatenate([[0], np.cumsum(sizes)]), np.arange(count), np.array(label, np.int8), np.full(count, -1, np.int8)
    )


def balanced_accuracy(threshold, logits, bags):
    """Written out bag by bag."""
    called = np.array([(logits[a:b] > threshold).any() for a, b in itertools.pairwise(bags.offsets)])
    return (np.mean(called[bags.label == 1]) + np.mean(~called[bags.label == 0])) / 2


def test_separable_bags_are_split_in_the_middle_of_the_gap():
    bags = bags_of([2, 3, 1, 2], [1, 0, 1, 0])
    logits = np.array([-4.0, 3.0, -9.0, 0.5, 0.1, 2.0, -1.0, 1.0])  # bag maxima 3, 0.5, 2, 1
    assert label_free_threshold(logits, bags) == 1.5


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_that_separates_bags_calls_them_better(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 15)
    bags = bags_of(sizes, [1, 0, *rng.integers(0, 2, 13)])
    logits = np.round(rng.normal(size=sizes.sum()), 1)  # with ties
    found = label_free_threshold(logits, bags)
    top = np.array([logits[a:b].max() for a, b in itertools.pairwise(bags.offsets)])
    tried = [t for t in np.arange(-4, 4, 0.05) + 0.01 if 0 < (top > t).sum() < len(bags)]
    best = max(balanced_accuracy(t, logits, bags) for t in tried)
    assert 0 < (top > found).sum() < len(bags)
    assert balanced_accuracy(found, logits, bags) == pytest.approx(best)


def test_of_equally_good_intervals_the_widest_is_taken():
    """Maxima 0 (−), 1 (+), 5 (−), 6 (+): above 0 and above 5 both call three of four; (0, 1) and (5, 6) are as wide,
    and the lower one wins until the upper one is wider."""
    bags = bags_of([1, 1, 1, 1], [0, 1, 0, 1])
    assert label_free_threshold(np.array([0.0, 1.0, 5.0, 6.0]), bags) == 0.5
    assert label_free_threshold(np.array([0.0, 1.0, 5.0, 6.5]), bags) == 5.75


def test_it_follows_a_monotone_change_of_units_and_the_order_of_instances_in_a_bag():
    rng = np.random.default_rng(0)
    bags = bags_of([4] * 10, [0, 1] * 5)
    logits = rng.normal(size=40)
    found = label_free_threshold(logits, bags)
    assert label_free_threshold(3 * logits + 2, bags) == pytest.approx(3 * found + 2)
    shuffled = np.concatenate([rng.permutation(part) for part in np.split(logits, 10)])
    assert label_free_threshold(shuffled, bags) == found


def test_instance_labels_change_nothing():
    bags = bags_of([4] * 10, [0, 1] * 5)
    logits = np.random.default_rng(0).normal(size=40)
    poisoned = dataclasses.replace(bags, instance_label=np.arange(40).astype(np.int8) % 2, true_label=1 - bags.label)
    assert label_free_threshold(logits, bags) == label_free_threshold(logits, poisoned)


def test_one_class_has_no_threshold_and_equal_scores_have_one():
    assert math.isnan(label_free_threshold(np.zeros(3), bags_of([1, 1, 1], [1, 1, 1])))
    assert label_free_threshold(np.full(3, 2.0), bags_of([1, 1, 1], [1, 0, 1])) == 2.0
    assert all(math.isnan(v) for v in tuned_metrics(np.array([0, 1]), np.array([0.0, 1.0]), math.nan).values())


def test_logits_must_be_those_of_the_bags():
    with pytest.raises(ValueError, match=r"\(2,\) logits for \(3,\) instances"):
        label_free_threshold(np.zeros(2), bags_of([1, 2], [1, 0]))


def test_the_tuned_metrics_count_at_the_threshold():
    found = tuned_metrics(np.array([1, 1, 0, 0]), np.array([2.0, 0.9, 1.5, 0.0]), 1.0)
    assert found == {"instance_threshold": 1.0, "instance_accuracy_tuned": 0.5, "instance_precision_tuned": 0.5,
                     "instance_recall_tuned": 0.5, "instance_f1_tuned": 0.5}  # fmt: skip
