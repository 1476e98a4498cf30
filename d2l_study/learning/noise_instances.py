"""What R_noise puts into bags: instances that should change no prediction (slide 11).

Three kinds are made of nothing (`gaussian`, `uniform`) or of the bag itself (`shuffled`). `negatives` are real
instances of other training bags whose label is 0: each of them is known to be negative.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.errors import UserError
from d2l_study.learning.config import NOISE_KINDS, TeacherConfig
from d2l_study.learning.prediction import Normalise


def check_noise(config: TeacherConfig, replicate: Replicate) -> None:
    """`UserError` if noise instances are to come from bags of label 0 and training sees none."""
    if config.lambda_noise > 0 and config.noise_kind == "negatives" and not (replicate.train.label == 0).any():
        raise UserError(
            f"noise_kind: negatives needs a training bag of label 0; replicate {replicate.number} has none of "
            f"{len(replicate.train)} (data.label_noise flips labels; more data.num_bags, or another noise_kind, may do)"
        )


def noise_counts(noise_rate: float, sizes: np.ndarray) -> np.ndarray:
    """⌈ρ k⌉ noise instances for bags of k instances, at least one. sizes: (bags,) k."""
    # 0.28 · 25 is 7.000000000000001 in floating point, and ⌈ρ k⌉ should be 7.
    return np.ceil(np.round(noise_rate * sizes, 9)).astype(np.int64).clip(1)


def noise_instances(
    kind: str,
    rng: np.random.Generator,
    owner: np.ndarray,
    seen: np.ndarray,
    bag_of: np.ndarray,
    chosen: np.ndarray,
    pool: Pool,
    train: Bags,
    normalise: Normalise,
) -> Tensor:
    """Noise instances in normalised units, (noise instances, *shape of an instance).

    kind: one of `NOISE_KINDS`: standard normal in each dimension, in normalised units; uniform over the range of
    pixels; an instance of the same bag with its pixels (of a vector its normalised dimensions) shuffled; an instance of
    another training bag of label 0. owner: (noise instances,) which bag of the step each is put into; seen: (instances,
    *shape) the step's instances as training sees them, bag_of: (instances,) the bag of each; chosen: (bags,) the step's
    bags in `train`. `ValueError` for another kind.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"noise_kind: {kind!r}; expected one of {', '.join(NOISE_KINDS)}")
    shape = (len(owner), *pool.shape)
    if kind == "gaussian":
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(normalise.mean.device)
    if kind == "uniform":
        return normalise(rng.integers(0, 256, shape, np.uint8))
    if kind == "negatives":
        return normalise(pool.instances[other_negatives(rng, chosen[owner], train)])
    sizes = np.bincount(bag_of)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    source = first[owner] + rng.integers(0, sizes[owner])
    if len(pool.shape) == 1:
        order = rng.permuted(np.tile(np.arange(shape[1]), (len(owner), 1)), axis=1)
        vectors = normalise(seen[source])
        return vectors.gather(1, torch.from_numpy(order).to(vectors.device))
    pixels = seen[source].reshape(*shape[:2], -1)
    order = rng.permuted(np.tile(np.arange(pixels.shape[-1]), (len(owner), 1)), axis=1)
    return normalise(np.take_along_axis(pixels, order[:, None, :], axis=2).reshape(shape))


def other_negatives(rng: np.random.Generator, owner: np.ndarray, train: Bags) -> np.ndarray:
    """(noise instances,) indices into the pool of instances of training bags of label 0, each other than its owner.

    owner: (noise instances,) bag in `train` that each is put into. All such instances are equally likely. If the owner
    is the only bag of label 0, its own instances are drawn.
    """
    sizes = np.where(train.label == 0, train.sizes, 0)  # of bags that are drawn from
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    own = np.where(sizes[owner] < total, sizes[owner], 0)
    place = rng.integers(0, total - own)
    begin = ends[owner] - sizes[owner]
    place = np.where(place >= begin, place + own, place)  # over the owner's own instances
    bag = np.searchsorted(ends, place, side="right")
    return train.instance[train.offsets[bag] + place - (ends[bag] - sizes[bag])]
