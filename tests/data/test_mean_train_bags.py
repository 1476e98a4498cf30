"""The mean number of training bags of the folds, by which epochs are counted: what the folds themselves hold."""

import dataclasses
import math

import numpy as np
import pytest

from d2l_study.data import SyntheticColonBags
from d2l_study.data.collection import TEST, TRAIN, VAL
from d2l_study.data.folds import fold_replicate, mean_train_bags


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("cache")))
        return SyntheticColonBags(images=14, side=60, nuclei=6.0).load_pool()


def found(collection, numbers, folds, num_bags=None):
    """The mean of the folds' own numbers, rounded up, after asserting that every fold says the same."""
    replicates = [fold_replicate(collection, number, 3, folds, num_bags) for number in numbers]
    mean = math.ceil(np.mean([len(r.train) for r in replicates]) - 1e-9)
    assert {r.epoch_bags for r in replicates} == {mean_train_bags(collection, folds, num_bags)}
    return mean


@pytest.mark.parametrize("folds", [3, 4, 5])
def test_of_dealt_folds(collection, folds):
    assert mean_train_bags(collection, folds) == found(collection, range(2 * folds), folds)


def test_of_groups_of_unequal_size(collection):
    grouped = dataclasses.replace(collection, group=np.array([0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7]))
    sizes = {len(fold_replicate(grouped, r, 3, 3).train) for r in range(3)}
    assert len(sizes) > 1  # folds differ, and have one length of training all the same
    assert mean_train_bags(grouped, 3) == found(grouped, range(3), 3)


def test_of_a_part_of_the_bags(collection):
    assert mean_train_bags(collection, 3, 4) == found(collection, range(3), 3, 4) == 4


def test_of_folds_that_the_user_gave(collection):
    given = np.arange(14) % 4
    of_one = dataclasses.replace(collection, fold=given)
    assert mean_train_bags(of_one, 10) == found(of_one, range(4), 10) == 7
    several = dataclasses.replace(collection, fold=np.stack([given, given[::-1]]))
    assert mean_train_bags(several, 10) == found(several, range(8), 10) == 7


def test_of_splits_that_the_user_gave(collection):
    part = np.full((2, 14), TEST, np.int8)
    part[0, :4], part[0, 4:6] = TRAIN, VAL
    part[1, :9], part[1, 9:11] = TRAIN, VAL
    splits = dataclasses.replace(collection, part=part)
    assert mean_train_bags(splits, 3) == found(splits, range(2), 3) == 7
    held = np.where(np.arange(14) < 9, TRAIN, TEST).astype(np.int8)  # a third of 9 training bags is held out
    one = dataclasses.replace(collection, part=held)
    assert mean_train_bags(one, 3) == found(one, range(3), 3) == 6
