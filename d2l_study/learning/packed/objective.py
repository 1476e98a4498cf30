"""The teacher's loss of R replicates at once: `objective.teacher_loss` over stacked parameters, one loss each.

The two are the same formula, and the tests hold them together to 1e-8 in float64. Scalars of the configurations
(weights, ε, ξ) are vectors over replicates here, so that arms that differ in them alone share a pack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.objective import only_logits
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.regularizers import (
    bernoulli_entropy,
    bernoulli_kl,
    boundary_direction,
    boundary_direction_beside,
    cross_entropy_slope,
    power_direction,
)
from d2l_study.models import Masks, Params, Terms


@dataclass(frozen=True)
class StackedBatch:
    """One step's bags and draws of R replicates, padded to I instances, J noise instances and B + 1 bags each.

    x: (R·I, C, H, W); bag_index: (R·I,) of 0 … R·(B + 1) − 1; label: (R, B); start, noise, noise_bag, keep and masks as
    in `objective.Batch`, flat; mix: weight and partner, (R, B) each; weights: (R, 3) the λ of R_adv, R_noise and R_ent,
    ramped; epsilon, xi: (R,).
    """

    x: Tensor
    bag_index: Tensor
    label: Tensor
    weights: Tensor
    epsilon: Tensor
    xi: Tensor
    start: Tensor | None = None
    noise: Tensor | None = None
    noise_bag: Tensor | None = None
    keep: Tensor | None = None
    masks: Masks | None = None
    noise_masks: Masks | None = None
    mix: tuple[Tensor, Tensor] | None = None


def stacked_teacher_loss(
    model: StackedModel, params: Params, batch: StackedBatch, config: TeacherConfig
) -> tuple[Tensor, Tensor]:
    """The replicates' losses, (R,) with their graph, and the unweighted parts, (R, 4) detached, in the order of
    `objective.PARTS`. config: of any of them; which terms there are is the same in all.

    The sum of the losses has every replicate's own gradient, since no parameter is shared.
    """
    replicates, bags = batch.label.shape
    total = replicates * (bags + 1)
    adversarial = config.lambda_adv > 0
    by_logit = adversarial and config.direction == "logit"
    x = batch.x.detach().requires_grad_(by_logit)

    def pooled(terms: Terms, bag_index: Tensor, keep: Tensor | None = None) -> Tensor:
        return model.pool(params, terms, bag_index, total, keep)

    def real(logit: Tensor) -> Tensor:
        """(R, B): without the bags of padding."""
        return logit.unflatten(0, (replicates, bags + 1))[:, :bags]

    def per_instance(values: Tensor) -> Tensor:
        """(R,) -> (R·I, 1, …), as many dimensions as the instances have."""
        repeated = values.repeat_interleave(len(x) // replicates, output_size=len(x))
        return repeated.view(-1, *[1] * (x.dim() - 1))

    clean_terms = model.terms(params, x, batch.masks)
    padded_logit = pooled(clean_terms, batch.bag_index)
    logit = real(padded_logit)
    fixed_all, fixed = padded_logit.detach(), logit.detach()
    if batch.mix is None:
        bce = binary_cross_entropy_with_logits(logit, batch.label, reduction="none").mean(1)
    else:
        weight, partner = batch.mix
        mixed, label = (weight * v + (1 - weight) * v.gather(1, partner) for v in (logit, batch.label))
        bce = binary_cross_entropy_with_logits(mixed, label, reduction="none").mean(1)
    zero = torch.zeros_like(bce)
    r_adv = r_noise = r_ent = zero
    further, masks = [], []  # instances beside the clean ones, for one more pass of the extractor
    if adversarial:
        if by_logit and only_logits(config):
            slope = torch.nn.functional.pad(cross_entropy_slope(logit, batch.label) / bags, (0, 1)).flatten()
            direction, known = boundary_direction_beside(x, padded_logit, slope, batch.bag_index, list(params.values()))
            # The sum of the losses gets the sum of the gradients, of which each replicate has its own rows.
            bce = bce.detach() + known / replicates
        elif by_logit:
            direction = boundary_direction(x, padded_logit, batch.bag_index)
        else:
            assert batch.start is not None
            low = model.compute.precision != "float32"
            direction = power_direction(
                batch.x, _precise(model, params, batch, batch.x).detach() if low else fixed_all, batch.start,
                lambda moved: _precise(model, params, batch, moved),
                per_instance(batch.xi), config.power_iterations,
            )  # fmt: skip
        further.append(batch.x.detach() + per_instance(batch.epsilon) * direction)
        masks.append(batch.masks)
    if config.lambda_noise > 0:
        assert batch.noise is not None
        further.append(batch.noise)
        masks.append(batch.noise_masks)
    if further:
        found = model.terms(params, _side_by_side(further, replicates), _joined_masks(masks, replicates))
        moved, noise = _parted(found, replicates, len(batch.x) // replicates if adversarial else 0)
        if adversarial:
            r_adv = bernoulli_kl(fixed, real(pooled(moved, batch.bag_index))).mean(1)
        if config.lambda_noise > 0:
            assert batch.noise_bag is not None
            # A replicate's joined terms do not stand together, which pooling does not see: it goes by bag.
            where = torch.cat([batch.bag_index, batch.noise_bag])
            r_noise = bernoulli_kl(fixed, real(pooled(Terms.joined([clean_terms, noise]), where))).mean(1)
    if config.lambda_ent > 0:
        r_ent = bernoulli_entropy(real(pooled(clean_terms, batch.bag_index, batch.keep))).mean(1)
    regularizers = torch.stack([r_adv, r_noise, r_ent], 1)
    loss = bce + (batch.weights * regularizers).sum(1)
    return loss, torch.cat([bce.detach()[:, None], regularizers.detach()], 1)


def _precise(model: StackedModel, params: Params, batch: StackedBatch, instances: Tensor) -> Tensor:
    """The logits of all bags with parameters that take no gradient, without bfloat16: the power iteration follows a
    difference of order ξ between two of them."""
    frozen = {name: value.detach() for name, value in params.items()}
    replicates, bags = batch.label.shape
    terms = model.terms(frozen, instances, batch.masks, precise=True)
    return model.pool(frozen, terms, batch.bag_index, replicates * (bags + 1))


def _side_by_side(parts: list[Tensor], replicates: int) -> Tensor:
    """(R·I, …) and (R·J, …) -> (R·(I + J), …), a replicate's instances together."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.unflatten(0, (replicates, -1)) for part in parts], 1).flatten(0, 1)


def _joined_masks(parts: list[Masks | None], replicates: int) -> Masks | None:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    rates = zip(*present, strict=True)
    return Masks(*(None if any(m is None for m in rate) else _side_by_side(list(rate), replicates) for rate in rates))


def _parted(terms: Terms, replicates: int, first: int) -> tuple[Terms, Terms]:
    """The terms of each replicate's first instances, and of those after them."""

    def cut(term: Tensor | None, part: slice) -> Tensor | None:
        return None if term is None else term.unflatten(0, (replicates, -1))[:, part].flatten(0, 1)

    head, tail = (Terms(*(cut(t, part) for t in terms)) for part in (slice(first), slice(first, None)))  # type: ignore[arg-type]
    return head, tail
