"""MNIST bags: what the method page says about them, on real MNIST."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from d2l_study.data import MnistBags, Streams
from d2l_study.data.mnist_bags import sample_bags
from d2l_study.data.pool import Bags, Pool
from d2l_study.data.witnesses import at_least_one
from d2l_study.errors import UserError

SMALL = MnistBags(num_bags=60, test_bags=80)
FIELDS = ("offsets", "instance", "label", "instance_label", "true_label")


def same(a: Bags, b: Bags) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


def first(bags: Bags, count: int) -> Bags:
    end = bags.offsets[count]
    return Bags(bags.offsets[: count + 1], bags.instance[:end], bags.label[:count], bags.instance_label[:end],
                bags.true_label[:count])  # fmt: skip


def draw(pool: Pool, config: MnistBags, count: int, stream: str = "bags_train", replicate: int = 0) -> Bags:
    return sample_bags(config, pool.classes, np.arange(50_000), count, Streams("mnist", 1, replicate), stream)


def test_bags_of_50_are_the_first_50_of_100(pool):
    fifty = dataclasses.replace(SMALL, num_bags=50).replicate(pool, 3, 1)
    hundred = dataclasses.replace(SMALL, num_bags=100).replicate(pool, 3, 1)
    assert same(fifty.train, first(hundred.train, 50))
    assert len(fifty.val) == 25 and len(hundred.val) == 50
    assert same(fifty.val, first(hundred.val, 25))
    assert same(fifty.test, hundred.test)
    assert same(fifty.test_instances, hundred.test_instances)


def test_bags_are_the_same_whatever_was_drawn_before(pool):
    """A process keeps the bags that it has drawn and draws only those that it lacks."""
    base_seed = 71  # of no other test
    for bags in (20, 60, 40, 60):
        config = dataclasses.replace(SMALL, num_bags=bags)
        streams = Streams("mnist", base_seed, 0)
        alone = sample_bags(config, pool.classes, np.arange(50_000), bags, streams, "bags_train")
        assert same(config.replicate(pool, 0, base_seed).train, alone)
    other = dataclasses.replace(SMALL, mean_bag_size=20.0).replicate(pool, 0, base_seed)
    assert not np.array_equal(other.train.sizes, SMALL.replicate(pool, 0, base_seed).train.sizes)


def test_replicates_and_base_seeds_draw_other_bags(pool):
    drawn = [SMALL.replicate(pool, r, seed) for r, seed in ((0, 1), (1, 1), (0, 2))]
    for part in ("train", "val", "test"):
        for i in range(3):
            for j in range(i):
                assert not np.array_equal(getattr(drawn[i], part).instance, getattr(drawn[j], part).instance)
    assert same(drawn[0].train, SMALL.replicate(pool, 0, 1).train)


def test_train_val_and_test_images_are_disjoint(pool):
    config = MnistBags(num_bags=400, val_bags=400, test_bags=400, mean_bag_size=50)
    replicate = config.replicate(pool, 0, 1)
    train, val, test = (set(bags.instance.tolist()) for bags in (replicate.train, replicate.val, replicate.test))
    assert train.isdisjoint(val) and train.isdisjoint(test) and val.isdisjoint(test)
    assert max(train) < 50_000 <= min(val) and max(val) < 60_000 <= min(test)


def test_unlabelled_bags_are_nested_the_same_for_every_n_and_change_no_others(pool):
    plain = SMALL.replicate(pool, 3, 1)
    few, many, of_more = (
        dataclasses.replace(SMALL, unlabelled_bags=m, num_bags=n).replicate(pool, 3, 1)
        for m, n in ((40, 60), (150, 60), (150, 200))
    )
    assert len(plain.unlabelled) == 0 and len(few.unlabelled) == 40
    for part in ("train", "val", "test", "test_instances"):
        assert same(getattr(plain, part), getattr(few, part)) and same(getattr(plain, part), getattr(many, part))
    assert np.array_equal(first(many.unlabelled, 40).instance, few.unlabelled.instance)
    assert same(many.unlabelled, of_more.unlabelled)
    assert not np.array_equal(many.unlabelled.instance[:100], many.train.instance[:100])


def test_unlabelled_bags_are_drawn_as_training_bags_are_and_their_labels_are_forgotten(pool):
    config = MnistBags(unlabelled_bags=1000, witness_rate=0.4, num_bags=4, test_bags=4)
    replicate = config.replicate(pool, 0, 1)
    bags = replicate.unlabelled
    for values in (bags.label, bags.instance_label, bags.true_label):
        assert set(values.tolist()) == {-1}
    assert bags.instance.max() < 50_000  # no image of validation or test
    assert bags.sizes.mean() == pytest.approx(10, abs=0.25)
    nines = np.add.reduceat(pool.classes[bags.instance] == 9, bags.offsets[:-1])
    positive = nines > 0
    assert positive.tolist() == [i % 2 == 1 for i in range(1000)]
    assert (nines / bags.sizes)[positive].mean() == pytest.approx(0.4, abs=0.03)


def test_each_test_image_is_once_a_bag_of_one(pool):
    alone = SMALL.replicate(pool, 0, 1).test_instances
    assert np.array_equal(alone.instance, np.arange(60_000, 70_000)) and (alone.sizes == 1).all()
    assert np.array_equal(alone.label, pool.classes[60_000:] == 9)


@pytest.mark.parametrize("digit", [9, 0])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_positive_bags_hold_the_digit_and_negative_bags_do_not(pool, digit, size):
    config = MnistBags(num_bags=300, mean_bag_size=size, positive_digit=digit, test_bags=300)
    replicate = config.replicate(pool, 0, 1)
    for bags in (replicate.train, replicate.val, replicate.test):
        holds = [
            (pool.classes[bags.instance[a:b]] == digit).any()
            for a, b in zip(bags.offsets[:-1], bags.offsets[1:], strict=True)
        ]
        assert np.array_equal(holds, bags.label == 1)
        assert np.array_equal(bags.instance_label, pool.classes[bags.instance] == digit)
        assert (bags.sizes >= 1).all()


def test_classes_alternate(pool):
    assert draw(pool, SMALL, 9).label.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("prevalence", [0.1, 0.25, 1 / 3, 0.7, 0.9])
def test_prevalence_holds_in_every_stretch_of_bags(pool, prevalence):
    label = draw(pool, dataclasses.replace(SMALL, prevalence=prevalence), 300).label
    assert np.abs(np.cumsum(label) - prevalence * np.arange(1, 301)).max() < 1 + 1e-6
    assert label.sum() == pytest.approx(300 * prevalence)


def test_changing_the_prevalence_keeps_bag_sizes(pool):
    few = draw(pool, dataclasses.replace(SMALL, prevalence=0.2), 100)
    assert np.array_equal(few.sizes, draw(pool, SMALL, 100).sizes)


@pytest.mark.parametrize(("mean", "variance"), [(10, 5.0), (50, 5.0), (20, 9.0)])
def test_bag_sizes_are_a_rounded_normal(pool, mean, variance):
    sizes = draw(pool, MnistBags(mean_bag_size=mean, bag_size_variance=variance), 4000).sizes
    assert sizes.mean() == pytest.approx(mean, abs=4 * (variance / 4000) ** 0.5)
    # Rounding adds 1/12 to the variance; its estimate has the relative deviation √(2/n).
    assert sizes.var() == pytest.approx(variance + 1 / 12, rel=4 * (2 / 4000) ** 0.5)
    edges = np.arange(mean - 4, mean + 5)
    mass = stats.norm(mean, variance**0.5).cdf(edges + 0.5) - stats.norm(mean, variance**0.5).cdf(edges - 0.5)
    counts = np.array([(sizes == edge).sum() for edge in edges])
    rest = 4000 - counts.sum(), 1 - mass.sum()
    assert stats.chisquare([*counts, rest[0]], 4000 * np.array([*mass, rest[1]])).pvalue > 1e-3


def test_the_size_says_nothing_about_the_label(pool):
    bags = draw(pool, MnistBags(mean_bag_size=5), 4000)
    assert stats.mannwhitneyu(bags.sizes[bags.label == 1], bags.sizes[bags.label == 0]).pvalue > 1e-3


def test_no_variance_means_exactly_k(pool):
    assert set(draw(pool, MnistBags(mean_bag_size=7, bag_size_variance=0), 50).sizes) == {7}


def test_bags_of_one(pool):
    bags = draw(pool, MnistBags(mean_bag_size=1, bag_size_variance=0), 200)
    assert set(bags.sizes) == {1} and np.array_equal(bags.label, bags.instance_label)
    assert draw(pool, MnistBags(mean_bag_size=1), 200).sizes.min() == 1  # and never 0


@pytest.mark.parametrize(("size", "rate"), [(10, 0.1), (4, 0.5), (30, 0.02), (1, 0.3), (10_000, 0.1), (400, 0.999)])
def test_witness_counts_equal_rejection_sampling(size, rate, rng):
    """Binomial(size, rate) redrawn until it is at least 1, against the inversion of the truncated distribution."""
    ours = np.array([at_least_one(rng, size, rate) for _ in range(4000)])
    drawn = rng.binomial(size, rate, int(6000 / (1 - (1 - rate) ** size)))
    rejected = drawn[drawn >= 1][:4000]
    assert len(rejected) == 4000 and ours.min() >= 1 and ours.max() <= size
    edges = np.unique(np.quantile(rejected, np.linspace(0, 1, 9)))
    table = np.array([np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
                      for values in (ours, rejected)])  # fmt: skip
    table = table[:, table.sum(0) >= 10]
    if table.shape[1] > 1:
        assert stats.chi2_contingency(table).pvalue > 1e-3
    else:
        assert size == 1


def test_natural_bags_equal_drawing_whole_bags_until_one_holds_a_nine(pool, rng):
    bags = draw(pool, MnistBags(mean_bag_size=6, bag_size_variance=0, prevalence=0.99), 1500)
    ours = np.add.reduceat(bags.instance_label, bags.offsets[:-1])[bags.label == 1]
    images = rng.choice(50_000, (6000, 6))
    natural = (pool.classes[images] == 9).sum(1)
    natural = natural[natural >= 1]
    table = [np.bincount(np.minimum(counts, 4), minlength=5)[1:] for counts in (ours, natural)]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    # The other digits of positive and of negative bags keep their natural shares.
    others = pool.classes[bags.instance][bags.instance_label == 0]
    share = np.bincount(pool.classes[:50_000], minlength=10)[:9]
    assert stats.chisquare(np.bincount(others, minlength=9), share / share.sum() * len(others)).pvalue > 1e-3


def test_witness_rate_one_fills_positive_bags(pool):
    bags = draw(pool, MnistBags(witness_rate=1.0), 40)
    assert np.array_equal(bags.instance_label, np.repeat(bags.label, bags.sizes))


def test_label_noise_flips_training_and_validation_labels_only(pool):
    clean = dataclasses.replace(SMALL, num_bags=1000, val_bags=1000, test_bags=1000)
    noisy = dataclasses.replace(clean, label_noise=0.3)
    a, b = clean.replicate(pool, 0, 1), noisy.replicate(pool, 0, 1)
    assert same(a.test, b.test) and same(a.test_instances, b.test_instances)
    for before, after in ((a.train, b.train), (a.val, b.val)):
        assert np.array_equal(before.instance, after.instance)
        assert np.array_equal(before.instance_label, after.instance_label)
        assert np.array_equal(before.label, after.true_label)
        flipped = after.label != after.true_label
        for truth in (0, 1):  # symmetric
            assert stats.binomtest(int(flipped[after.true_label == truth].sum()), 500, 0.3).pvalue > 1e-3
    assert not np.array_equal(a.train.label, b.train.label)


def test_label_noise_is_nested(pool):
    """A label flipped at 10 % is flipped at 30 % too, so that curves over label noise are paired."""
    flips = [
        (bags.label != bags.true_label)
        for bags in (draw(pool, dataclasses.replace(SMALL, label_noise=noise), 500) for noise in (0.1, 0.3))
    ]
    assert (flips[1] >= flips[0]).all() and flips[0].any()


def test_validation_bags_default_to_half_of_n_and_at_least_20():
    assert [MnistBags(num_bags=n).resolved().val_bags for n in (2, 40, 41, 100, 500)] == [20, 20, 20, 50, 250]
    assert MnistBags(num_bags=500, val_bags=7).resolved().val_bags == 7
    assert MnistBags(num_bags=100).resolved().resolved() == MnistBags(num_bags=100).resolved()


def test_a_relative_root_is_resolved_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = MnistBags(root="mine").resolved()
    assert config.root == str(tmp_path / "mine")
    assert config.identity() == MnistBags().resolved().identity()  # a path is in no identity


def test_a_data_set_without_the_positive_digit_is_refused(pool):
    without = dataclasses.replace(pool, classes=np.where(pool.classes == 9, 4, pool.classes))
    with pytest.raises(UserError, match=r"data\.positive_digit: 9 is the class of 0 of the 50000 images"):
        SMALL.replicate(without, 0, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_bags", 1), ("num_bags", 2.5), ("mean_bag_size", 0.5), ("bag_size_variance", -1), ("val_bags", -1),
     ("positive_digit", 10), ("witness_rate", 0), ("witness_rate", 1.1), ("prevalence", 0), ("prevalence", 1),
     ("label_noise", 0.5), ("label_noise", -0.1), ("dataset", "minst"), ("verify", "yes")],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_by_name(key, value):
    with pytest.raises(UserError, match=rf"^{key}: .* is not allowed; expected "):
        MnistBags(**{key: value})


def test_select_gives_the_bags_in_the_order_asked_for():
    bags = Bags(np.array([0, 2, 5, 6]), np.array([10, 11, 20, 21, 22, 30]), np.zeros(3, np.int8), np.zeros(6, np.int8))
    positions, bag_index = bags.select([2, 0, 1, 0])
    assert bags.instance[positions].tolist() == [30, 10, 11, 20, 21, 22, 10, 11]
    assert bag_index.tolist() == [0, 1, 1, 2, 2, 2, 3, 3]
