"""The bag classifier for R replicates at once: parameters stacked along a replicate axis, (R, …).

Two formulations of the extractor behind one interface, which `benchmarks/packed.py` compares:

- `grouped`: `torch.func.vmap` of the plain model, whose convolutions become grouped ones. It knows every network.
- `matmul`: batched matrix products (`baddbmm`), for vectors and, of unfolded patches, for the LeNets. The four outputs
  that a pooling window compares are four filters on the same (k+1)×(k+1) pixels, so convolution and 2×2 pooling are one
  product of stride 2 with four times the filters and the maximum of its four blocks: 1.44 times the multiplications
  (k = 5), on columns 2.8 times smaller.

Instances and bags are flat, replicate by replicate: R·I instances, and R·(bags + 1) bags, of which the last of each
replicate holds its padding. So pooling is that of the plain model, and a replicate's values reach no other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from d2l_study.learning.packed.segments import segment_terms
from d2l_study.learning.prediction import Compute
from d2l_study.models import VECTOR_EXTRACTORS, Masks, MilModel, Params, Terms
from d2l_study.models.extractors import linear_layers
from d2l_study.models.pooling import pool, terms

FORMULATIONS = ("grouped", "matmul")
SEGMENTS = "segments"
"""The formulation of vectors on a CPU, `packed.segments`; nothing else is as fast there, so it is not asked for."""

MATMUL_NETWORKS = ("lenet", "lenet_wide", "lenet_histology", "none", "mlp")


def formulation_of(model: MilModel, compute: Compute) -> str:
    """The formulation asked for, or by itself segments for vectors on a CPU, and batched products wherever they are
    written for the network.

    `ValueError` for one that is not known.
    """
    asked = compute.formulation
    if asked is not None and asked not in FORMULATIONS:
        raise ValueError(f"formulation: {asked!r} is not allowed; expected one of {', '.join(FORMULATIONS)}")
    if asked is None and model.extractor in VECTOR_EXTRACTORS and compute.device.startswith("cpu"):
        return SEGMENTS
    return (asked or "matmul") if model.extractor in MATMUL_NETWORKS else "grouped"


@dataclass(frozen=True)
class StackedModel:
    """Says how stacked parameters are used, as `MilModel` does for one replicate's; holds none.

    replicates: R. The extractor alone computes in bfloat16 where asked for; pooling, logits and losses in float32.
    """

    model: MilModel
    replicates: int
    compute: Compute

    @property
    def formulation(self) -> str:
        return formulation_of(self.model, self.compute)

    def terms(self, params: Params, x: Tensor, masks: Masks | None = None) -> Terms:
        """x: (R·I, *shape) in normalised units, masks likewise flat -> the instances' terms, (R·I,) each."""
        if self.formulation == SEGMENTS:
            return self.terms_of_segments(params, x, masks, [len(x) // self.replicates] * self.replicates)
        stacked = x.unflatten(0, (self.replicates, -1))
        masks = None if masks is None else Masks(*(m if m is None else m.unflatten(0, stacked.shape[:2])
                                                   for m in masks))  # fmt: skip
        if self.formulation == "matmul":
            low = self.compute.precision == "bfloat16"
            return self._matmul_terms(params, stacked, masks, torch.bfloat16 if low else x.dtype)
        with self.compute.autocast():
            return self._grouped_terms(params, stacked, masks)

    def terms_of_segments(self, params: Params, x: Tensor, masks: Masks | None, counts: Sequence[int]) -> Terms:
        """The same for `counts` instances of each replicate, in their order."""
        dtype = torch.bfloat16 if self.compute.precision == "bfloat16" else x.dtype
        return segment_terms(self.model, params, x, masks, counts, dtype)

    def _grouped_terms(self, params: Params, x: Tensor, masks: Masks | None) -> Terms:
        names = [name for name, mask in (masks or Masks())._asdict().items() if mask is not None]

        def one(values: Params, x: Tensor, *found: Tensor) -> tuple[Tensor, ...]:
            own = Masks(**dict(zip(names, found, strict=True))) if names else None
            return _present(self.model.terms(values, x, own))

        return self._flat(torch.func.vmap(one)(params, x, *(getattr(masks, name) for name in names)))

    def _matmul_terms(self, params: Params, x: Tensor, masks: Masks | None, dtype: torch.dtype) -> Terms:
        # Matrix units of a GPU take sides of a multiple of 8; zeros are filled in, and read by nothing.
        aligned = 8 if dtype == torch.bfloat16 and self.compute.compiles else 1

        def layer(name: str, inputs: Tensor) -> Tensor:
            weight, bias = (params[f"{name}.{kind}"].to(dtype) for kind in ("weight", "bias"))
            missing = -weight.shape[1] % aligned
            if missing or inputs.shape[-1] != weight.shape[2]:
                weight = F.pad(weight, (0, inputs.shape[-1] - weight.shape[2], 0, missing))
                bias = F.pad(bias, (0, missing))
            return torch.relu(torch.baddbmm(bias[:, None], inputs, weight.mT))

        h = x.to(dtype)
        if x.dim() > 3:
            maps = h.permute(0, 1, 3, 4, 2)  # (R, I, H, W, C)
            for name in ("conv1", "conv2"):
                weight, bias = (params[f"{name}.{kind}"].to(dtype) for kind in ("weight", "bias"))
                maps = conv_relu_pool(maps, weight, bias, aligned)
            h = maps.permute(0, 1, 4, 2, 3).flatten(2)  # the next layer reads them as (filters, rows, columns)
        for name in linear_layers(params):
            h = layer(name, h)  # (R, I, feature)
        if h.shape[-1] != self.model.feature_width:
            h = h[..., : self.model.feature_width]
        if masks is not None and masks.dropout is not None:
            h = h * masks.dropout.to(dtype)
        return self._flat(torch.func.vmap(lambda p, h: _present(terms(p, self.model.pooling, h)))(params, h))

    def _flat(self, found: tuple[Tensor, ...]) -> Terms:
        kinds = ["logit"]
        if "attention" in self.model.pooling:
            kinds.append("attention")
        if self.model.pooling == "embedding_max":
            kinds.append("embedding")
        return Terms(**{kind: term.flatten(0, 1) for kind, term in zip(kinds, found, strict=True)})

    def pool(self, params: Params, terms: Terms, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
        """The logits of all bags, (bags,); bag_index: (R·I,) of 0 … bags − 1, replicate by replicate."""
        if self.model.pooling != "embedding_max":
            return pool(params, self.model.pooling, terms, bag_index, bags, keep)
        assert terms.embedding is not None
        h = terms.embedding
        if keep is not None:
            h = torch.where(keep[:, None], h, torch.full_like(h, -torch.inf))
        z = h.new_full((bags, h.shape[1]), -torch.inf)
        z = z.scatter_reduce(0, bag_index[:, None].expand_as(h), h, "amax")
        z = torch.where(z == -torch.inf, torch.zeros_like(z), z)  # of bags of padding without an instance
        z = z.unflatten(0, (self.replicates, -1))
        weight, bias = params["classifier.weight"], params["classifier.bias"]
        return torch.baddbmm(bias[:, None], z, weight.mT).flatten()


def _present(terms: Terms) -> tuple[Tensor, ...]:
    """What `vmap` can hand on: tensors only."""
    return tuple(term for term in terms if term is not None)


def conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor, aligned: int = 1) -> Tensor:
    """ReLU(max_pool2d(conv2d(x, weight, bias), 2)) of every replicate, as one batched product.

    x: (R, I, H, W, C); weight: (R, F, C, k, k); bias: (R, F); aligned: of which the inputs of the product are a
    multiple, by zeros. Returns (R, I, (H − k + 1) // 2, (W − k + 1) // 2, F).
    Where several places of a window are highest the gradient goes to the first, as in PyTorch's pooling.
    """
    replicates, filters, channels, k, _ = weight.shape
    rows, columns = (x.shape[2] - k + 1) // 2, (x.shape[3] - k + 1) // 2
    inputs = (k + 1) ** 2 * channels
    unfolded = F.pad(_Windows.apply(x, k + 1, rows, columns).flatten(4), (0, -inputs % aligned)).flatten(1, 3)
    # The filters at their four places in the window, in the order in which pooling breaks ties.
    placed = torch.stack([F.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)], dim=1)
    placed = placed.permute(0, 4, 5, 3, 1, 2).reshape(replicates, inputs, 4 * filters)
    placed = F.pad(placed, (0, 0, 0, -inputs % aligned))
    blocks = torch.bmm(unfolded, placed).unflatten(2, (4, filters)).unbind(2)
    upper, lower = _first_maximum(blocks[0], blocks[1]), _first_maximum(blocks[2], blocks[3])
    found = torch.relu(_first_maximum(upper, lower) + bias[:, None])
    return found.unflatten(1, (-1, rows, columns))


def _first_maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger one elementwise, with the gradient; of equals `a`, where `torch.maximum` would share it out."""
    return torch.where(a >= b, a, b)


class _Windows(torch.autograd.Function):
    """x (R, I, H, W, C) -> (R, I, rows, columns, side, side, C): the windows at every second row and column.

    The gradient is a sum of shifted values, which a compiler fuses into one pass; PyTorch's own adds up window by
    window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int, rows: int, columns: int) -> Tensor:
        ctx.shape = x.shape
        windows = x.unfold(2, side, 2)[:, :, :rows].unfold(3, side, 2)[:, :, :, :columns]
        return windows.permute(0, 1, 2, 3, 5, 6, 4).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _folded(gradient, *ctx.shape[2:4]), None, None, None


