"""The teacher's loss of R replicates at once: `objective.regularized_loss` over stacked parameters, one loss each.

Scalars of the configurations (weights, ε, ξ) are vectors over replicates here, so that arms that differ in them alone
share a pack. The tests hold stacked and single losses together to 1e-8 in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.learning.batches import Batch
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.objective import InstanceSet, regularized_loss
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.prediction import Compute
from d2l_study.models import Masks, Params, Terms


@dataclass(frozen=True, kw_only=True)
class StackedBatch(Batch):
    """One step's bags and draws of R replicates, padded to I instances, J noise instances and B + 1 bags each.

    x: (R·I, *shape of an instance); bag_index: (R·I,) of 0 … R·(B + 1) − 1; label: (R, B); start, noise, noise_bag,
    keep and masks as in `Batch`, flat; mix: weight and partner, (R, B) each; weights: (R, 3) the λ of R_adv, R_noise
    and R_ent, ramped; epsilon, xi: (R,). counts: without padding (`packed.segments`), the instances of each replicate,
    and noise_counts likewise; x, bag_index and the others then hold these alone.
    """

    weights: Tensor
    epsilon: Tensor
    xi: Tensor
    counts: Sequence[int] | None = None
    noise_counts: Sequence[int] | None = None


@dataclass(frozen=True)
class StackedNetwork:
    """The stacked networks of R replicates; see `objective.Network`."""

    model: StackedModel
    params: Params
    batch: StackedBatch

    @property
    def compute(self) -> Compute:
        return self.model.compute

    @property
    def epsilon(self) -> Tensor:
        return self._per_instance(self.batch.epsilon)

    @property
    def xi(self) -> Tensor:
        return self._per_instance(self.batch.xi)

    def terms(self, sets: Sequence[InstanceSet]) -> list[Terms]:
        if self.batch.counts is not None:
            return [self.model.terms_of_segments(self.params, x, mask, self._counts(x)) for x, mask in sets]
        replicates = self.model.replicates
        instances, masks = zip(*sets, strict=True)
        found = self.model.terms(self.params, _side_by_side(instances, replicates), _joined_masks(masks, replicates))
        return [found] if len(sets) == 1 else _split_sets(found, replicates, [len(x) // replicates for x in instances])

    def pool(self, terms: Terms, bag_index: Tensor, keep: Tensor | None = None) -> Tensor:
        replicates, bags = self.batch.label.shape
        return self.model.pool(self.params, terms, bag_index, replicates * (bags + 1), keep)

    def real(self, values: Tensor) -> Tensor:
        replicates, bags = self.batch.label.shape
        return values.unflatten(0, (replicates, bags + 1))[:, :bags]

    def padded(self, values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, 1)).flatten()

    def cross_entropy(self, logit: Tensor, label: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logit, label, reduction="none").mean(1)

    def total(self, bce: Tensor, regularizers: Sequence[Tensor]) -> Tensor:
        return bce + (self.batch.weights * torch.stack(list(regularizers), 1)).sum(1)

    def frozen(self) -> StackedNetwork:
        compute = dataclasses.replace(self.compute, precision="float32")
        params = {name: value.detach() for name, value in self.params.items()}
        return StackedNetwork(dataclasses.replace(self.model, compute=compute), params, self.batch)

    def reading(self, batch: StackedBatch) -> StackedNetwork:
        return StackedNetwork(self.model, self.params, batch)

    def _counts(self, x: Tensor) -> Sequence[int]:
        """Of each replicate's instances in a part of the step: those of the bags, or the noise instances."""
        found = self.batch.noise_counts if x is self.batch.noise else self.batch.counts
        assert found is not None
        return found

    def _per_instance(self, values: Tensor) -> Tensor:
        """(R,) -> (R·I, 1, …), as many dimensions as the instances have."""
        x, counts = self.batch.x, self.batch.counts
        each = len(x) // len(values) if counts is None else torch.tensor(counts, device=x.device)
        repeated = values.repeat_interleave(each, output_size=len(x))
        return repeated.view(-1, *[1] * (x.dim() - 1))


def stacked_teacher_loss(
    model: StackedModel, params: Params, batch: StackedBatch, config: TeacherConfig
) -> tuple[Tensor, Tensor]:
    """The replicates' losses, (R,) with their graph, and the unweighted parts, (R, 4) detached, in the order of
    `objective.PARTS`. config: of any of them; which terms there are is the same in all.

    The sum of the losses has every replicate's own gradient, since no parameter is shared.
    """
    return regularized_loss(StackedNetwork(model, params, batch), batch, config)


def _side_by_side(parts: Sequence[Tensor], replicates: int) -> Tensor:
    """(R·I, …) and (R·J, …) -> (R·(I + J), …), a replicate's instances together."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.unflatten(0, (replicates, -1)) for part in parts], 1).flatten(0, 1)


def _joined_masks(parts: Sequence[Masks | None], replicates: int) -> Masks | None:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    rates = zip(*present, strict=True)
    return Masks(*(None if any(m is None for m in rate) else _side_by_side(rate, replicates) for rate in rates))


def _split_sets(terms: Terms, replicates: int, counts: Sequence[int]) -> list[Terms]:
    """The terms of sets that stood side by side; counts: instances of each set of a replicate."""

    def cut(term: Tensor | None, first: int, last: int) -> Tensor | None:
        return None if term is None else term.unflatten(0, (replicates, -1))[:, first:last].flatten(0, 1)

    found, first = [], 0
    for count in counts:
        found.append(Terms(*(cut(term, first, first + count) for term in terms)))  # type: ignore[arg-type]
        first += count
    return found
