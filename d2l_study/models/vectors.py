"""Extractors for instances that are vectors already, such as an encoder's features: none, or a few linear layers.

`none` hands the vectors to the pooling as they are. `mlp` is linear layers with ReLU, of equal width; with one layer of
512 it is the embedding of attention MIL on features in the literature (Lu et al., Nature Biomedical Engineering 2021).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from d2l_study.models.extractors import Masks, Params, linear_init, linear_layers


def none_init(rng: np.random.Generator, shape: tuple[int, ...], width: int, layers: int = 1) -> Params:
    """No parameters."""
    return {}


def none_maps(params: Params, x: Tensor, masks: Masks | None = None) -> Tensor:
    """x: (instances, D) in normalised units, as it is."""
    return x


def mlp_init(rng: np.random.Generator, shape: tuple[int, ...], width: int, layers: int = 1) -> Params:
    """Parameters of `layers` linear layers for vectors of `shape` (D,): `hidden1`, `hidden2`, …, and `fc`, the last."""
    params: Params = {}
    (inputs,) = shape
    for i in range(1, layers):
        params |= linear_init(rng, f"hidden{i}", inputs, width)
        inputs = width
    return params | linear_init(rng, "fc", inputs, width)


def mlp_maps(params: Params, x: Tensor, masks: Masks | None = None) -> Tensor:
    """All layers but the last: (instances, D) in normalised units -> (instances, D or width)."""
    for name in linear_layers(params)[:-1]:
        x = F.relu(F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"]))
    return x
