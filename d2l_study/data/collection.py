"""Data sets whose bags are given, not drawn: one bag per image or patient, instances at known places.

    collection = ColonBags(root="/data").load_pool()
    replicate = fold_replicate(collection, number=13, base_seed=1, folds=10)   # repeat 1, fold 3

Whoever has such data makes a `BagCollection`; folds, normalisation and replicates follow from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from d2l_study.data.pool import Bags, Pool, Replicate

TRAIN, VAL, TEST = 0, 1, 2
"""Parts of a split that the user has fixed (`BagCollection.part`)."""


def own_group(bag: str) -> str:
    """The name of the group of a bag that has none: it is one of its own."""
    return f"bag {bag}"


@dataclass(frozen=True, kw_only=True)
class BagCollection(Pool):
    """A pool of instances with all bags of the data set; B bags, I instances in them.

    bags: all of them, `number` is 0 … B − 1, instance labels are the primary truth (−1 unknown);
    names: (B,) of the bags, unique; group: (B,) int64, bags of one group (patient, tissue core) share a fold;
    group_names: of group 0, 1, …;
    xy: (I, 2) float64 centre of each instance as (column, row) in 0-based pixels of its image, NaN where there is none;
    images: paths of all images; image: (I,) int64 index into `images` of the one an instance comes from, −1 none;
    truths: further instance truths by name, (I,) int8 each, −1 unknown;
    fold: (B,) int64 folds 0 … F − 1 fixed by the user, or (R, B) those of R repeats, or None; part: (B,) int8 of
    `TRAIN`, `VAL`, `TEST` fixed by the user, or (R, B) those of R splits, −1 in none of them, or None (at most one of
    both); tile_side: where the images are slides, of each the side of a patch in pixels of level 0, (images, 2) float64
    as (x, y), since patches are resampled, None where they are pieces of images as they are; notes: sentences on how
    the data were read that a user should see.
    """

    bags: Bags
    names: tuple[str, ...]
    group: np.ndarray
    group_names: tuple[str, ...]
    xy: np.ndarray
    images: tuple[Path, ...] = ()
    image: np.ndarray
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)
    fold: np.ndarray | None = None
    part: np.ndarray | None = None
    tile_side: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def image_of(self, bag: int) -> Path | None:
        """The image that all of a bag's instances come from; None if there is no such one."""
        found = np.unique(self.image[self.bags.offsets[bag] : self.bags.offsets[bag + 1]])
        return self.images[int(found[0])] if len(found) == 1 and found[0] >= 0 else None

    def instances_in_image(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """xy (k, 2) and label (k,) of the k instances that come from an image, by its index into `images`."""
        mine = self.image == image
        return self.xy[mine], self.bags.instance_label[mine]

    def normalisation(self, bags: Bags) -> tuple[np.ndarray, np.ndarray]:
        """mean and standard deviation of the instances of some of the collection's bags, as of a `Replicate`; 1 for the
        standard deviation of what does not vary."""
        raise NotImplementedError(f"{type(self).__name__}.normalisation")

    def keep(self, chosen: np.ndarray) -> Self:
        """Without the instances where `chosen`, (I,) bool, is False; the pool stays. Bags may become empty."""
        sizes = np.bincount(self.bags.bag_of[chosen], minlength=len(self.bags))
        bags = dataclasses.replace(
            self.bags, offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            instance=self.bags.instance[chosen], instance_label=self.bags.instance_label[chosen],
        )  # fmt: skip
        truths = {name: truth[chosen] for name, truth in self.truths.items()}
        return dataclasses.replace(self, bags=bags, xy=self.xy[chosen], image=self.image[chosen], truths=truths)


@dataclass(frozen=True, kw_only=True)
class PatchCollection(BagCollection):
    """Bags of patches. sums: (N, 2, C) float64, over an instance's pixels the mean of x/255 and of (x/255)²."""

    sums: np.ndarray

    def normalisation(self, bags: Bags) -> tuple[np.ndarray, np.ndarray]:
        """mean and standard deviation per channel, (C,) each, in units of 1/255."""
        mean, square = self.sums[bags.instance].mean(axis=0)
        std = np.sqrt(np.maximum(square - mean**2, 0.0))
        return mean, np.where(std > 1e-6, std, 1.0)


def tested_places(replicate: Replicate) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the test instances of a fold stand: image (n,) and xy (n, 2), as of a `BagCollection`; None for bags that
    are drawn, or if no instance has a place."""
    if not isinstance(replicate.pool, BagCollection) or not len(replicate.test.number):
        return None
    positions, _ = replicate.pool.bags.select(replicate.test.number)
    xy = replicate.pool.xy[positions]
    return None if np.isnan(xy).all() else (replicate.pool.image[positions], xy)
