"""The `data` section of data sets whose bags are given: folds, subsampling, and checks before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np

from d2l_study.data.collection import BagCollection, PatchCollection
from d2l_study.data.folds import fold_replicate, mean_train_bags
from d2l_study.data.pool import Pool, Replicate
from d2l_study.data.purpose import TRAINING, Purpose
from d2l_study.environment import file_errors_as_user_errors, user_path
from d2l_study.errors import UserError, listed
from d2l_study.options import Options, option


@dataclass(frozen=True)
class GivenBags(Options):
    """Keys that all such data sets have; a data set adds its own and says how it is loaded (`collect`)."""

    dataset: str = option("", "the data set")
    folds: int = option(10, "folds of cross-validation; replicate = repeat × folds + fold", least=3, most=1000)
    num_bags: int | None = option(None, "training bags of a fold, a stratified part of them; null: all", least=2)
    unlabelled_bags: int = option(
        0, "further training bags whose labels are forgotten, for R_adv: of those that num_bags leaves over; the same "
        "ones for every num_bags", least=0, most=100_000, neutral=0,
    )  # fmt: skip

    POOL_KEYS: ClassVar[tuple[str, ...]] = ("dataset",)
    """The keys that the pool (its content, and so its checksum) depends on."""

    INSTANCE_CLASSES: ClassVar[tuple[str, str]] = ("positive", "negative")
    """What positive and negative instances are, in the legend of a picture."""

    PATH_KEYS: ClassVar[tuple[str, ...]] = ()
    """The keys that name files or folders."""

    def resolved(self) -> Self:
        """With files and folders as seen from anywhere: a worker's current folder is not the user's."""
        named = {key: value for key in self.PATH_KEYS if (value := getattr(self, key)) is not None}
        paths: dict[str, Any] = {key: str(user_path(v, f"data.{key}").absolute()) for key, v in named.items()}
        return dataclasses.replace(self, **paths)

    def collect(self) -> BagCollection:
        """The whole data set, to train on."""
        raise NotImplementedError(f"{type(self).__name__}.collect")

    def collect_for(self, purpose: Purpose) -> BagCollection:
        """The whole data set for a purpose; those that no user makes are the same for all."""
        return self.collect()

    def load_pool(self, purpose: Purpose = TRAINING) -> BagCollection:
        with file_errors_as_user_errors(f"data set {self.dataset}"):
            return self.collect_for(purpose)

    def replicate(self, pool: Pool, number: int, base_seed: int) -> Replicate:
        """The fold `number % folds` of repeat `number // folds`."""
        assert isinstance(pool, BagCollection)
        return fold_replicate(pool, number, base_seed, self.folds, self.num_bags, self.unlabelled_bags)

    def counts(self) -> dict[str, float]:
        """What a typical fold holds: `train_bags`, and `train_instances`, `val_instances` and `test_instances`; for the
        estimate of costs."""
        pool = self._whole()
        bags = len(pool.bags) * (self.folds - 2) / self.folds
        size = len(pool.bags.instance) / max(1, len(pool.bags))
        fold = len(pool.bags) / self.folds * size
        bags = bags if self.num_bags is None else min(bags, self.num_bags)
        return {"train_bags": bags, "train_instances": bags * size, "val_instances": fold, "test_instances": fold}

    def epoch_bags(self) -> int:
        """As of each of its replicates (`Replicate.epoch_bags`)."""
        return mean_train_bags(self._whole(), self.folds, self.num_bags)

    def mean_instances(self, limit: int | None) -> float:
        """The mean number of instances of a bag of which at most `limit` are taken, over the whole data set."""
        sizes = self._whole().bags.sizes
        return float((sizes if limit is None else np.minimum(sizes, limit)).mean())

    def _whole(self) -> BagCollection:
        return _loaded(dataclasses.replace(self, num_bags=None, unlabelled_bags=0))

    def replicates(self, pool: Pool, count: int, base_seed: int) -> Iterator[Replicate]:
        """The replicates 0 … count − 1, one after the other, since each holds the indices of all instances; `UserError`
        if one of them cannot be made."""
        return (self.replicate(pool, number, base_seed) for number in range(count))


@dataclass(frozen=True)
class PatchBags(GivenBags):
    """Keys of data sets whose instances are patches of images."""

    white_above: float | None = option(
        None, "leave out patches whose mean intensity, in [0, 1], is above this; null: none", above=0.0, below=1.0
    )
    root: str | None = option(None, "folder that holds the data; null: that of D2L_DATA", scientific=False)

    POOL_KEYS: ClassVar[tuple[str, ...]] = ("dataset", "root")
    PATH_KEYS: ClassVar[tuple[str, ...]] = ("root",)

    def collect(self) -> PatchCollection:
        """The whole data set, to train on."""
        raise NotImplementedError(f"{type(self).__name__}.collect")

    def collect_for(self, purpose: Purpose) -> PatchCollection:
        return self.collect()

    def load_pool(self, purpose: Purpose = TRAINING) -> PatchCollection:
        with file_errors_as_user_errors(f"data set {self.dataset}"):
            collection = self.collect_for(purpose)
        if self.white_above is None:
            return collection
        dark = ~brighter(collection.sums, self.white_above)
        kept = collection.keep(dark[collection.bags.instance])
        if empty := [kept.names[b] for b in range(len(kept.bags)) if kept.bags.sizes[b] == 0]:
            raise UserError(f"data.white_above: {self.white_above:g} leaves no instance in {listed(empty)}")
        return kept


def brighter(sums: np.ndarray, white_above: float) -> np.ndarray:
    """(N,) bool: whether the mean intensity of a patch, in [0, 1], is above this. sums: as of a `PatchCollection`."""
    return np.asarray(sums[:, 0].astype(np.float64).mean(axis=1) > white_above)


@lru_cache(maxsize=8)
def _loaded(data: GivenBags) -> BagCollection:
    return data.load_pool()
