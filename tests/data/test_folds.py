"""Folds of given bags: groups whole, classes even, every repeat another assignment; and replicates made of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from d2l_study.data.collection import TEST, TRAIN, VAL, PatchCollection
from d2l_study.data.folds import (
    fold_replicate,
    grouped_stratified_folds,
    labelled_and_unlabelled,
    partition_of,
    parts_of,
)
from d2l_study.data.pool import Bags
from d2l_study.data.streams import Streams
from d2l_study.errors import UserError

STREAMS = Streams("test", 1, 0)


def collection(label, group=None, size=3, **more) -> PatchCollection:
    """Bags of `size` random 2×2 patches."""
    label = np.array(label, np.int8)
    count = len(label) * size
    instances = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 2), np.uint8)
    truth = np.repeat(label, size)
    bags = Bags(np.arange(0, count + 1, size), np.arange(count), label, truth, label, np.arange(len(label)))
    scaled = instances.reshape(count, 3, -1) / 255
    return PatchCollection(
        "test", instances, truth.astype(np.int64), "0", bags=bags, names=tuple(f"b{i}" for i in range(len(label))),
        group=np.arange(len(label)) if group is None else np.array(group), group_names=(),
        xy=np.zeros((count, 2)), image=np.full(count, -1), truths={"other": 1 - truth},
        sums=np.stack([scaled.mean(2), (scaled**2).mean(2)], axis=1), **more,
    )  # fmt: skip


def test_bags_of_their_own_are_dealt_evenly_in_each_class():
    label = np.array([1] * 41 + [0] * 39)
    fold = grouped_stratified_folds(label, np.arange(80), 10, STREAMS)
    assert set(np.bincount(fold)) == {8}
    assert set(np.bincount(fold[label == 1])) == {4, 5}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_folds_and_folds_hold_equally_many(seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 17, 120)
    label = rng.integers(0, 2, 120)
    fold = grouped_stratified_folds(label, group, 5, Streams("test", seed, 0))
    held = [set(fold[group == g]) for g in np.unique(group)]
    assert all(len(folds) == 1 for folds in held)
    groups = np.bincount([folds.pop() for folds in held], minlength=5)
    assert groups.max() - groups.min() <= 1


def test_pairs_of_tissue_cores_differ_in_every_repeat_and_hold_both_classes():
    group = np.repeat(np.arange(10), 5)
    label = np.tile([0, 0, 0, 1, 1], 10)
    label[group == 9] = 0  # one core is benign only
    seen = set()
    for repeat in range(8):
        fold = grouped_stratified_folds(label, group, 5, STREAMS, repeat)
        parts = [frozenset(np.unique(group[fold == f]).tolist()) for f in range(5)]
        assert all(len(part) == 2 for part in parts)
        assert all(set(label[fold == f]) == {0, 1} for f in range(5))
        seen.add(frozenset(parts))
    assert len(seen) == 8


def test_an_assignment_depends_on_its_repeat_alone():
    label, group = np.tile([0, 1], 20), np.arange(40)
    later = grouped_stratified_folds(label, group, 4, STREAMS, 3)
    assert np.array_equal(later, grouped_stratified_folds(label, group, 4, STREAMS, 3))
    assert not np.array_equal(later, grouped_stratified_folds(label, group, 4, STREAMS, 2))
    assert not np.array_equal(later, grouped_stratified_folds(label, group, 4, Streams("test", 2, 0), 3))


def test_more_folds_than_groups_are_refused():
    with pytest.raises(UserError, match=r"data.folds: 5 is more than the 4 groups"):
        grouped_stratified_folds(np.tile([0, 1], 4), np.repeat(np.arange(4), 2), 5, STREAMS)


def test_each_bag_is_tested_once_in_a_repeat_and_never_trained_on_then():
    data = collection([0, 1] * 10)
    tested = []
    for number in range(5):
        r = fold_replicate(data, number, base_seed=1, folds=5)
        assert (r.number, r.repeat, r.fold) == (number, 0, number)
        parts = [set(bags.number.tolist()) for bags in (r.train, r.val, r.test)]
        assert set.union(*parts) == set(range(20)) and sum(map(len, parts)) == 20
        tested += r.test.number.tolist()
    assert sorted(tested) == list(range(20))
    again = fold_replicate(data, 7, base_seed=1, folds=5)
    assert (again.repeat, again.fold) == (1, 2)


def test_a_fold_is_normalised_by_its_own_training_pixels():
    data = collection([0, 1] * 6)
    r = fold_replicate(data, 2, base_seed=1, folds=3)
    pixels = data.instances[r.train.instance] / 255
    assert r.mean == pytest.approx(pixels.mean((0, 2, 3)))
    assert r.std == pytest.approx(pixels.std((0, 2, 3)))


def test_test_instances_know_their_bag_and_all_their_truths():
    data = collection([0, 1] * 6)
    r = fold_replicate(data, 1, base_seed=1, folds=3)
    singles = r.test_instances
    assert singles.instance.tolist() == r.test.instance.tolist()
    assert np.array_equal(singles.number, singles.instance // 3)
    assert np.array_equal(singles.label, data.bags.label[singles.number])
    assert np.array_equal(r.test_truths["other"], 1 - singles.label)


def test_fewer_training_bags_are_a_stratified_part_of_more():
    label = np.array([1] * 30 + [0] * 10)
    before: set[int] = set()
    for count in (4, 8, 20, 40):
        chosen, others = labelled_and_unlabelled(np.arange(40), label, count, 0, np.random.default_rng(3))
        assert before <= set(chosen.tolist()) and len(chosen) == count and not len(others)
        assert label[chosen].sum() == pytest.approx(0.75 * count, abs=1)
        before = set(chosen.tolist())
    data = collection([0, 1] * 10)
    few = fold_replicate(data, 0, 1, 5, num_bags=4)
    assert len(few.train) == 4 and few.train.label.sum() == 2
    assert np.array_equal(few.test.number, fold_replicate(data, 0, 1, 5).test.number)
    with pytest.raises(UserError, match=r"data.num_bags: 13 is more than the 12 training bags"):
        fold_replicate(data, 0, 1, 5, num_bags=13)


def test_unlabelled_bags_are_what_fewer_training_bags_leave_over():
    data = collection([1, 1, 1, 0] * 10, size=2)
    made = {(n, m): fold_replicate(data, 3, 1, 5, n, m) for n, m in ((4, 0), (4, 8), (4, 20), (8, 8))}
    everything = set(fold_replicate(data, 3, 1, 5).train.number.tolist())
    for (n, m), replicate in made.items():
        labelled, unlabelled = (set(bags.number.tolist()) for bags in (replicate.train, replicate.unlabelled))
        assert (len(labelled), len(unlabelled)) == (n, m)
        assert labelled | unlabelled <= everything and labelled.isdisjoint(unlabelled)
        assert np.array_equal(replicate.train.number, made[4, 0].train.number) or n == 8
        assert np.array_equal(replicate.mean, made[4, 0].mean) or n == 8
        for values in (
            replicate.unlabelled.label,
            replicate.unlabelled.instance_label,
            replicate.unlabelled.true_label,
        ):
            assert set(values.tolist()) <= {-1}
    assert np.array_equal(made[4, 8].unlabelled.number, made[8, 8].unlabelled.number)
    assert np.array_equal(made[4, 8].unlabelled.number, made[4, 20].unlabelled.number[:8])
    assert data.bags.label[made[4, 8].unlabelled.number].sum() == pytest.approx(6, abs=1)


@pytest.mark.parametrize(
    ("n", "m", "message"),
    [(4, 21, r"unlabelled_bags: 21 is too many: .* data.num_bags 4 leaves 20 over; expected at most 24 in both"),
     (None, 1, r"data.num_bags null leaves no training bag over")],
)  # fmt: skip
def test_more_unlabelled_bags_than_are_left_over_are_refused(n, m, message):
    with pytest.raises(UserError, match=message):
        fold_replicate(collection([0, 1] * 20), 0, 1, 5, n, m)


def test_training_bags_of_one_class_are_refused_before_training():
    with pytest.raises(UserError, match=r"fold 0: all 6 training bags are negative"):
        fold_replicate(collection([0] * 18), 0, base_seed=1, folds=3)


def test_bags_without_instances_are_named():
    data = collection([0, 1] * 6)
    kept = data.keep(np.arange(36) >= 3)  # bag 0 loses all
    with pytest.raises(UserError, match="without an instance: b0"):
        for number in range(3):
            fold_replicate(kept, number, base_seed=1, folds=3)


def test_folds_of_the_users_are_taken_as_they_are():
    fixed = np.repeat(np.arange(4), 3)
    data = collection([0, 1] * 6, fold=fixed)
    for number in (1, 5):  # the same fold of two repeats
        train, val, test, repeat, fold = parts_of(data, number, 1, folds=10)
        assert (repeat, fold) == divmod(number, 4)
        assert set(fixed[test]) == {1} and set(fixed[val]) == {2} and set(fixed[train]) == {0, 3}


def test_a_split_of_the_users_is_taken_as_it_is_and_lacks_at_most_validation():
    part = np.array([TRAIN] * 8 + [VAL] * 2 + [TEST] * 2, np.int8)
    data = collection([0, 1] * 6, part=part)
    train, val, test, repeat, _ = parts_of(data, 3, 1, folds=10)
    assert (train.tolist(), val.tolist(), test.tolist(), repeat) == (list(range(8)), [8, 9], [10, 11], 3)
    part = np.array([TRAIN] * 10 + [TEST] * 2, np.int8)
    train, val, test, _, _ = parts_of(dataclasses.replace(data, part=part), 0, 1, folds=5)
    assert len(val) == 2 and set(train) | set(val) == set(range(10)) and test.tolist() == [10, 11]
    assert set(data.bags.label[val]) == {0, 1}


def test_folds_of_the_user_are_counted_from_the_data_and_a_split_has_none():
    given = collection([0, 1] * 6, fold=np.arange(12) % 4)
    assert partition_of(given, 10) == ("given folds", 4)
    assert [parts_of(given, number, 1, folds=10)[3:] for number in (3, 4)] == [(0, 3), (1, 0)]
    split = collection([0, 1] * 6, part=np.repeat([TRAIN, VAL, TEST], 4).astype(np.int8))
    assert partition_of(split, 10) == ("given split", None)
    assert partition_of(collection([0, 1] * 6), 10) == ("dealt folds", 10)
    assert partition_of(collection([0, 1] * 6, fold=np.stack([np.arange(12) % 4, np.arange(12) // 3])), 10) == (
        "given partitions", 4)  # fmt: skip
    parts = np.array([[TRAIN] * 8 + [VAL] * 2 + [TEST] * 2, [TEST] * 4 + [VAL] * 2 + [TRAIN] * 6], np.int8)
    assert partition_of(collection([0, 1] * 6, part=parts), 10) == ("given folds", 2)
    parts[0, 0] = TEST  # a bag that both test
    assert partition_of(collection([0, 1] * 6, part=parts), 10) == ("given splits", None)
