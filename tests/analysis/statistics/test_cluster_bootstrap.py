"""The bootstrap of whole images against the resampling written out, and why patches are not counted."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from analysis.statistics.cluster_bootstrap import LEAST_CLUSTERS, bootstrap_clusters, cluster_bootstrap
from analysis.statistics.delong import delong_test


# ---- cluster bootstrap
def _images(rng, images=40, patches=30, gain=0.0):
    """Patches whose scores share an image's own shift; images hold mostly one class, as images of tissue do."""
    image = np.repeat(np.arange(images), patches)
    label = (rng.random(len(image)) < rng.choice([0.1, 0.9], images)[image]).astype(int)
    shared = rng.normal(0, 1, images)[image]
    first = (1 + gain) * label + shared + rng.normal(0, 1, images)[image] + rng.normal(0, 1, len(image))
    second = label + shared + rng.normal(0, 1, images)[image] + rng.normal(0, 1, len(image))
    return label, first, second, image


def test_cluster_bootstrap_is_the_resampling_written_out():
    rng = np.random.default_rng(1)
    label, first, second, image = _images(rng, images=12, patches=8)
    first, second = np.round(first, 1), np.round(second, 1)  # ties
    found = cluster_bootstrap(label, first, second, image, resamples=300, seed=7)
    assert found.first == pytest.approx(roc_auc_score(label, first))
    assert found.difference == pytest.approx(roc_auc_score(label, first) - roc_auc_score(label, second))
    draws, values = np.random.default_rng(7), []
    for _ in range(300):
        chosen = np.concatenate([np.flatnonzero(image == i) for i in draws.integers(0, 12, 12)])
        values.append(roc_auc_score(label[chosen], first[chosen]) - roc_auc_score(label[chosen], second[chosen]))
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.p == pytest.approx(min(1, 2 * (min(np.sum(np.array(values) <= 0), np.sum(np.array(values) >= 0)) + 1)
                                        / 301))  # fmt: skip
    assert (found.clusters, found.instances, found.smallest_p) == (12, 96, pytest.approx(2 / 301))


@pytest.mark.slow
def test_patches_counted_as_independent_are_too_sure_and_whole_images_are_not():
    rng = np.random.default_rng(2)
    wrong = {"patches": 0, "images": 0}
    for _ in range(150):
        label, first, second, image = _images(rng)
        wrong["patches"] += delong_test(label, first, second).p < 0.05
        wrong["images"] += cluster_bootstrap(label, first, second, image, resamples=199).p < 0.05
    assert wrong["patches"] / 150 > 0.2
    assert wrong["images"] / 150 < 0.12


@pytest.mark.parametrize("images", [LEAST_CLUSTERS - 1, LEAST_CLUSTERS])
def test_too_few_images_bear_no_interval_and_no_test(images):
    rng = np.random.default_rng(3)
    label, first, second, image = _images(rng, images=images, patches=40, gain=1.0)
    found = cluster_bootstrap(label, first, second, image, resamples=400)
    assert found.resamples == found.drawn == 400 and not math.isnan(found.difference)
    few = images < LEAST_CLUSTERS
    assert [math.isnan(one) for one in (found.lower, found.upper, found.p, found.smallest_p)] == [few] * 4


def test_no_p_lies_below_the_chance_that_all_images_agree():
    """One model is better in each of 8 images, and so in all resamples."""
    rng = np.random.default_rng(4)
    label, image = np.tile([0, 1], 80), np.repeat(np.arange(8), 20)
    better, worse = label + rng.normal(0, 0.3, 160), rng.normal(0, 1, 160)
    found = cluster_bootstrap(label, better, worse, image, resamples=1999)
    assert found.lower > 0 and found.p == found.smallest_p == 2**-7
    assert cluster_bootstrap(label, better, worse, image, resamples=99).smallest_p == 2 / 100


def test_a_metric_that_most_resamples_leave_undefined_is_not_tested():
    """Of ten images one holds both positives: a third of the resamples lack it. One that has to be drawn twice is
    lacking in three of four."""
    image = np.repeat(np.arange(10), 4)
    score = np.arange(40) % 7
    one = np.isin(np.arange(40), (0, 1)).astype(int)
    found = cluster_bootstrap(one, score, -score, image, resamples=300)
    assert 0.5 < found.resamples / found.drawn < 0.75 and not found.seldom_defined and not math.isnan(found.p)
    alone = bootstrap_clusters(lambda w: 1.0 if w[0] > 1 else math.nan, lambda w: 0.5, 10, 40, resamples=300)
    assert alone.seldom_defined and 0 < alone.resamples < 150
    assert math.isnan(alone.lower) and math.isnan(alone.p) and math.isnan(alone.smallest_p)


def test_a_single_image_or_class_says_nothing():
    label = np.tile([0, 1], 8)
    one_image = cluster_bootstrap(label, label + 0.5, label, np.zeros(16), resamples=20)
    assert math.isnan(one_image.p) and math.isnan(one_image.lower)
    one_class = cluster_bootstrap(np.ones(16), label, label, np.arange(16), resamples=20)
    assert math.isnan(one_class.first) and one_class.resamples == 0
    apart = cluster_bootstrap(label, label + 0.5, np.zeros(16), np.arange(16), resamples=50)
    assert apart.difference == 0.5 and math.isnan(apart.p)  # in every resample
    turned = cluster_bootstrap(label, label + 0.5, 2 * label, np.arange(16), resamples=50)
    assert (turned.difference, turned.p) == (0.0, 1.0)
    alone = cluster_bootstrap(label, label + 0.5, None, np.arange(16), resamples=50)
    assert alone.difference == alone.first == 1.0 and math.isnan(alone.p)