def _folded(windows: Tensor, height: int, width: int) -> Tensor:
    """The values of windows added up where these overlap: (R, I, rows, columns, side, side, C) -> (R, I, H, W, C).

    Windows begin at even pixels, so a pixel 2i + p is taken apart into i and p: then one addition serves all windows,
    of which side/2 reach a pixel each way.
    """
    replicates, instances, rows, columns, side, _, channels = windows.shape
    half = -(-side // 2)
    windows = F.pad(windows, (0, 0, 0, side % 2, 0, side % 2))
    windows = windows.view(replicates, instances, rows, columns, half, 2, half, 2, channels)
    # As many pixels as windows reach, and as many as x has.
    below, right = max(0, -(-height // 2) - rows - half + 1), max(0, -(-width // 2) - columns - half + 1)
    total: Tensor | None = None
    for i in range(half):
        for j in range(half):
            part = windows[:, :, :, :, i, :, j]  # (R, I, rows, columns, 2, 2, C)
            part = F.pad(part, (0, 0, 0, 0, 0, 0, j, half - 1 - j + right, i, half - 1 - i + below))
            total = part if total is None else total + part
    assert total is not None
    folded = total.permute(0, 1, 2, 4, 3, 5, 6).reshape(replicates, instances, 2 * total.shape[2], -1, channels)
    return folded[:, :, :height, :width]


def layer_flops(model: MilModel) -> dict[str, float]:
    """Floating-point operations of one instance's forward pass by layer, 2 for a multiplication and its addition,
    counted from the plain layers (convolutions at every place, linear layers), without pooling and nonlinearities.

    `ValueError` for a network without a count.
    """
    layers = {"lenet": ((20, 5), (50, 5)), "lenet_wide": ((40, 5), (100, 5)), "lenet_histology": ((36, 4), (48, 3))}
    if model.extractor not in layers:
        raise ValueError(f"no count of operations for the extractor {model.extractor!r}")
    channels, height, width = model.shape
    found: dict[str, float] = {}
    for number, (filters, k) in enumerate(layers[model.extractor], 1):
        height, width = height - k + 1, width - k + 1
        found[f"conv{number}"] = 2.0 * height * width * filters * channels * k**2
        channels, height, width = filters, height // 2, width // 2
    inputs = channels * height * width
    if model.extractor == "lenet_histology":
        found["fc1"] = 2.0 * inputs * model.feature_width
        inputs = model.feature_width
    found |= {"fc": 2.0 * inputs * model.feature_width, "classifier": 2.0 * model.feature_width}
    if "attention" in model.pooling:
        branches = 2 if model.pooling == "gated_attention" else 1
        found["attention"] = 2.0 * model.attention_width * (branches * model.feature_width + 1)
    return found
