"""The teacher's loss on one batch: L = BCE + λ_adv R_adv + λ_noise R_noise + λ_ent R_ent (method page).

The features of the clean pass serve the noise and the entropy term; adversarial and noise instances go through the
extractor in one further pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.data.pool import Bags, Pool
from d2l_study.data.streams import Streams
from d2l_study.learning.augmentation import augmented
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.noise_instances import noise_counts, noise_instances
from d2l_study.learning.noising import draw_masks, draw_mix, input_noise, join_masks, mix, split_masks
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.regularizers import (
    bernoulli_entropy,
    bernoulli_kl,
    boundary_direction,
    boundary_direction_beside,
    cross_entropy_slope,
    power_direction,
    subset,
)
from d2l_study.models import Masks, MilModel, Params, Terms, hidden_width

PARTS = ("bce", "r_adv", "r_noise", "r_ent")


@dataclass(frozen=True)
class Batch:
    """One step's bags and draws.

    x: (instances, *shape of an instance), noised where asked for; bag_index: (instances,); label: (bags,) float; then,
    where the configuration asks for them, the draws: start (instances, *shape) for the power iteration, noise (noise
    instances, *shape) with noise_bag (noise instances,), keep (instances,) bool for the subset, masks of the instances
    and of the noise instances, and mix: weight and partner of each bag, (bags,) each.
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
        keep = subset(draws, bag_index, len(chosen), config.drop_rate)
    instances = len(positions) + (0 if noise is None else len(noise))
    shape = (instances, hidden_width(config.extractor, config.feature_width, pool.shape))
    all_masks = draw_masks(streams, step, shape, config.dropout, config.stochastic_depth, device)
    masks, noise_masks = split_masks(all_masks, len(positions))
    mixed = draw_mix(streams, step, train.label[chosen], config.mixup, device) if config.mixup > 0 else None
    label = torch.from_numpy(train.label[chosen].astype(np.float32)).to(device)
    x = normalise(seen)
    if config.instance_noise > 0:
        x = x + torch.from_numpy(input_noise(streams, step, seen.shape, config.instance_noise)).to(device)
    return Batch(x, bag_index, label, start, noise, noise_bag, keep, masks, noise_masks, mixed)


def teacher_loss(
    model: MilModel, params: Params, batch: Batch, config: TeacherConfig, ramp: float, compute: Compute
) -> tuple[Tensor, Tensor]:
    """The loss (a scalar with its graph) and its unweighted parts, (4,) detached, in the order of `PARTS`.

    Clean and perturbed passes share the step's dropout and depth masks: R_adv and R_noise would otherwise measure
    the difference of two masks. Mixup mixes bag embeddings z and labels of the batch's bags. The classifier being
    linear, cᵀ(w z_i + (1 − w) z_k) + b = w logit_i + (1 − w) logit_k, so it is done on the logits, for every pooling;
    what it regularizes is therefore confidence: between bags of different labels the best logits are finite.
    """
    bags = len(batch.label)
    adversarial = config.lambda_adv > 0
    by_logit = adversarial and config.direction == "logit"
    x = batch.x.detach().requires_grad_(by_logit)

    with compute.autocast():
        clean_terms = model.terms(params, x, batch.masks)
    logit = model.pool(params, clean_terms, batch.bag_index, bags)
    fixed = logit.detach()
    if batch.mix is None:
        bce = binary_cross_entropy_with_logits(logit, batch.label)
    else:
        bce = binary_cross_entropy_with_logits(mix(logit, *batch.mix), mix(batch.label, *batch.mix))
    zero = torch.zeros((), device=logit.device)
    r_adv = r_noise = r_ent = zero
    further, masks = [], []  # instances beside the clean ones, for one more pass of the extractor
    if adversarial:
        if by_logit and only_logits(config):
            slope = cross_entropy_slope(logit, batch.label) / bags
            direction, known = boundary_direction_beside(x, logit, slope, batch.bag_index, list(params.values()))
            bce = bce.detach() + known
        elif by_logit:
            direction = boundary_direction(x, logit, batch.bag_index)
        else:
            assert batch.start is not None
            direction = power_direction(
                batch.x, clean_logit(model, params, batch, fixed, compute), batch.start,
                frozen_logits(model, params, batch), config.xi, config.power_iterations,
            )  # fmt: skip
        further.append(batch.x.detach() + config.epsilon * direction)
        masks.append(batch.masks)
    if config.lambda_noise > 0:
        assert batch.noise is not None
        further.append(batch.noise)
        masks.append(batch.noise_masks)
    if further:
        with compute.autocast():
            further_terms = model.terms(params, torch.cat(further), join_masks(masks))
        moved, noise = further_terms.split(len(batch.x) if adversarial else 0)
        if adversarial:
            r_adv = bernoulli_kl(fixed, model.pool(params, moved, batch.bag_index, bags)).mean()
        if config.lambda_noise > 0:
            assert batch.noise_bag is not None
            where = torch.cat([batch.bag_index, batch.noise_bag])
            r_noise = bernoulli_kl(fixed, model.pool(params, Terms.joined([clean_terms, noise]), where, bags)).mean()
    if config.lambda_ent > 0:
        subset_logit = model.pool(params, clean_terms, batch.bag_index, bags, batch.keep)
        r_ent = bernoulli_entropy(subset_logit).mean()
    loss = bce + ramp * (config.lambda_adv * r_adv + config.lambda_noise * r_noise + config.lambda_ent * r_ent)
    return loss, torch.stack([bce.detach(), r_adv.detach(), r_noise.detach(), r_ent.detach()])


def only_logits(config: TeacherConfig) -> bool:
    """Whether the clean pass reaches the loss through each bag's own logit alone: then one backward pass gives both the
    gradient of the cross-entropy and the adversarial direction, and a step with R_adv costs two plain ones."""
    return not (config.lambda_noise > 0 or config.lambda_ent > 0 or config.mixup > 0)


def frozen_logits(model: MilModel, params: Params, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Instances -> the bags' logits, in float32 at least, with parameters that take no gradient."""
    frozen = {name: value.detach() for name, value in params.items()}
    bags = len(batch.label)
    return lambda instances: model.logits(frozen, instances, batch.bag_index, bags, batch.masks)


@torch.no_grad()
def clean_logit(model: MilModel, params: Params, batch: Batch, logit: Tensor, compute: Compute) -> Tensor:
    """The clean bags' logits in the precision of the power iteration's own passes, (bags,).

    The iteration follows a difference of order ξ between two logits, which the rounding of a bfloat16 pass exceeds.
    """
    return logit if compute.precision == "float32" else frozen_logits(model, params, batch)(batch.x)
