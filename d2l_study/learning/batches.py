"""What a training step of a teacher sees: its bags and instances, and every random draw of the regularizers.

Each draw comes from a stream of its own, addressed by the step, so that a step is a pure function of its address.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import UNKNOWN, Bags, Pool
from d2l_study.data.streams import Streams
from d2l_study.learning.augmentation import augmented
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.noise_instances import noise_counts, noise_instances
from d2l_study.learning.prediction import Normalise
from d2l_study.learning.regularizers import random_subset
from d2l_study.learning.training_noise import draw_masks, draw_mix, input_noise, split_masks
from d2l_study.models import Masks, hidden_width


@dataclass(frozen=True)
class Batch:
    """One step's bags and draws.

    x: (instances, *shape of an instance), noised where asked for; bag_index: (instances,); label: (bags,) float,
    NaN where it is not known; then, where the configuration asks for them, the draws: start (instances, *shape) for
    the power iteration, noise (noise instances, *shape) with noise_bag (noise instances,), keep (instances,) bool for
    the subset, masks of the instances and of the noise instances, and mix: weight and partner of each bag, (bags,)
    each. unlabelled: the step's unlabelled bags, for R_adv alone.
    """

    x: Tensor
    bag_index: Tensor
    label: Tensor
    start: Tensor | None = None
    noise: Tensor | None = None
    noise_bag: Tensor | None = None
    keep: Tensor | None = None
    masks: Masks | None = None
    noise_masks: Masks | None = None
    mix: tuple[Tensor, Tensor] | None = None
    unlabelled: Batch | None = None


def batch_bags(
    streams: Streams, bags: int, batch: int, step: int, stream: str = "order", label: np.ndarray | None = None
) -> np.ndarray:
    """Which bags make up a step: positions step·batch … of an endless row of epochs (`epoch_order`)."""
    position = np.arange(step * batch, (step + 1) * batch)
    epochs = {e: epoch_order(streams, int(e), bags, stream, label) for e in np.unique(position // bags)}
    return np.array([epochs[p // bags][p % bags] for p in position])


def batch_instances(
    limit: int | None, bags: Bags, chosen: np.ndarray, streams: Streams, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The instances that make up a step: `Bags.select` of the chosen bags, thinned to `limit` of each larger bag.

    Without replacement, in their order; drawn from the stream `sample`, addressed by the step. A sample of a positive
    bag may miss its positive instances, so the limit should leave enough of them.
    """
    positions, bag_of = bags.select(chosen)
    if limit is None or bags.sizes[chosen].max() <= limit:
        return positions, bag_of
    draws = streams.rng("sample", step).random(len(positions))
    by_draw = np.lexsort((draws, bag_of))  # bag by bag, each in the order of its draws
    first = np.cumsum(bags.sizes[chosen]) - bags.sizes[chosen]
    kept = np.sort(by_draw[np.arange(len(by_draw)) - first[bag_of] < limit])
    return positions[kept], bag_of[kept]


def epoch_order(
    streams: Streams, epoch: int, bags: int, stream: str = "order", label: np.ndarray | None = None
) -> np.ndarray:
    """The bags of an epoch, shuffled; with their labels (bags,) the classes by turns, in proportion to their sizes."""
    order = streams.rng(stream, epoch).permutation(bags)
    if label is None:
        return order
    classes = [order[label[order] == value] for value in (1, 0)]
    place = np.concatenate([(np.arange(len(of)) + 0.5) / max(1, len(of)) for of in classes])
    return np.concatenate(classes)[np.argsort(place, kind="stable")]


def order_label(config: TeacherConfig, train: Bags) -> np.ndarray | None:
    """The labels that the order of the bags goes by, if it goes by any."""
    return train.label if config.bag_order == "alternating" else None


def float_labels(label: np.ndarray) -> np.ndarray:
    """Labels as float32, NaN for `UNKNOWN`: whatever reads one shows it."""
    return np.where(label == UNKNOWN, np.float32(np.nan), label.astype(np.float32))


def draw_batch(
    config: TeacherConfig, pool: Pool, train: Bags, streams: Streams, step: int, normalise: Normalise
) -> Batch:
    """The bags and the random draws of one step, each from its own stream, addressed by the step."""
    chosen = batch_bags(streams, len(train), config.batch_bags, step, label=order_label(config, train))
    positions, bag_of = batch_instances(config.instances_per_bag, train, chosen, streams, step)
    device = normalise.mean.device
    seen = augmented(config, pool.instances[train.instance[positions]], bag_of, streams, step)
    bag_index = torch.from_numpy(bag_of).to(device)
    start = noise = noise_bag = keep = None
    if config.lambda_adv > 0 and config.direction == "power":
        start = torch.from_numpy(streams.rng("vat", step).standard_normal(seen.shape, np.float32)).to(device)
    if config.lambda_noise > 0:
        owner = np.repeat(np.arange(len(chosen)), noise_counts(config.noise_rate, np.bincount(bag_of)))
        rng = streams.rng("noise", step)
        noise = noise_instances(config.noise_kind, rng, owner, seen, bag_of, chosen, pool, train, normalise)
        noise_bag = torch.from_numpy(owner).to(device)
    if config.lambda_ent > 0:
        draws = torch.from_numpy(streams.rng("subset", step).random(len(positions))).to(device)
        keep = random_subset(draws, bag_index, len(chosen), config.drop_rate)
    instances = len(positions) + (0 if noise is None else len(noise))
    shape = (instances, hidden_width(config.extractor, config.feature_width, pool.shape))
    all_masks = draw_masks(streams, step, shape, config.dropout, config.stochastic_depth, device)
    masks, noise_masks = split_masks(all_masks, len(positions))
    mixed = draw_mix(streams, step, train.label[chosen], config.mixup, device) if config.mixup > 0 else None
    label = torch.from_numpy(float_labels(train.label[chosen])).to(device)
    x = normalise(seen)
    if config.instance_noise > 0:
        x = x + torch.from_numpy(input_noise(streams, step, seen.shape, config.instance_noise)).to(device)
    return Batch(x, bag_index, label, start, noise, noise_bag, keep, masks, noise_masks, mixed)
