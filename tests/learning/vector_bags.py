"""Bags of vectors for tests, drawn: a positive bag holds one or two instances that lie far along one direction."""

import numpy as np

from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.data.streams import Streams


def draw_bags(rng, first, count, dimensions, shift):
    """Vectors (I, D) of `count` bags of 3 to 8 instances, classes by turns, and the bags, whose pool begins there."""
    sizes = rng.integers(3, 9, count)
    label = (np.arange(count) % 2).astype(np.int8)
    vectors = rng.normal(size=(sizes.sum(), dimensions)) * np.linspace(0.5, 4, dimensions) + 3
    truth = np.zeros(sizes.sum(), np.int8)
    ends = np.cumsum(sizes)
    for b in np.flatnonzero(label):
        positive = ends[b] - 1 - np.arange(rng.integers(1, 3))
        vectors[positive, 0] += shift
        truth[positive] = 1
    offsets = np.concatenate([[0], ends])
    return vectors, Bags(offsets, first + np.arange(len(truth)), label, truth, label)


def vector_replicates(trains, val=10, test=10, dimensions=7, shift=4.0, dtype=np.float16, unit_length=False, seed=5):
    """A replicate of drawn bags for each number of training bags, all of one pool; normalised by the training part, as
    the data sets of features do."""
    rng = np.random.default_rng(seed)
    drawn, count = [], 0
    instances = []
    for train in trains:
        parts = []
        for bags in (train, val, test):
            vectors, found = draw_bags(rng, count, bags, dimensions, shift)
            instances.append(vectors)
            count += len(vectors)
            parts.append(found)
        drawn.append(parts)
    vectors = np.concatenate(instances).astype(dtype)
    truth = np.concatenate([bags.instance_label for parts in drawn for bags in parts]).astype(np.int64)
    pool, replicates = Pool("vectors", vectors, truth, "none"), []
    for number, parts in enumerate(drawn):
        of_train = vectors[parts[0].instance].astype(np.float64)
        mean, std = of_train.mean(0), of_train.std(0)
        if unit_length:
            mean, std = np.zeros(dimensions), np.ones(dimensions)
        streams = Streams("vectors", 3, number)
        replicates.append(
            Replicate(number, pool, *parts, parts[2].singles(), mean, std, streams, unit_length=unit_length)
        )
    return replicates


def vector_replicate(train=16, **more):
    """One of them."""
    return vector_replicates([train], **more)[0]
