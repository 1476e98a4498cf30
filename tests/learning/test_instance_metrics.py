"""Instance metrics with unknown truths, within images and for further truths; what is undefined is NaN and said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags, Replicate
from d2l_study.data.streams import Streams
from d2l_study.learning.instance_metrics import instance_metrics, ranking_metrics
from d2l_study.learning.localisation import find_detections, froc, tile_maps
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
    assert ranking_metrics(replicate, shifted)["instance_auc_within"] == pytest.approx(found)


def test_within_images_average_precision_and_dice_are_means_over_images(scored):
    replicate, logit = scored
    singles = replicate.test_instances
    found = instance_metrics(replicate, logit, 0.3)
    precision, overlap = [], []
    for image in (70, 71, 72, 74):
        mine = (singles.number == image) & (singles.label >= 0)
        if image != 72:  # one class only
            precision.append(average_precision_score(singles.label[mine], logit[mine]))
        overlap.append(f1_score(singles.label[mine], logit[mine] > 0.3))
    assert found["instance_ap_within"] == pytest.approx(np.mean(precision))
    assert found["instance_dice_within_tuned"] == pytest.approx(np.mean(overlap))
    assert found["instance_dice_tuned"] == pytest.approx(found["instance_f1_tuned"])
    without = instance_metrics(replicate, logit, math.nan)
    assert math.isnan(without["instance_dice_tuned"]) and math.isnan(without["instance_dice_within_tuned"])


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
    of_images = [name for name in found if "within" in name or "dice" in name or "froc" in name]
    assert not of_images and found["instance_auc"] == 0.5


@pytest.fixture
def on_places():
    """Makes a fold of a collection of four images, of which 2 and 0 are tested, from the places of their instances."""

    def make(xy):
        count = len(xy)
        rng = np.random.default_rng(0)
        bags = Bags(np.linspace(0, count, 5).astype(int), np.arange(count), np.array([1, 0, 1, 0], np.int8),
                    rng.integers(-1, 2, count).astype(np.int8), number=np.arange(4))  # fmt: skip
        pool = BagCollection(
            name="made", instances=np.zeros((count, 3), np.float32), classes=np.zeros(count, np.int64), checksum="c",
            bags=bags, names=tuple("abcd"), group=np.arange(4), group_names=tuple("abcd"), xy=xy,
            image=np.repeat(np.arange(4), count // 4),
        )  # fmt: skip
        test = bags.subset([2, 0])
        wide = rng.integers(0, 2, len(test.instance)).astype(np.int8)
        return Replicate(0, pool, bags.subset([1]), bags.subset([3]), test, test.singles(), np.zeros(3), np.ones(3),
                         Streams("made", 1, 0), test_truths={"wide": wide})  # fmt: skip

    return make


def test_tiles_on_a_grid_have_froc_by_the_places_of_the_tested_images(on_places):
    rng = np.random.default_rng(1)
    xy = np.stack([np.tile(np.arange(20) % 5, 4), np.tile(np.arange(20) // 5, 4)], 1) * 64.0
    xy = np.concatenate([part[rng.permutation(20)] for part in np.split(xy, 4)])  # each image has another order
    replicate, score = on_places(xy), rng.normal(size=40)
    found = ranking_metrics(replicate, score)
    assert {"instance_froc", "instance_froc_wide", "instance_ap_within_wide"} <= found.keys()
    maps = tile_maps(np.repeat([2, 0], 20), np.concatenate([xy[40:60], xy[:20]]))
    assert found["instance_froc"] == froc(find_detections(maps, replicate.test_instances.label, score))
    assert found["instance_froc_wide"] == froc(find_detections(maps, replicate.test_truths["wide"], score))


def test_nuclei_and_instances_without_places_have_no_froc(on_places):
    places = np.random.default_rng(2).uniform(0, 500, (80, 2))
    for xy in (places, np.full((80, 2), np.nan), np.where(np.arange(80)[:, None] == 45, np.nan, places)):
        found = ranking_metrics(on_places(xy), np.arange(40.0))
        assert "instance_auc_within" in found and not [name for name in found if "froc" in name]
