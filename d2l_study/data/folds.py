"""Cross-validation of given bags: stratified by bag label, groups never split, another assignment per repeat.

A fold is a replicate: replicate = repeat × folds + fold. The test fold is `fold`, the next one validates, the others
train; more replicates are further repeats.
"""

from __future__ import annotations

import math

import numpy as np

from d2l_study.data.collection import TEST, TRAIN, VAL, BagCollection
from d2l_study.data.pool import Replicate
from d2l_study.data.streams import Streams
from d2l_study.errors import UserError, listed

_DEALS = 8
"""Random assignments of which the best stratified one is taken."""


def grouped_stratified_folds(
    label: np.ndarray, group: np.ndarray, folds: int, streams: Streams, repeat: int = 0
) -> np.ndarray:
    """(B,) fold 0 … folds − 1 of each bag.

    label: (B,) 0 or 1; group: (B,) any whole numbers. No group is in two folds; the folds hold equally many groups,
    give or take one, and classes as evenly as groups allow (exactly, to within one bag, where each bag is a group of
    its own). Repeat r's assignment depends on the stream `folds` and r alone, and differs as a partition from those of
    the earlier repeats if one of 20 attempts does. `UserError` if there are fewer groups than folds.
    """
    names, group = np.unique(group, return_inverse=True)
    if len(names) < folds:
        raise UserError(
            f"data.folds: {folds} is more than the {len(names)} group{'s' if len(names) != 1 else ''} of bags that may "
            "be separated (patients, tissue cores; a bag without a group is one of its own)"
        )
    counts = np.stack([np.bincount(group[label == c], minlength=len(names)) for c in (0, 1)], axis=1)
    seen: set[frozenset[frozenset[int]]] = set()
    fold_of_group = np.zeros(len(names), np.int64)
    for r in range(repeat + 1):
        for attempt in range(20):  # few groups have few partitions; then repeats share some
            fold_of_group = _deal(counts, folds, streams.rng("folds", r * 20 + attempt))
            partition = frozenset(frozenset(np.flatnonzero(fold_of_group == f).tolist()) for f in range(folds))
            if partition not in seen:
                break
        seen.add(partition)
    return fold_of_group[group]


