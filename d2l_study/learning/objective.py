"""The teacher's loss on one batch: L = BCE + λ_adv R_adv + λ_noise R_noise + λ_ent R_ent (slide 11).

The features of the clean pass serve the noise and the entropy term; adversarial and noise instances go through the
extractor in one further pass. The formula is written once, `regularized_loss`, for a network of one replicate
(`teacher_loss`) and for R stacked ones (`packed.objective`), which differ in how they call the network and average.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.learning.batches import Batch
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.prediction import Compute
from d2l_study.learning.regularizers import (
    bernoulli_entropy,
    bernoulli_kl,
    boundary_direction,
    boundary_direction_of_loss,
    cross_entropy_slope,
    power_direction,
)
from d2l_study.learning.training_noise import join_masks, mix_bags
from d2l_study.models import Masks, MilModel, Params, Terms

PARTS = ("bce", "r_adv", "r_noise", "r_ent")

InstanceSet = tuple[Tensor, Masks | None]
"""Instances, (instances, *shape), and their masks."""


class Network(Protocol):
    """The bag classifier of a step with its parameters, as the loss uses it.

    It holds one replicate, or R stacked ones whose bags are padded to one number. Values of bags are flat and include
    the bags of padding, (all bags,); `real` and `padded` go between them and (bags,), or (R, bags). Means are over the
    bags of a replicate: a scalar, or (R,). epsilon, xi: a number, or one for each instance.
    """

    @property
    def params(self) -> Params: ...

    @property
    def compute(self) -> Compute: ...

    @property
    def epsilon(self) -> float | Tensor: ...

    @property
    def xi(self) -> float | Tensor: ...

    def terms(self, sets: Sequence[InstanceSet]) -> list[Terms]:
        """The terms of each set's instances, by one pass of the extractor."""

    def pool(self, terms: Terms, bag_index: Tensor, keep: Tensor | None = None) -> Tensor:
        """The logits of all bags, (all bags,)."""

    def real(self, values: Tensor) -> Tensor:
        """Values of all bags without those of padding."""

    def padded(self, values: Tensor) -> Tensor:
        """The inverse of `real`, with 0 for the bags of padding."""

    def cross_entropy(self, logit: Tensor, label: Tensor) -> Tensor:
        """The mean binary cross-entropy of bags, in nats."""

    def total(self, bce: Tensor, regularizers: Sequence[Tensor]) -> Tensor:
        """The loss: the cross-entropy and the weighted regularizers, in the order of `PARTS`."""

    def frozen(self) -> Network:
        """The same network in float32 at least, with parameters that take no gradient."""

    def reading(self, batch: Any) -> Network:
        """The same network for other bags of the step."""


