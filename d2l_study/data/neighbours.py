"""Means over the neighbours that an instance has in its image.

What lies side by side in tissue is mostly of one kind: a gland's nuclei are epithelial, the stroma's around it are not.
A mean over neighbours therefore holds what no single patch shows, and it uses no label.
"""

from __future__ import annotations

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags, Pool
from d2l_study.errors import UserError


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
    from scipy.spatial import cKDTree

    collection = check_places(pool)
    found = np.empty_like(values)
    for bag, number in enumerate(bags.number.tolist()):
        mine = slice(int(bags.offsets[bag]), int(bags.offsets[bag + 1]))
        here = slice(int(collection.bags.offsets[number]), int(collection.bags.offsets[number + 1]))
        xy, image, own = collection.xy[here], collection.image[here], values[mine]
        result = np.empty_like(own)
        for one in np.unique(image):
            of_image = np.flatnonzero(image == one)
            nearest = min(count + 1, len(of_image))  # the nearest of all is the instance itself
            _, at = cKDTree(xy[of_image]).query(xy[of_image], k=nearest)
            result[of_image] = own[of_image][at.reshape(len(of_image), nearest)].mean(axis=1)
        found[mine] = result
    return found


__all__ = ["check_places", "neighbour_means"]
