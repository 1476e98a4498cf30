"""Small real problems: the middle 16×16 pixels of MNIST digits, which the LeNet reads in a twentieth of the time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from d2l_study.data import MnistBags, mnist
from d2l_study.data.mnist_bags import sample_bags
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.data.streams import Streams
from d2l_study.learning import TeacherConfig

torch.set_num_threads(1)

TRAIN, VAL, TEST = np.arange(6000), np.arange(6000, 8000), np.arange(8000, 10_000)

TINY = TeacherConfig(
    feature_width=16, attention_width=8, steps=12, batch_bags=3, learning_rate=2e-3, eval_every=4, patience=0
)
"""Trains in a tenth of a second."""


@pytest.fixture(scope="session")
def pool() -> Pool:
    name = "t10k-{}-ubyte"
    images = mnist.read_idx(mnist.EMBEDDED / f"{name.format('images-idx3')}.gz", name.format("images-idx3"))
    labels = mnist.read_idx(mnist.EMBEDDED / f"{name.format('labels-idx1')}.gz", name.format("labels-idx1"))
    return Pool("mnist", images[:, None, 6:22, 6:22].copy(), labels.astype(np.int64), "middle of MNIST's test images")


@pytest.fixture(scope="session")
def make_replicate(pool: Pool) -> Callable[..., Replicate]:
    """(number, train, val, test, base_seed, unlabelled, **keys of MnistBags) -> a replicate of small bags."""

    def make(
        number: int = 0, train: int = 10, val: int = 8, test: int = 8, base_seed: int = 1, unlabelled: int = 0, **keys
    ) -> Replicate:  # fmt: skip
        config = MnistBags(**{"mean_bag_size": 4, "bag_size_variance": 2.0} | keys)
        streams = Streams("mnist", base_seed, number)
        parts = [
            sample_bags(config, pool.classes, part, count, streams, stream)
            for part, count, stream in ((TRAIN, train, "bags_train"), (VAL, val, "bags_val"), (TEST, test, "bags_test"))
        ]
        further = sample_bags(config, pool.classes, TRAIN, unlabelled, streams, "bags_unlabelled").without_labels()
        alone = Bags.of_one(TEST[:60], (pool.classes[TEST[:60]] == 9).astype(np.int8))
        return Replicate(number, pool, *parts, alone, np.array([mnist.MEAN]), np.array([mnist.STD]), streams, number,
                         unlabelled=further)  # fmt: skip

    return make


@pytest.fixture(scope="session")
def tiny() -> TeacherConfig:
    return TINY
