"""Metrics with weights by image against the same metrics of data in which each image stands that many times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from analysis.statistics.cluster_bootstrap import bootstrap_clusters
from analysis.statistics.weighted_metrics import WEIGHTED_METRICS, ScoredInstances, weighted_metric
from d2l_study.learning.localisation import find_detections, froc, tile_maps

SIDE = 4


@st.composite
def maps(draw):
    """Images of 4 × 4 tiles, two of which may share a bag, and how often each bag counts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bags = draw(st.integers(1, 4))
    images = draw(st.integers(bags, bags + 2))
    bag_of_image = np.sort(np.concatenate([np.arange(bags), rng.integers(0, bags, images - bags)]))
    image = np.repeat(np.arange(images), SIDE**2)
    label = rng.integers(-1, 2, len(image)) * draw(st.sampled_from([1, 0]))
    score = rng.integers(0, draw(st.sampled_from([4, 1000])), len(image)).astype(float)
    xy = np.tile(np.stack(np.divmod(np.arange(SIDE**2), SIDE), axis=1), (images, 1)) * 32.0
    scored = ScoredInstances(bag_of_image[image], label, score, score > 2, image, xy)
    return scored, rng.integers(0, 4, bags).astype(float)


def repeated(scored, weight):
    """Each bag as often as it counts, every copy with images of its own."""
    parts = [(bag, copy) for bag, times in enumerate(weight.astype(int)) for copy in range(times)]
    rows = [np.flatnonzero(scored.cluster == bag) for bag, _ in parts]
    bag = np.repeat(np.arange(len(parts)), [len(mine) for mine in rows])
    every = np.concatenate(rows) if rows else np.empty(0, int)
    return bag, every, scored.image[every] + 100 * bag


def mean_of_bags(metric, bag, label, second, needs_both):
    values = []
    for one in np.unique(bag):
        mine = (bag == one) & (label >= 0)
        if (len(np.unique(label[mine])) == 2) if needs_both else (label[mine] == 1).any():
            values.append(metric(label[mine], second[mine]))
    return np.mean(values) if values else math.nan


@settings(max_examples=60, deadline=None)
@given(maps())
def test_weights_are_copies_of_whole_images(case):
    scored, weight = case
    bag, every, image = repeated(scored, weight)
    label, score, called = scored.label[every], scored.score[every], scored.called[every]
    known = label >= 0
    both, positive = len(np.unique(label[known])) == 2, (label == 1).any()
    there = tile_maps(image, scored.xy[every])
    wanted = {
        "instance_auc": roc_auc_score(label[known], score[known]) if both else math.nan,
        "instance_ap": average_precision_score(label[known], score[known]) if positive else math.nan,
        "instance_dice_tuned": f1_score(label[known], called[known]) if (label == 1).any() or called[known].any()
        else math.nan,
        "instance_auc_within": mean_of_bags(roc_auc_score, bag, label, score, True),
        "instance_ap_within": mean_of_bags(average_precision_score, bag, label, score, True),
        "instance_dice_within_tuned": mean_of_bags(f1_score, bag, label, called, False),
        "instance_froc": math.nan if there is None else froc(find_detections(there, label, score)),
    }  # fmt: skip
    assert wanted.keys() == WEIGHTED_METRICS.keys()
    for name, value in wanted.items():
        assert weighted_metric(name, scored)(weight) == pytest.approx(value, nan_ok=True), name


def test_what_the_instances_lack_is_said_and_not_made_up():
    bare = ScoredInstances(np.arange(9) // 3, np.arange(9) % 2, np.arange(9.0))
    lacking = [name for name in WEIGHTED_METRICS if weighted_metric(name, bare) is None]
    assert lacking == ["instance_dice_tuned", "instance_dice_within_tuned", "instance_froc"]
    nuclei = np.random.default_rng(0).uniform(0, 99, (9, 2))
    scattered = ScoredInstances(bare.cluster, bare.label, bare.score, None, bare.cluster, nuclei)
    assert weighted_metric("instance_froc", scattered) is None


def test_the_bootstrap_of_any_metric_is_the_resampling_written_out():
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(9), 6)
    label = rng.integers(0, 2, 54)
    ours, theirs = (ScoredInstances(cluster, label, label + rng.normal(0, 1, 54)) for _ in range(2))
    name = "instance_ap_within"
    found = bootstrap_clusters(weighted_metric(name, ours), weighted_metric(name, theirs), 9, 54, resamples=200, seed=3)
    precision = [[average_precision_score(label[cluster == one], scored.score[cluster == one]) for one in range(9)]
                 for scored in (ours, theirs)]  # fmt: skip
    difference = np.subtract(*precision)
    draws = np.random.default_rng(3)
    values = [difference[draws.integers(0, 9, 9)].mean() for _ in range(200)]
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.difference == pytest.approx(difference.mean()) and found.clusters == 9
