"""The colon network of Ilse, Tomczak, Welling, ICML 2018 (after Sirinukunwattana et al. 2016), for colour patches.

conv 36@4×4, pool, conv 48@3×3, pool, FC, ReLU, FC, ReLU. Both fully connected layers have `feature_width` units, 512 in
the publication. Dropout, where asked for, is on the second one alone, which is the feature vector h; the publication
has it on both.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from d2l_study.errors import UserError
from d2l_study.models.extractors import Masks, Params, lenet_maps, linear_init, uniform

_LAYERS = ((36, 4), (48, 3))
"""(filters, side of the kernel) of the two convolutions."""
_LEAST_SIDE = 11
"""Of which two rounds of convolution and halving leave one pixel: 11 − 3 = 8, 4, 4 − 2 = 2, 1."""


def lenet_histology_init(rng: np.random.Generator, shape: tuple[int, int, int], width: int) -> Params:
    """Parameters for patches of `shape` (C, H, W); `UserError` below 11 pixels a side, where nothing is left after
    two rounds of convolution and halving."""
    channels, height, width_px = shape
    if min(height, width_px) < _LEAST_SIDE:
        raise UserError(
            f"extractor: lenet_histology needs patches of at least {_LEAST_SIDE}×{_LEAST_SIDE} pixels; found "
            f"{height}×{width_px}"
        )
    params: Params = {}
    inputs = channels
    for i, (filters, side) in enumerate(_LAYERS, 1):
        params[f"conv{i}.weight"] = uniform(rng, (filters, inputs, side, side), inputs * side**2)
        params[f"conv{i}.bias"] = uniform(rng, (filters,), inputs * side**2)
        inputs, height, width_px = filters, (height - side + 1) // 2, (width_px - side + 1) // 2
    params |= linear_init(rng, "fc1", inputs * height * width_px, width)
    return params | linear_init(rng, "fc", width, width)


def lenet_histology_maps(params: Params, x: Tensor, masks: Masks | None = None) -> Tensor:
    """All but the last layer: (instances, C, H, W) in normalised units -> (instances, feature_width)."""
    maps = lenet_maps(params, x)
    return F.relu(F.linear(maps, params["fc1.weight"], params["fc1.bias"]))
