"""Bags with labels and a model's scores, as an evaluation takes them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from analysis.evaluation import evaluation
from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags
from d2l_study.inference.evaluated_scores import EvaluatedBags, ModelScores

FEW = 199
"""Resamples."""


@contextlib.contextmanager
def few_resamples() -> Iterator[None]:
    """Evaluations draw `FEW` resamples: for what does not depend on how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "RESAMPLES", FEW)
        yield


def make_bags(seed=0, patients=20, most_bags=1, most_instances=6, known=0.7, grid=False, label=None):
    """Patients with 1 to `most_bags` bags each; of each instance the truth is known with the chance `known`. label: of
    all bags, by default both."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), rng.integers(1, most_bags + 1, patients))
    count = len(group)
    sizes = rng.integers(4 if grid else 1, most_instances + 1, count)
    labels = rng.integers(0, 2, count) if label is None else np.full(count, label)
    bag_of = np.repeat(np.arange(count), sizes)
    truth = np.where(labels[bag_of] == 1, rng.integers(0, 2, len(bag_of)), 0)
    truth = np.where(rng.random(len(bag_of)) < known, truth, -1).astype(np.int8)
    labels = labels.astype(np.int8)
    bags = Bags(
        np.concatenate([[0], np.cumsum(sizes)]), np.arange(len(bag_of)), labels, truth, labels, np.arange(count)
    )
    within = np.concatenate([np.arange(size) for size in sizes])
    xy = np.stack([within % 2, within // 2], axis=1) * 10.0 if grid else np.full((len(bag_of), 2), np.nan)
    pool = BagCollection(
        "made", np.zeros((len(bag_of), 2), np.float32), truth.astype(np.int64), "made", bags=bags,
        names=tuple(f"bag {b}" for b in range(count)), group=group,
        group_names=tuple(f"patient {p}" for p in range(patients)), xy=xy, image=bag_of,
    )  # fmt: skip
    return EvaluatedBags.of(pool)


def make_scores(bags, seed=0, name="A", gain=1.0, digits=8, **more):
    """Scores that tell the classes apart the better the higher the gain. digits: rounded to so many, for ties."""
    rng = np.random.default_rng([seed, 7])
    bag = gain * bags.label + rng.normal(0, 1, len(bags.label))
    instance = gain * (bags.instance_label == 1) + rng.normal(0, 1, len(bags.instance_label))
    found = ModelScores(
        name, np.round(bag, digits).astype(np.float32), np.round(instance, digits).astype(np.float32), 0.4, 0.6, 1.7
    )
    return dataclasses.replace(found, **more)