@dataclass(frozen=True)
class SingleNetwork:
    """The network of one replicate; see `Network`. bags: in the batch; ramp: the share of the weights in this step."""

    model: MilModel
    params: Params
    bags: int
    config: TeacherConfig
    ramp: float
    compute: Compute

    @property
    def epsilon(self) -> float:
        return self.config.epsilon

    @property
    def xi(self) -> float:
        return self.config.xi

    def terms(self, sets: Sequence[InstanceSet]) -> list[Terms]:
        if len(sets) == 1:
            with self.compute.autocast():
                return [self.model.terms(self.params, *sets[0])]
        instances, masks = zip(*sets, strict=True)
        with self.compute.autocast():
            rest = self.model.terms(self.params, torch.cat(instances), join_masks(masks))
        found = []
        for x in instances:
            own, rest = rest.split(len(x))
            found.append(own)
        return found

    def pool(self, terms: Terms, bag_index: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.model.pool(self.params, terms, bag_index, self.bags, keep)

    def real(self, values: Tensor) -> Tensor:
        return values

    def padded(self, values: Tensor) -> Tensor:
        return values

    def cross_entropy(self, logit: Tensor, label: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logit, label)

    def total(self, bce: Tensor, regularizers: Sequence[Tensor]) -> Tensor:
        weights = regularizer_weights(self.config)
        terms = [weight * value for weight, value in zip(weights, regularizers, strict=True) if weight > 0]
        return bce + self.ramp * functools.reduce(operator.add, terms) if terms else bce

    def frozen(self) -> SingleNetwork:
        compute = dataclasses.replace(self.compute, precision="float32")
        return dataclasses.replace(self, params={n: v.detach() for n, v in self.params.items()}, compute=compute)

    def reading(self, batch: Batch) -> SingleNetwork:
        return dataclasses.replace(self, bags=len(batch.label))


def teacher_loss(
    model: MilModel, params: Params, batch: Batch, config: TeacherConfig, ramp: float, compute: Compute
) -> tuple[Tensor, Tensor]:
    """The loss (a scalar with its graph) and its unweighted parts, (4,) detached, in the order of `PARTS`.

    ramp: the share of the regularizers' weights in this step, `weight_ramp`.
    """
    return regularized_loss(SingleNetwork(model, params, len(batch.label), config, ramp, compute), batch, config)


def regularized_loss(network: Network, batch: Batch, config: TeacherConfig) -> tuple[Tensor, Tensor]:
    """The loss, a scalar or (R,), with its graph, and its unweighted parts, (4,) or (R, 4) detached.

    config: says which terms there are. Clean and perturbed passes share the step's dropout and depth masks: R_adv and
    R_noise would otherwise measure the difference of two masks. Mixup mixes bag embeddings z and labels of the batch's
    bags. The classifier being linear, cᵀ(w z_i + (1 − w) z_k) + b = w logit_i + (1 − w) logit_k, so it is done on the
    logits, for every pooling; what it regularizes is therefore confidence: between bags of different labels the best
    logits are finite. R_adv is the mean over the batch's bags and its unlabelled ones, all others over the labelled.
    """
    adversarial, noisy = config.lambda_adv > 0, config.lambda_noise > 0
    by_logit = adversarial and config.direction == "logit"
    x = batch.x.detach().requires_grad_(by_logit)
    (clean,) = network.terms([(x, batch.masks)])
    pooled = network.pool(clean, batch.bag_index)
    logit = network.real(pooled)
    fixed = logit.detach()
    if batch.mix is None:
        bce = network.cross_entropy(logit, batch.label)
    else:
        bce = network.cross_entropy(mix_bags(logit, *batch.mix), mix_bags(batch.label, *batch.mix))
    r_adv = r_noise = r_ent = torch.zeros_like(bce)
    further: list[InstanceSet] = []  # instances beside the clean ones, for one more pass of the extractor
    if adversarial:
        if by_logit and only_logits(config):
            slope = network.padded(cross_entropy_slope(logit, batch.label) / batch.label.shape[-1])
            tensors = list(network.params.values())
            direction, bce = boundary_direction_of_loss(x, pooled, slope, batch.bag_index, bce, tensors)
        elif by_logit:
            direction = boundary_direction(x, pooled, batch.bag_index)
        else:
            direction = _power_direction(network, batch, pooled.detach(), config.power_iterations)
        further.append((batch.x.detach() + network.epsilon * direction, batch.masks))
    if noisy:
        assert batch.noise is not None
        further.append((batch.noise, batch.noise_masks))
    terms = network.terms(further) if further else []
    if adversarial:
        moved = network.pool(terms[0], batch.bag_index)
        divergence = bernoulli_kl(fixed, network.real(moved))
        if batch.unlabelled is not None:
            others = _adversarial_divergence(network.reading(batch.unlabelled), batch.unlabelled, config)
            divergence = torch.cat([divergence, others], -1)
        r_adv = divergence.mean(-1)
    if noisy:
        assert batch.noise_bag is not None
        # Of stacked replicates the joined terms of one do not stand together, which pooling does not see: it goes by
        # bag.
        where = torch.cat([batch.bag_index, batch.noise_bag])
        with_noise = network.pool(Terms.joined([clean, terms[-1]]), where)
        r_noise = bernoulli_kl(fixed, network.real(with_noise)).mean(-1)
    if config.lambda_ent > 0:
        r_ent = bernoulli_entropy(network.real(network.pool(clean, batch.bag_index, batch.keep))).mean(-1)
    regularizers = (r_adv, r_noise, r_ent)
    return network.total(bce, regularizers), torch.stack([bce, *regularizers], -1).detach()


def _adversarial_divergence(network: Network, batch: Batch, config: TeacherConfig) -> Tensor:
    """KL( p̂(X) ‖ p(X + r) ) of bags that only R_adv reads, (bags,) or (R, bags). p̂ has no gradient, so that the clean
    pass is for the direction alone."""
    by_logit = config.direction == "logit"
    x = batch.x.detach().requires_grad_(by_logit)
    with torch.set_grad_enabled(by_logit):
        (clean,) = network.terms([(x, batch.masks)])
        pooled = network.pool(clean, batch.bag_index)
    if by_logit:
        direction = boundary_direction(x, pooled, batch.bag_index)
    else:
        direction = _power_direction(network, batch, pooled, config.power_iterations)
    (terms,) = network.terms([(x.detach() + network.epsilon * direction, batch.masks)])
    return bernoulli_kl(network.real(pooled.detach()), network.real(network.pool(terms, batch.bag_index)))


def _power_direction(network: Network, batch: Batch, logit: Tensor, iterations: int) -> Tensor:
    """R_adv's direction by power iteration, in float32 at least: the iteration follows a difference of order ξ between
    two logits, which the rounding of a bfloat16 pass exceeds. logit: of all bags on the clean pass, detached."""
    assert batch.start is not None
    frozen = network.frozen()

    def logits(instances: Tensor) -> Tensor:
        (terms,) = frozen.terms([(instances, batch.masks)])
        return frozen.pool(terms, batch.bag_index)

    if network.compute.precision != "float32":
        with torch.no_grad():
            logit = logits(batch.x)
    return power_direction(batch.x, logit, batch.start, logits, network.xi, iterations)


def regularizer_weights(config: TeacherConfig) -> tuple[float, ...]:
    """λ of the regularizers, in the order of `PARTS`."""
    return config.lambda_adv, config.lambda_noise, config.lambda_ent


def weight_ramp(config: TeacherConfig, step: int) -> float:
    """The share of the regularizers' weights in a step (counted from 0); it rises to 1 over `ramp_steps`."""
    return min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0


def only_logits(config: TeacherConfig) -> bool:
    """Whether the clean pass reaches the loss through each bag's own logit alone: then one backward pass gives both the
    gradient of the cross-entropy and the adversarial direction, and a step with R_adv costs two plain ones."""
    return not (config.lambda_noise > 0 or config.lambda_ent > 0 or config.mixup > 0)
