"""Means over the neighbours that an instance has in its image.

What lies side by side in tissue is mostly of one kind: a gland's nuclei are epithelial, the stroma's around it are not.
A mean over neighbours therefore holds what no single patch shows, and it uses no label.
"""

from __future__ import annotations

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags, Pool
from d2l_study.errors import UserError

_QUERIED = 4_000_000
"""Neighbours that are looked up at a time: 64 MB of distances and positions."""


def check_places(pool: Pool) -> BagCollection:
    """The pool, all of whose instances have places in an image; `UserError` where one has none."""
    if not isinstance(pool, BagCollection):
        raise UserError(f"needs the places of instances in their image; those of data set {pool.name} have none")
    lacking = ~np.isfinite(pool.xy).all(axis=1)
    if lacking.any():
        bag = pool.names[int(pool.bags.bag_of[np.argmax(lacking)])]
        why = "no coords in their feature files" if len(pool.shape) == 1 else "no x and y, or cut: whole"
        raise UserError(f"needs the places of instances in their image; those of bag {bag!r} have none ({why})")
    return pool


def neighbour_means(values: np.ndarray, pool: Pool, bags: Bags, count: int) -> np.ndarray:
    """(I,) of each instance the mean of its own value and those of its `count` nearest neighbours.

    values: (I,) of the instances of `bags`, bags of the collection `pool` or some of them, whole. Neighbours are
    instances of the same bag and the same image, by the distance of their centres; where there are fewer than `count`,
    all of them. count 0 returns the values. `UserError` if an instance has no place.
    """
    if count == 0:
        return values
    collection = check_places(pool)
    found = np.empty_like(values)
    for bag, number in enumerate(bags.number.tolist()):
        mine = slice(int(bags.offsets[bag]), int(bags.offsets[bag + 1]))
        here = slice(int(collection.bags.offsets[number]), int(collection.bags.offsets[number + 1]))
        xy, image, own = collection.xy[here], collection.image[here], values[mine]
        result = np.empty_like(own)
        for one in np.unique(image):
            of_image = np.flatnonzero(image == one)
            result[of_image] = nearest_means(own[of_image], xy[of_image], count)
        found[mine] = result
    return found


def nearest_means(values: np.ndarray, xy: np.ndarray, count: int, at: np.ndarray | None = None) -> np.ndarray:
    """Of each place the mean of its own value and those of the `count` nearest others.

    values: (I,); xy: (I, 2) their places in one image, finite; at: of these places only, positions in xy. Of others
    that are equally far, any may be taken.
    """
    from scipy.spatial import cKDTree

    at = np.arange(len(xy)) if at is None else at
    nearest = min(count + 1, len(xy))  # the nearest of all is the instance itself
    found = np.empty(len(at), values.dtype)
    if not len(at):
        return found
    tree, step = cKDTree(xy), max(1, _QUERIED // nearest)
    for first in range(0, len(at), step):
        some = at[first : first + step]
        near = tree.query(xy[some], k=nearest)[1].reshape(len(some), nearest)
        # Of more instances at one place than are asked for, the tree may name others alone: all are equally far.
        lacking = ~(near == some[:, None]).any(axis=1)
        near[lacking, -1] = some[lacking]
        found[first : first + step] = values[near].mean(axis=1)
    return found


__all__ = ["check_places", "nearest_means", "neighbour_means"]
