"""The witness rate is the mean share of witnesses in a positive bag, at every bag size."""

import dataclasses

import numpy as np
import pytest

from d2l_study.data import MnistBags, Streams
from d2l_study.data.mnist_bags import sample_bags
from d2l_study.data.witnesses import binomial_rate, mean_share, share_of_bags, size_distribution, smallest_rate
from d2l_study.errors import UserError

SIZES = [(10, 5.0), (3, 5.0), (50, 5.0), (20, 0.0), (2.5, 0.0), (100, 400.0)]


@pytest.mark.parametrize(("mean", "variance"), SIZES)
def test_the_sizes_counted_are_those_drawn(mean, variance, rng):
    size, chance = size_distribution(mean, variance)
    assert chance.sum() == pytest.approx(1) and (np.diff(size) > 0).all() and size[0] >= 1
    drawn = np.maximum(1, np.round(rng.normal(mean, variance**0.5, 20_000)))
    assert float(chance @ size) == pytest.approx(drawn.mean(), abs=4 * (variance / 20_000) ** 0.5 + 1e-9)
    assert float(chance @ (1 / size)) == pytest.approx((1 / drawn).mean(), rel=0.02)


@pytest.mark.parametrize(("size", "share"), [(10, 0.1001), (10, 0.15), (2, 0.9), (1000, 0.0011), (1000, 0.5)])
def test_the_binomial_given_one_has_the_share_asked_for(size, share):
    """Against the sum over its distribution, which the closed form is not used for."""
    p = binomial_rate(size, share)
    count = np.arange(1, size + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log(size - count + 1) - np.log(count))])[1:]
    mass = np.exp(choose + count * np.log(p) + (size - count) * np.log1p(-p))
    assert float(count @ mass / mass.sum() / size) == pytest.approx(share, rel=1e-9)
    assert mean_share(size, p) == pytest.approx(share, rel=1e-12)


def test_where_one_witness_is_more_already_a_bag_holds_one():
    assert binomial_rate(1, 0.3) == binomial_rate(10, 0.1) == 0 and binomial_rate(10, 1.0) == 1
    assert mean_share(10, 0.0) == 0.1


@pytest.mark.parametrize(("mean", "variance"), SIZES)
@pytest.mark.parametrize("above", [0.0, 0.01, 0.3, 1.0])
def test_the_mean_over_the_sizes_is_the_rate(mean, variance, above):
    least = smallest_rate(mean, variance)
    rate = least + above * (1 - least)
    size, chance = size_distribution(mean, variance)
    share = share_of_bags(mean, variance, rate)
    of_size = [mean_share(k, binomial_rate(k, share)) for k in size.tolist()]
    assert float(chance @ of_size) == pytest.approx(rate, rel=1e-9)
    large = size > 1 / max(share, 1e-9)
    np.testing.assert_allclose(np.array(of_size)[large], share, rtol=1e-9)  # K is another axis


@pytest.mark.parametrize(("mean", "variance", "rate"), [(10, 5, 0.11), (10, 5, 0.15), (50, 5, 0.05), (3, 5, 0.6)])
def test_bags_that_are_drawn_hold_that_share(pool, mean, variance, rate):
    config = MnistBags(mean_bag_size=mean, bag_size_variance=variance, witness_rate=rate)
    bags = sample_bags(config, pool.classes, np.arange(50_000), 6000, Streams("mnist", 1, 0), "bags_train")
    share = (np.add.reduceat(bags.instance_label, bags.offsets[:-1]) / bags.sizes)[bags.label == 1]
    assert share.mean() == pytest.approx(rate, abs=4 * share.std() / len(share) ** 0.5)
    assert share.min() > 0


def test_a_rate_that_no_bag_can_have_is_refused_with_the_smallest(pool):
    few = MnistBags(num_bags=20, test_bags=20, witness_rate=0.05)
    with pytest.raises(UserError, match=r"data\.witness_rate: 0\.05 is not possible .*at least 0\.1062"):
        few.replicate(pool, 0, 1)
    dataclasses.replace(few, witness_rate=0.1062).replicate(pool, 0, 1)
    with pytest.raises(UserError, match=r"expected at least 1$"):
        dataclasses.replace(few, mean_bag_size=1, bag_size_variance=0).check_bags()
