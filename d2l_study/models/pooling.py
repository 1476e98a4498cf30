"""Six ways from instances to a bag's logit, over ragged bags, without padding.

Every pooling starts from what single instances contribute (`Terms`), computed once per instance: a bag with
noise instances added, or with instances left out, only pools the same terms again. Since the classifier is
linear, attention MIL's logit is a weighted mean of instance logits: cᵀ Σ a_j h_j + b = Σ a_j (cᵀh_j + b).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2l_study.models.extractors import Params, linear_init
from d2l_study.poolings import POOLINGS


class Terms(NamedTuple):
    """What instances contribute to their bags.

    logit: (instances,) s_j = cᵀh_j + b, the logit of the bag {x_j}; attention: (instances,) the unnormalised
    attention e_j, for the two attention poolings; embedding: (instances, feature) h_j, for embedding_max.
    """

    logit: Tensor
    attention: Tensor | None = None
    embedding: Tensor | None = None

    @staticmethod
    def joined(parts: Sequence[Terms]) -> Terms:
        """The terms of all parts, one behind the other."""

        def join(terms: Sequence[Tensor | None]) -> Tensor | None:
            present = [term for term in terms if term is not None]
            return torch.cat(present) if present else None

        logits, attentions, embeddings = zip(*parts, strict=True)
        return Terms(torch.cat(logits), join(attentions), join(embeddings))

    @staticmethod
    def collected(parts: Iterable[Terms], count: int | None = None) -> Terms:
        """The terms of all instances, whose parts come one after the other, as of `joined`; at least one part. count:
        how many instances there are, None if that shows at the end.

        Each part is copied to its place and dropped: small results that are kept between large passing ones would leave
        the allocator a hole for each, of many times the memory of the results.
        """
        whole: Terms | None = None
        first = room = 0
        for part in parts:
            last = first + len(part.logit)
            if whole is None or last > room:
                room = max(last, 2 * room) if count is None else count
                larger = Terms(*(None if t is None else t.new_empty((room, *t.shape[1:])) for t in part))  # type: ignore[arg-type]
                for kept, before in zip(larger, whole or (), strict=False):
                    if kept is not None and before is not None:
                        kept[:first] = before[:first]
                whole = larger
            for kept, new in zip(whole, part, strict=True):
                if kept is not None and new is not None:
                    kept[first:last] = new
            first = last
        assert whole is not None and first == (first if count is None else count)
        return whole.split(first)[0]

    def split(self, first: int) -> tuple[Terms, Terms]:
        """The terms of the first instances and of those after them."""
        parts = [(None, None) if term is None else (term[:first], term[first:]) for term in self]
        return Terms(*(a for a, _ in parts)), Terms(*(b for _, b in parts))  # type: ignore[arg-type]

    def at(self, index: Tensor) -> Terms:
        """The terms of the instances at `index`."""

        def pick(term: Tensor | None) -> Tensor | None:
            return None if term is None else term[index]

        return Terms(self.logit[index], pick(self.attention), pick(self.embedding))


def pooling_init(rng: np.random.Generator, pooling: str, feature_width: int, attention_width: int) -> Params:
    params = linear_init(rng, "classifier", feature_width, 1)
    if pooling in ("attention", "gated_attention"):
        params |= linear_init(rng, "attention.V", feature_width, attention_width)
        params |= linear_init(rng, "attention.w", attention_width, 1)
        del params["attention.w.bias"]  # the softmax does not see it
    if pooling == "gated_attention":
        params |= linear_init(rng, "attention.U", feature_width, attention_width)
    return params


Linear = Callable[[str, Tensor], Tensor]
"""(name of a layer's parameters, inputs (instances, n)) -> its outputs (instances, m), in the type of the inputs."""


def terms(params: Params, pooling: str, h: Tensor) -> Terms:
    """h: (instances, feature) -> the instances' terms (Ilse et al. 2018, eq. 8 and 9 for the attention)."""

    def linear(name: str, inputs: Tensor) -> Tensor:
        weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
        return F.linear(inputs, weight.to(inputs.dtype), None if bias is None else bias.to(inputs.dtype))

    return terms_by(linear, pooling, h)


def terms_by(linear: Linear, pooling: str, h: Tensor) -> Terms:
    """`terms` with linear layers as they are given: those of stacked parameters are other products."""
    attention = None
    # In full precision, which costs nothing here: the layers are so small that converting them would cost more.
    with torch.autocast(h.device.type, enabled=False):
        full = h.to(torch.promote_types(h.dtype, torch.float32))
        logit = linear("classifier", full).squeeze(-1)
        if pooling in ("attention", "gated_attention"):
            hidden = torch.tanh(linear("attention.V", full))
            if pooling == "gated_attention":
                hidden = hidden * torch.sigmoid(linear("attention.U", full))
            attention = linear("attention.w", hidden).squeeze(-1)
    return Terms(logit, attention, full if pooling == "embedding_max" else None)


def pool(
    params: Params, pooling: str, terms: Terms, bag_index: Tensor, bags: int, keep: Tensor | None = None
) -> Tensor:
    """The logit of each bag.

    bag_index: (instances,) int64, the bag of each instance, 0 … bags − 1; keep: (instances,) bool, instances
    left out where False (each bag must keep one). Returns (bags,) float32.
    """
    if pooling in ("attention", "gated_attention"):
        assert terms.attention is not None
        weight = attention_weights(terms.attention, bag_index, bags, keep)
        return _sum(weight * terms.logit, bag_index, bags)
    if pooling == "instance_max":
        return highest_of_bags(terms.logit, bag_index, bags, keep)
    if pooling == "embedding_max":
        assert terms.embedding is not None
        return classified(params, highest_of_bags(terms.embedding, bag_index, bags, keep))
    present = torch.ones_like(terms.logit) if keep is None else keep.to(terms.logit.dtype)
    count = _sum(present, bag_index, bags)
    if pooling == "embedding_mean":
        return _sum(present * terms.logit, bag_index, bags) / count
    if pooling == "instance_mean":
        # The mean of the probabilities p̄, as a logit: log Σ σ(s_j) − log Σ σ(−s_j), the counts cancelling.
        positive = _log_sum_exp(F.logsigmoid(terms.logit), bag_index, bags, keep)
        negative = _log_sum_exp(F.logsigmoid(-terms.logit), bag_index, bags, keep)
        return positive - negative
    if pooling == "noisy_or":  # of a student's instance scores
        return noisy_or(terms.logit, bag_index, bags, keep)
    raise ValueError(f"pooling: {pooling!r}; expected one of {', '.join(POOLINGS)}")


def classified(params: Params, z: Tensor) -> Tensor:
    """z: (bags, feature) -> the bags' logits, (bags,), by the classifier's layer."""
    return F.linear(z, params["classifier.weight"].to(z.dtype), params["classifier.bias"].to(z.dtype)).squeeze(-1)


def noisy_or(logit: Tensor, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
    """The logit of p = 1 − Π_j (1 − σ(s_j)), the chance that some instance is positive if they are independent.

    logit: (instances,). Returns (bags,). Computed from A = Σ log(1 + e^{s_j}) as log(e^A − 1), exact where p is
    within rounding of 0 or 1; the bag {x_j} has the logit s_j.
    """
    softplus = F.softplus(logit)
    small = logit < -15  # there log(softplus(s)) is s, and softplus may have underflowed
    log_softplus = torch.where(small, logit, torch.log(torch.where(small, torch.ones_like(softplus), softplus)))
    log_total = _log_sum_exp(log_softplus, bag_index, bags, keep)
    tiny = log_total < -15
    total = torch.exp(torch.where(tiny, torch.zeros_like(log_total), log_total))
    return torch.where(tiny, log_total, total + torch.log(-torch.expm1(-total)))


def attention_weights(attention: Tensor, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
    """a_j = softmax of the attention within each bag: (instances,), 0 where left out."""
    shifted = attention - highest_of_bags(attention, bag_index, bags, keep).detach()[bag_index]
    weight = torch.exp(shifted)
    if keep is not None:
        weight = torch.where(keep, weight, torch.zeros_like(weight))
    return weight / _sum(weight, bag_index, bags)[bag_index]


def _sum(values: Tensor, bag_index: Tensor, bags: int) -> Tensor:
    return values.new_zeros(bags).index_add(0, bag_index, values)


def highest_of_bags(values: Tensor, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
    """The maximum of each bag's values, (bags,) or (bags, …); −∞ where a bag has none.

    values: (instances,) or (instances, n); keep: as in `pool`.
    """
    if keep is not None:
        left_out = torch.full_like(values, -torch.inf)
        values = torch.where(keep if values.dim() == 1 else keep[:, None], values, left_out)
    index = bag_index if values.dim() == 1 else bag_index[:, None].expand_as(values)
    start = values.new_full((bags, *values.shape[1:]), -torch.inf)
    return start.scatter_reduce(0, index, values, "amax", include_self=True)


def _log_sum_exp(values: Tensor, bag_index: Tensor, bags: int, keep: Tensor | None) -> Tensor:
    top = highest_of_bags(values, bag_index, bags, keep).detach()
    share = torch.exp(values - top[bag_index])
    if keep is not None:
        share = torch.where(keep, share, torch.zeros_like(share))
    return top + torch.log(_sum(share, bag_index, bags))
