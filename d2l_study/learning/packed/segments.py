"""Stacked networks of vectors on a CPU: the instances of R replicates one behind the other, without padding.

Bags of feature vectors are unequal, and their networks are small matrix products. Padding each replicate to the largest
batch would multiply the arithmetic several times over; a product for each replicate's own instances does not, and all
else (activations, pooling, losses, optimizer) runs once for all replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d2l_study.models import Masks, MilModel, Params, Terms
from d2l_study.models.extractors import linear_layers
from d2l_study.models.pooling import terms_by


class SegmentLinear(torch.autograd.Function):
    """y = x W_rᵀ + b_r for the instances of replicate r, r = 0, 1, …, in the order of their segments.

    x: (instances, inputs); weight: (R, outputs, inputs); bias: (R, outputs) or None; counts: instances of each
    replicate. Returns (instances, outputs).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts, ctx.with_bias = counts, bias is not None
        out = x.new_empty(len(x), weight.shape[1])
        begin = 0
        for r, count in enumerate(counts):
            rows = slice(begin, begin + count)
            if bias is None:
                torch.mm(x[rows], weight[r].t(), out=out[rows])
            else:
                torch.addmm(bias[r], x[rows], weight[r].t(), out=out[rows])
            begin += count
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = weight.new_empty(weight.shape[:2]) if ctx.with_bias and ctx.needs_input_grad[2] else None
        begin = 0
        for r, count in enumerate(ctx.counts):
            rows = slice(begin, begin + count)
            if of_x is not None:
                torch.mm(gradient[rows], weight[r], out=of_x[rows])
            if of_weight is not None:
                torch.mm(gradient[rows].t(), x[rows], out=of_weight[r])
            if of_bias is not None:
                torch.sum(gradient[rows], 0, out=of_bias[r])
            begin += count
        return of_x, of_weight, of_bias, None


def segment_terms(
    model: MilModel, params: Params, x: Tensor, masks: Masks | None, counts: Sequence[int], dtype: torch.dtype
) -> Terms:
    """The terms of the instances of all replicates (`pooling.terms` of each one's own parameters).

    x: (instances, D) in normalised units, replicate by replicate; counts: instances of each; dtype: of the extractor's
    arithmetic, that of `x` or bfloat16.
    """

    def linear(name: str, inputs: Tensor) -> Tensor:
        weight, bias = params[f"{name}.weight"].to(inputs.dtype), params.get(f"{name}.bias")
        return SegmentLinear.apply(inputs, weight, None if bias is None else bias.to(inputs.dtype), counts)

    h = x.to(dtype)
    for name in linear_layers(params):
        h = torch.relu(linear(name, h))
    if masks is not None and masks.dropout is not None:
        h = h * masks.dropout.to(h.dtype)
    return terms_by(linear, model.pooling, h)


def segment_counts(bag: Tensor, bags: int) -> tuple[Tensor, list[int]]:
    """Where the instances of a padded step stand, and how many each replicate has.

    bag: (R, I) the bag of each place, 0 … R·(bags + 1) − 1, whose last of each replicate holds the padding. Returns the
    places of instances in the flattened (R·I,), ascending, and R counts.
    """
    padding = torch.arange(len(bag)) * (bags + 1) + bags
    held = bag != padding[:, None]
    return held.flatten().nonzero().squeeze(1), held.sum(1).tolist()
