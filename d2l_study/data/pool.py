"""One pool of instances per data set, and bags as index arrays into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from d2l_study.data.streams import Streams

UNKNOWN = -1
"""The instance label of an instance whose truth is not known."""


@dataclass(frozen=True)
class Pool:
    """All instances of a data set, shared and never copied.

    instances: (N, C, H, W) uint8 patches or (N, D) float feature vectors, possibly memory-mapped; classes: (N,) int64
    class of each instance (for MNIST the digit); checksum: of the content, part of every configuration's identity.
    """

    name: str
    instances: np.ndarray
    classes: np.ndarray
    checksum: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one instance: (channels, height, width) of a patch, (D,) of a feature vector."""
        return self.instances.shape[1:]


@dataclass(frozen=True)
class Bags:
    """Bags over a pool, as index arrays.

    offsets: (B + 1,) int64, bag b holds positions offsets[b]:offsets[b + 1] of the following arrays;
    instance: (I,) int64 indices into the pool; label: (B,) int8 bag labels as training sees them;
    instance_label: (I,) int8 truth, −1 unknown (evaluation only); true_label: (B,) int8 before label noise.
    number: (B,) int64, where bags are given rather than drawn: each bag's index in the whole data set, for bags of
    one that of the bag which the instance stands in; empty where bags are drawn.
    """

    offsets: np.ndarray
    instance: np.ndarray
    label: np.ndarray
    instance_label: np.ndarray
    true_label: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))
    number: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.label)

    @property
    def sizes(self) -> np.ndarray:
        """(B,) number of instances of each bag."""
        return np.diff(self.offsets)

    @cached_property
    def distinct_instances(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices into the pool that `instance` has, each once and sorted, and (I,) where each position's is."""
        distinct, inverse = np.unique(self.instance, return_inverse=True)
        return distinct, inverse

    @classmethod
    def of_one(cls, instance: np.ndarray, instance_label: np.ndarray) -> Bags:
        """Each instance as a bag of its own, which is how a bag classifier labels instances."""
        label = instance_label.astype(np.int8)
        return cls(np.arange(len(instance) + 1), instance.astype(np.int64), label, label, label)

    @classmethod
    def empty(cls) -> Bags:
        """No bags."""
        none = np.empty(0, np.int8)
        return cls(np.zeros(1, np.int64), np.empty(0, np.int64), none, none)

    def without_labels(self) -> Bags:
        """The same bags with every label of bags and instances forgotten (`UNKNOWN`)."""
        bags, instances = np.full(len(self), UNKNOWN, np.int8), np.full(len(self.instance), UNKNOWN, np.int8)
        return dataclasses.replace(self, label=bags, instance_label=instances, true_label=bags)

    @property
    def bag_of(self) -> np.ndarray:
        """(I,) which bag, 0 … B − 1, each instance stands in."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def singles(self) -> Bags:
        """Each instance as a bag of one, with the number of the bag that it stands in."""
        number = self.number[self.bag_of] if len(self.number) else self.number
        return dataclasses.replace(Bags.of_one(self.instance, self.instance_label), number=number)

    def subset(self, bags: Sequence[int] | np.ndarray) -> Bags:
        """The named bags alone, in that order."""
        bags = np.asarray(bags, np.int64)
        positions, _ = self.select(bags)
        return Bags(
            np.concatenate([[0], np.cumsum(self.sizes[bags])]).astype(np.int64), self.instance[positions],
            self.label[bags], self.instance_label[positions], *(v[bags] if len(v) else v for v in
            (self.true_label, self.number)),
        )  # fmt: skip

    def first(self, count: int) -> Bags:
        """The first bags, as views of these arrays."""
        end = self.offsets[count]
        return Bags(
            self.offsets[: count + 1], self.instance[:end], self.label[:count], self.instance_label[:end],
            self.true_label[:count], self.number[:count],
        )  # fmt: skip

    def followed_by(self, others: Bags) -> Bags:
        """These bags, and then others of the same pool."""
        pairs = ((getattr(self, f.name), getattr(others, f.name)) for f in dataclasses.fields(self)[1:])
        offsets = np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]])
        return Bags(offsets, *(np.concatenate(pair) for pair in pairs))

    def select(self, bags: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positions (into `instance`) of the named bags' instances in order, and (same length) which of
        the named bags, 0 … len(bags) − 1, each belongs to."""
        bags = np.asarray(bags)
        sizes = self.sizes[bags]
        bag_index = np.repeat(np.arange(len(bags)), sizes)
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        within = np.arange(len(bag_index)) - start[bag_index]
        return self.offsets[bags][bag_index] + within, bag_index


@dataclass(frozen=True)
class Replicate:
    """One replicate of an experiment: new bags, new initialisation; a fold is a replicate too.

    mean, std: the input's normalisation (part of the method, since ε and the noise are measured in normalised units):
    of patches (C,), of the pixel values in units of 1/255; of feature vectors (D,), in the features' own units.
    unit_length: each vector is divided by its L2 norm instead; then mean is 0 and std 1. test_instances: bags of one,
    for the instance metrics; test_truths: further instance truths by name, (test instances,) int8 each, −1 unknown.
    mean_train_bags: of a fold, the mean number of training bags of the data set's folds, rounded up. unlabelled:
    further bags for training whose labels are not known (`UNKNOWN`); the input's normalisation is not made of them.
    """

    number: int
    pool: Pool
    train: Bags
    val: Bags
    test: Bags
    test_instances: Bags
    mean: np.ndarray
    std: np.ndarray
    streams: Streams
    repeat: int = 0
    fold: int | None = None
    test_truths: Mapping[str, np.ndarray] = field(default_factory=dict)
    unit_length: bool = False
    mean_train_bags: int | None = None
    unlabelled: Bags = field(default_factory=Bags.empty)

    @property
    def epoch_bags(self) -> int:
        """The training bags of an epoch, by which a length in epochs becomes steps: the same number in all folds, so
        that all replicates of a configuration train for equally many steps."""
        return len(self.train) if self.mean_train_bags is None else self.mean_train_bags