def _deal(counts: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(groups,) fold of each group. counts: (groups, 2) bags of each class in it."""
    if (counts.sum(axis=1) == 1).all():
        dealt = np.concatenate([rng.permutation(np.flatnonzero(counts[:, c])) for c in (1, 0)])
        fold = np.empty(len(counts), np.int64)
        fold[dealt] = np.arange(len(dealt)) % folds  # the second class goes on where the first ended
        return rng.permutation(folds)[fold]
    share = counts / np.maximum(counts.sum(axis=0), 1)
    most = -(-len(counts) // folds)
    full = len(counts) - (most - 1) * folds  # that many folds hold `most` groups, the others one less
    best, found = np.inf, np.zeros(len(counts), np.int64)
    for _ in range(_DEALS):
        fold, held, load = np.zeros(len(counts), np.int64), np.zeros(folds, np.int64), np.zeros((folds, 2))
        for g in rng.permutation(len(counts)):
            limit = most if np.sum(held == most) < full else most - 1
            cost = np.where(held < limit, np.sum((load + share[g]) ** 2 - load**2, axis=1), np.inf)
            f = int(rng.choice(np.flatnonzero(cost == cost.min())))
            fold[g], held[f] = f, held[f] + 1
            load[f] += share[g]
        if (total := float(np.sum(load**2))) < best - 1e-12:
            best, found = total, fold
    return found


def partition_of(collection: BagCollection, folds: int) -> tuple[str, int | None]:
    """Where the parts of a replicate come from, and how many folds there are.

    `dealt folds`: made here, other ones in each repeat. Of the user, whatever data.folds says: `given folds`, the same
    in each repeat (several splits that test no bag twice are such folds); `given partitions`, folds that each repeat
    has its own of; `given split`, training and test parts, no folds; `given splits`, such parts for each replicate.
    """
    if collection.part is not None:
        tests = np.atleast_2d(collection.part) == TEST
        if len(tests) == 1:
            return "given split", None
        return ("given folds", len(tests)) if tests.sum(axis=0).max() == 1 else ("given splits", None)
    if collection.fold is not None:
        repeats = len(np.atleast_2d(collection.fold))
        return "given folds" if repeats == 1 else "given partitions", int(collection.fold.max()) + 1
    return "dealt folds", folds


def parts_of(
    collection: BagCollection, number: int, base_seed: int, folds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Replicate `number`'s training, validation and test bags (indices, sorted), its repeat and its fold. `UserError`
    if the user gave folds or splits for fewer repeats."""
    label, group = collection.bags.label, collection.group
    _, count = partition_of(collection, folds)
    folds = count or folds
    repeat, fold = divmod(number, folds) if count is not None else (number, 0)
    streams = Streams(collection.name, base_seed, 0)
    given, most = _given(collection, count)
    if most is not None and number >= most:
        raise UserError(f"data set {collection.name}: {most} replicates are given by the data's own folds or splits; "
                        f"replicate {number} (from 0) is none of them")  # fmt: skip
    if collection.part is not None and given is not None:
        of = given if given.ndim == 1 else given[number]
        train, val, test = (np.flatnonzero(of == part) for part in (TRAIN, VAL, TEST))
        if not len(val):
            held = grouped_stratified_folds(label[train], group[train], folds, streams, repeat) == 0
            train, val = train[~held], train[held]
        return train, val, test, repeat, fold
    if given is not None:
        fold_of = given if given.ndim == 1 else given[repeat]
    else:
        fold_of = grouped_stratified_folds(label, group, folds, streams, repeat)
    val_fold = (fold + 1) % folds
    train = np.flatnonzero((fold_of != fold) & (fold_of != val_fold))
    return train, np.flatnonzero(fold_of == val_fold), np.flatnonzero(fold_of == fold), repeat, fold


def mean_train_bags(collection: BagCollection, folds: int, num_bags: int | None = None) -> int:
    """The mean number of training bags of the folds (of given splits: of the splits), rounded up; at most `num_bags`.

    Folds of B bags train on B − B/F · 2 bags in the mean, however they are dealt. A given split without validation bags
    holds out a share 1/F of its training bags.
    """
    _, count = partition_of(collection, folds)
    count = count or folds
    mean = len(collection.bags) * (count - 2) / count
    if collection.part is not None:
        parts = np.atleast_2d(collection.part)
        given, named = (parts == TRAIN).sum(axis=1), (parts == VAL).any(axis=1)
        mean = float(np.where(named, given, given - given / count).mean())
    found = math.ceil(mean - 1e-9)
    return found if num_bags is None else min(found, num_bags)


def _given(collection: BagCollection, folds: int | None) -> tuple[np.ndarray | None, int | None]:
    """The parts or folds of the user, and for how many replicates they are; None for any number."""
    given = collection.fold if collection.part is None else collection.part
    if given is None or given.ndim == 1:
        return given, None
    return given, len(given) * (1 if collection.part is not None or folds is None else folds)


def stratified_order(bags: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The bags, (n,) indices, in a random order in which every head and every tail is stratified. label: of all
    bags."""
    shuffled = rng.permutation(bags)
    place = np.empty(len(bags))
    for c in (0, 1):
        mine = label[shuffled] == c
        place[mine] = (np.arange(mine.sum()) + 0.5) / max(1, mine.sum())
    return shuffled[np.argsort(place, kind="stable")]


def labelled_and_unlabelled(
    bags: np.ndarray, label: np.ndarray, count: int | None, unlabelled: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the bags with their labels, sorted (None: all), and `unlabelled` others, (n,) indices each.

    The first come from the head of one order and the others from its tail. So smaller counts give parts of larger ones,
    and the others are the same for every count that leaves them over.
    """
    if count is None:
        return bags, bags[:0]
    order = stratified_order(bags, label, rng)
    return np.sort(order[:count]), order[::-1][:unlabelled]


def fold_replicate(
    collection: BagCollection, number: int, base_seed: int, folds: int, num_bags: int | None = None,
    unlabelled_bags: int = 0,
) -> Replicate:  # fmt: skip
    """One fold of one repeat as a replicate: normalised by its own training bags, which `num_bags` may thin out. Of
    those that are left over, `unlabelled_bags` are its unlabelled ones.

    `UserError` if the training bags are of one class, or fewer than are asked for.
    """
    train, val, test, repeat, fold = parts_of(collection, number, base_seed, folds)
    streams = Streams(collection.name, base_seed, number)
    label = collection.bags.label
    where = f"data set {collection.name}, repeat {repeat}, fold {fold}"
    if num_bags is not None and num_bags > len(train):
        raise UserError(f"data.num_bags: {num_bags} is more than the {len(train)} training bags of {where}")
    left = 0 if num_bags is None else len(train) - num_bags
    if unlabelled_bags > left:
        leaves = "null leaves no training bag over" if num_bags is None else f"{num_bags} leaves {left} over"
        raise UserError(f"data.unlabelled_bags: {unlabelled_bags} is too many: of the {len(train)} training bags of "
                        f"{where}, data.num_bags {leaves}; expected at most {len(train)} in both")  # fmt: skip
    train, unlabelled = labelled_and_unlabelled(train, label, num_bags, unlabelled_bags, streams.rng("subsample"))
    parts = {"training": train, "validation": val, "test": test, "unlabelled": unlabelled}
    for name, part in parts.items():
        if not len(part) and name != "unlabelled":
            raise UserError(f"{where}: no {name} bags")
        empty = [collection.names[b] for b in part if collection.bags.sizes[b] == 0]
        if empty:
            raise UserError(f"{where}: {name} bags without an instance: {listed(empty)}")
    if len(np.unique(label[train])) < 2:
        only = "positive" if label[train[0]] else "negative"
        raise UserError(
            f"{where}: all {len(train)} training bags are {only}; fewer folds, or groups that hold both classes, are "
            "needed"
        )
    train_bags, val_bags, test_bags = (collection.bags.subset(part) for part in (train, val, test))
    mean, std = collection.normalisation(train_bags)
    positions, _ = collection.bags.select(test)
    return Replicate(
        number, collection, train_bags, val_bags, test_bags, test_bags.singles(), mean, std, streams, repeat, fold,
        {name: truth[positions] for name, truth in collection.truths.items()},
        mean_train_bags=mean_train_bags(collection, folds, num_bags),
        unlabelled=collection.bags.subset(unlabelled).without_labels(),
    )  # fmt: skip
