"""MNIST bags (slides 12–13): a bag is positive if it holds at least one 9."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from d2l_study.data import mnist
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.data.streams import Streams
from d2l_study.data.witnesses import at_least_one, binomial_rate, share_of_bags, size_distribution, smallest_rate
from d2l_study.environment import file_errors_as_user_errors, user_path
from d2l_study.errors import UserError
from d2l_study.options import Options, option

KEPT_STREAMS = 320
"""Streams whose bags a process keeps: training, validation and test bags of a hundred replicates. Their bags of 100
images take half a megabyte each."""


@dataclass(frozen=True)
class MnistBags(Options):
    """The `data` section of a space for MNIST bags."""

    dataset: str = option("mnist", "the data set", choices=("mnist",))
    num_bags: int = option(100, "number of training bags n", least=2, most=100_000)
    mean_bag_size: float = option(10.0, "mean number K of instances in a bag", least=1, most=10_000)
    bag_size_variance: float = option(5.0, "variance of the number of instances in a bag", least=0, most=1e8)
    val_bags: int | None = option(
        None, "number of validation bags; null: the larger of 20 and n/2; 0 where each `select` is last", least=0
    )
    val_images: int = option(
        10_000, "how many of the 60,000 training images, the last ones, serve validation bags only",
        least=100, most=59_900, neutral=10_000,
    )  # fmt: skip
    test_bags: int = option(1000, "number of test bags", least=2)
    unlabelled_bags: int = option(
        0, "further training bags whose labels are forgotten, for R_adv; the same ones for every n", least=0,
        most=100_000, neutral=0,
    )  # fmt: skip
    positive_digit: int = option(9, "the digit that makes a bag positive", least=0, most=9)
    witness_rate: float | None = option(
        None, "mean share of the positive digit among the instances of a positive bag, which holds at least one; null: "
        "a natural draw that holds one", above=0.0, most=1.0,
    )  # fmt: skip
    prevalence: float = option(0.5, "share of positive bags", above=0.0, below=1.0)
    label_noise: float = option(0.0, "share of training and validation bag labels flipped", least=0.0, below=0.5)
    root: str | None = option(None, "folder with the user's own IDX files; null: the embedded MNIST", scientific=False)
    verify: bool = option(True, "require the four files to be MNIST's own (md5)", scientific=False)

    TEST_KEYS: ClassVar[tuple[str, ...]] = (
        "mean_bag_size", "bag_size_variance", "test_bags", "positive_digit", "witness_rate", "prevalence",
    )  # fmt: skip
    """The keys that the test bags of a replicate depend on."""

    def resolved(self) -> MnistBags:
        """With every default that depends on other keys made explicit, and the folder as seen from anywhere: a
        worker's current folder is not the user's."""
        val_bags = self.val_bags if self.val_bags is not None else max(20, self.num_bags // 2)
        root = None if self.root is None else str(user_path(self.root, "data.root").absolute())
        return dataclasses.replace(self, val_bags=val_bags, root=root)

    def check_bags(self) -> None:
        """`UserError` if a part would have bags of one class only, or no positive bag can have so few witnesses. Not
        asked on construction: what an earlier version trained can still be read."""
        config = self.resolved()
        for key in ("num_bags", "val_bags", "test_bags"):
            count = getattr(config, key)
            if key == "val_bags" and count == 0:
                continue  # none need none
            positive = int(count * self.prevalence + 1e-9)
            if not 0 < positive < count:
                raise UserError(f"prevalence: {self.prevalence:g} makes {positive} of {count} bags ({key}) positive; "
                                "each class needs at least one")  # fmt: skip
        least = smallest_rate(self.mean_bag_size, self.bag_size_variance)
        if self.witness_rate is not None and self.witness_rate < least - 1e-12:
            shown = math.ceil(least * 1e4) / 1e4
            raise UserError(
                f"witness_rate: {self.witness_rate:g} is not possible with mean_bag_size {self.mean_bag_size:g} and "
                f"bag_size_variance {self.bag_size_variance:g}: a positive bag holds at least one witness, a share of "
                f"{least:.4g} in the mean; expected at least {shown:g}"
            )

    def epoch_bags(self) -> int:
        """As of each of its replicates (`Replicate.epoch_bags`)."""
        return self.num_bags

    def mean_instances(self, limit: int | None) -> float:
        """The expected number of instances of a training bag of which at most `limit` are taken."""
        size, chance = size_distribution(self.mean_bag_size, self.bag_size_variance)
        return float(chance @ (size if limit is None else np.minimum(size, limit)))

    def load_pool(self) -> Pool:
        with file_errors_as_user_errors("data set mnist"):
            return mnist.load(self.root, self.verify)

    def replicate(self, pool: Pool, number: int, base_seed: int) -> Replicate:
        """The bags of one replicate: they depend on no method and, but for their count, not on n."""
        config = self.resolved()
        assert config.val_bags is not None
        try:
            config.check_bags()
        except UserError as error:
            raise UserError(f"data.{error}") from None
        streams = Streams(config.dataset, base_seed, number)
        first_val = mnist.TRAIN_IMAGES - config.val_images
        parts = {
            "bags_train": np.arange(first_val),
            "bags_val": np.arange(first_val, mnist.TRAIN_IMAGES),
            "bags_test": np.arange(mnist.TRAIN_IMAGES, len(pool.classes)),
        }
        counts = {"bags_train": config.num_bags, "bags_val": config.val_bags, "bags_test": config.test_bags}
        for name, part in parts.items():
            hits = np.count_nonzero(pool.classes[part] == config.positive_digit)
            if not 0 < hits < len(part):
                raise UserError(
                    f"data.positive_digit: {config.positive_digit} is the class of {hits} of the {len(part)} images of "
                    f"{name}; expected at least one image of it and one of another class"
                )
        counts["bags_unlabelled"], parts["bags_unlabelled"] = config.unlabelled_bags, parts["bags_train"]
        one = dataclasses.replace(
            config, num_bags=2, val_bags=2, test_bags=2, unlabelled_bags=0
        )  # no bag depends on them
        train, val, test, unlabelled = (
            _drawn(one, pool.checksum, int(part[0]), int(part[-1]) + 1, streams, name).first(counts[name], pool.classes)
            for name, part in parts.items()
        )
        truth = (pool.classes[parts["bags_test"]] == config.positive_digit).astype(np.int8)
        return Replicate(
            number, pool, train, val, test, Bags.of_one(parts["bags_test"], truth),
            np.array([mnist.MEAN]), np.array([mnist.STD]), streams, repeat=number,
            unlabelled=unlabelled.without_labels(),
        )  # fmt: skip


def sample_bags(
    config: MnistBags, classes: np.ndarray, part: np.ndarray, count: int, streams: Streams, stream: str, first: int = 0
) -> Bags:
    """Draw the bags `first` … `count` − 1 of the images `part` (indices into the pool).

    Bag i is drawn by its own generator, so the first 50 of 100 bags are those of a draw of 50. Classes alternate
    in the proportion `prevalence`. A bag's size is drawn before its class is looked at, so that size says nothing
    about the label; then a positive bag holds a number of positive digits drawn from the binomial conditioned on
    at least one, which at the natural rate is a natural draw that happens to hold one, and with a `witness_rate` has
    that mean share (`witnesses`), and a negative bag holds other digits only.
    """
    positive = part[classes[part] == config.positive_digit]
    negative = part[classes[part] != config.positive_digit]
    if first >= count:
        return Bags.empty()
    natural = len(positive) / len(part)
    share = None if config.witness_rate is None else share_of_bags(
        config.mean_bag_size, config.bag_size_variance, config.witness_rate
    )  # fmt: skip
    noisy = stream != "bags_test"
    instances, labels, truths = [], [], []
    numbers = range(first, count)
    for i, rng in zip(numbers, streams.rngs(stream, numbers), strict=True):
        size = max(1, round(rng.normal(config.mean_bag_size, config.bag_size_variance**0.5)))
        truth = int((i + 1) * config.prevalence + 1e-9) > int(i * config.prevalence + 1e-9)
        rate = natural if share is None else binomial_rate(size, share)
        witnesses = at_least_one(rng, size, rate) if truth else 0
        bag = np.concatenate([rng.choice(positive, witnesses), rng.choice(negative, size - witnesses)])
        instances.append(rng.permutation(bag))
        flip = rng.random() < config.label_noise and noisy
        labels.append(truth ^ flip)
        truths.append(truth)
    index = np.concatenate(instances)
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in instances])])
    return Bags(
        offsets, index, np.array(labels, np.int8),
        (classes[index] == config.positive_digit).astype(np.int8), np.array(truths, np.int8),
    )  # fmt: skip


class _DrawnBags:
    """The bags of one stream as far as they were asked for: configurations that differ in n alone share them."""

    def __init__(self, config: MnistBags, part: np.ndarray, streams: Streams, stream: str) -> None:
        self._config, self._part, self._streams, self._stream = config, part, streams, stream
        self._bags = Bags.empty()

    def first(self, count: int, classes: np.ndarray) -> Bags:
        if len(self._bags) < count:
            more = sample_bags(self._config, classes, self._part, count, self._streams, self._stream, len(self._bags))
            self._bags = self._bags.followed_by(more)
        return self._bags.first(count)


@lru_cache(maxsize=KEPT_STREAMS)
def _drawn(config: MnistBags, checksum: str, first: int, last: int, streams: Streams, stream: str) -> _DrawnBags:
    """Of the images `first` … `last` − 1 of the pool of this checksum."""
    return _DrawnBags(config, np.arange(first, last), streams, stream)
