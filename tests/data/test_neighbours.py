"""Means over the neighbours in an image, against distances computed one by one."""

import dataclasses

import numpy as np
import pytest

from d2l_study.data import MnistBags
from d2l_study.data.collection import PatchCollection
from d2l_study.data.neighbours import check_places, nearest_means, neighbour_means
from d2l_study.data.pool import Bags
from d2l_study.errors import UserError


def collection(sizes, image=None, seed=0) -> PatchCollection:
    """Bags of these sizes with instances at random places, by default each in an image of its own."""
    rng, count = np.random.default_rng(seed), sum(sizes)
    label = np.arange(len(sizes)) % 2
    bags = Bags(np.concatenate([[0], np.cumsum(sizes)]), np.arange(count), label.astype(np.int8),
                np.zeros(count, np.int8), label.astype(np.int8), np.arange(len(sizes)))  # fmt: skip
    return PatchCollection(
        "some", np.zeros((count, 1, 4, 4), np.uint8), np.zeros(count, np.int64), "0", bags=bags,
        names=tuple("abcdef"[: len(sizes)]), group=np.arange(len(sizes)), group_names=(),
        xy=rng.uniform(0, 99, (count, 2)), image=bags.bag_of if image is None else np.array(image),
        sums=np.zeros((count, 2, 1)),
    )  # fmt: skip


def one_by_one(values, pool, bags, count):
    found = []
    for bag, number in enumerate(bags.number):
        inside = range(pool.bags.offsets[number], pool.bags.offsets[number + 1])
        own = values[bags.offsets[bag] : bags.offsets[bag + 1]]
        for i in inside:
            near = [j for j in inside if pool.image[j] == pool.image[i]]
            near.sort(key=lambda j: np.hypot(*(pool.xy[j] - pool.xy[i])))
            found.append(np.mean([own[j - inside.start] for j in near[: count + 1]]))
    return np.array(found)


@pytest.mark.parametrize("count", [1, 4, 8, 100])
def test_it_is_the_mean_of_the_nearest_in_the_same_bag_and_image(count):
    image = [0] * 9 + [1] * 11 + [2] * 7 + [3] + [4] * 30  # bag a has two images, one of them smaller than `count`
    pool = collection([20, 8, 30], image)
    for bags in (pool.bags, pool.bags.subset([2, 0])):
        values = np.random.default_rng(1).normal(size=len(bags.instance))
        np.testing.assert_allclose(neighbour_means(values, pool, bags, count), one_by_one(values, pool, bags, count))


def test_no_neighbours_change_nothing_and_need_no_places():
    values = np.arange(3.0)
    pool = dataclasses.replace(collection([3]), xy=np.full((3, 2), np.nan))
    assert neighbour_means(values, pool, pool.bags, 0) is values


def test_on_a_grid_eight_neighbours_are_those_that_touch():
    pool = dataclasses.replace(collection([25]), xy=np.stack(np.divmod(np.arange(25), 5), 1) * 32.0)
    values = np.zeros(25)
    values[12] = 9
    found = neighbour_means(values, pool, pool.bags, 8).reshape(5, 5)
    assert (found[1:4, 1:4] == 1).all()


def test_a_mean_over_like_neighbours_is_nearer_the_truth_than_its_parts():
    """Two halves of an image of different kinds, scores that err at random."""
    pool = collection([400])
    truth = (pool.xy[:, 0] > 50).astype(float)
    scores = truth + np.random.default_rng(2).normal(size=400)
    means = neighbour_means(scores, pool, pool.bags, 8)
    assert np.abs(means - truth).mean() < 0.6 * np.abs(scores - truth).mean()


@pytest.mark.parametrize("count", [1, 2, 6])
def test_an_instance_is_in_its_own_mean_however_many_share_its_place(count):
    """Thirty instances at nine places: nearest others are taken first, and each own value once."""
    xy = np.random.default_rng(0).integers(0, 3, (30, 2)).astype(float)
    shares = np.stack([nearest_means(one, xy, count) for one in np.eye(30)], axis=1)  # of each value in each mean
    assert np.allclose(np.diag(shares), 1 / (count + 1)) and np.allclose(shares.sum(axis=1), 1)
    for i, distance in enumerate(np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1))):
        taken = np.sort(distance[np.isclose(shares[i], 1 / (count + 1))])
        np.testing.assert_allclose(taken, np.sort(distance)[: count + 1])
    some = np.array([7, 3])
    np.testing.assert_allclose(nearest_means(np.arange(30.0), xy, count, some), shares[some] @ np.arange(30.0))


def test_places_are_needed():
    pool = collection([3, 4])
    xy = pool.xy.copy()
    xy[5, 1] = np.nan
    with pytest.raises(UserError, match="those of bag 'b' have none"):
        neighbour_means(np.zeros(7), dataclasses.replace(pool, xy=xy), pool.bags, 2)
    with pytest.raises(UserError, match="data set mnist have none"):
        check_places(MnistBags().load_pool())
