"""Feature extractors f: patches to feature vectors, as pure functions of (parameters, inputs).

Parameters are flat dictionaries of named tensors, so that replicates can be stacked along a leading axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2l_study.errors import UserError
from d2l_study.models.convolution import conv_relu_pool

Params = dict[str, Tensor]

_FILTERS = (20, 50)
_KERNEL = 5


def uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Tensor:
    """U(−1/√fan_in, 1/√fan_in), PyTorch's default for linear and convolutional layers and their biases."""
    bound = fan_in**-0.5
    return torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))


def linear_init(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> Params:
    return {
        f"{name}.weight": uniform(rng, (outputs, inputs), inputs),
        f"{name}.bias": uniform(rng, (outputs,), inputs),
    }


def he_scaled(params: Params) -> Params:
    """The extractor's layers from U(−√(6/n), √(6/n)) with n inputs, by the draws of `uniform`, and biases 0.

    He, Zhang, Ren, Sun (ICCV 2015): the variance of activations then stays the same from one ReLU to the next, where
    that of PyTorch's default falls to a sixth.
    """
    layers = ("conv", "hidden", "fc")
    return {
        name: value if not name.startswith(layers) else value * 6**0.5 if value.dim() > 1 else torch.zeros_like(value)
        for name, value in params.items()
    }


def linear_layers(params: Params) -> list[str]:
    """The extractor's linear layers with ReLU, in their order: `fc1` of lenet_histology, `hidden1`, … of mlp, and
    `fc`; the extractor `none` has none."""
    hidden = itertools.takewhile(lambda name: f"{name}.weight" in params, (f"hidden{i}" for i in itertools.count(1)))
    return [name for name in ("fc1", *hidden, "fc") if f"{name}.weight" in params]


class Masks(NamedTuple):
    """The draws of a noised pass; without them a pass is deterministic, as in evaluation.

    dropout: (instances, width) by which h is multiplied, 0 or 1/(1 − rate); depth: (instances, blocks) by which
    the residual branches are multiplied, 0 or 1/survival.
    """

    dropout: Tensor | None = None
    depth: Tensor | None = None


class Extractor(NamedTuple):
    """f in two parts: `maps` (parameters, x, masks) -> (instances, flat), then the layer `fc` with its ReLU, so
    that hidden features can be mixed before a nonlinearity. `init` (rng, shape of an instance, width) -> parameters.

    dims: of an instance: 3 for patches (C, H, W), 1 for vectors (D,).
    """

    init: Callable[..., Params]
    maps: Callable[[Params, Tensor, Masks | None], Tensor]
    blocks: int = 0
    dims: int = 3


def feature_layer(params: Params, maps: Tensor, masks: Masks | None = None) -> Tensor:
    """h = ReLU(fc(maps)), dropped out where masks say so: (instances, flat) -> (instances, width). A network without
    the layer `fc` hands its maps on as h."""
    h = maps if "fc.weight" not in params else F.relu(F.linear(maps, params["fc.weight"], params["fc.bias"]))
    return h if masks is None or masks.dropout is None else h * masks.dropout


def lenet_init(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    width: int,
    all_filters: tuple[int, int] = _FILTERS,
) -> Params:
    """Parameters of the LeNet of Ilse et al. 2018 (MNIST bags) for patches of `shape` (C, H, W).

    `UserError` if the patch is too small for two rounds of 5×5 convolution and halving (16 pixels a side).
    """
    channels, height, width_px = shape
    params: Params = {}
    inputs = channels
    for i, filters in enumerate(all_filters, 1):
        fan_in = inputs * _KERNEL**2
        params[f"conv{i}.weight"] = uniform(rng, (filters, inputs, _KERNEL, _KERNEL), fan_in)
        params[f"conv{i}.bias"] = uniform(rng, (filters,), fan_in)
        inputs, height, width_px = filters, (height - _KERNEL + 1) // 2, (width_px - _KERNEL + 1) // 2
    if height < 1 or width_px < 1:
        raise UserError(f"teacher.extractor: lenet needs patches of at least 16×16 pixels; found {shape[1]}×{shape[2]}")
    return params | linear_init(rng, "fc", inputs * height * width_px, width)


def lenet(params: Params, x: Tensor) -> Tensor:
    """conv 20@5×5, pool, conv 50@5×5, pool, FC, ReLU (Ilse, Tomczak, Welling 2018).

    x: (instances, C, H, W) in normalised units. Returns h: (instances, width).
    """
    return feature_layer(params, lenet_maps(params, x))


def lenet_maps(params: Params, x: Tensor, masks: Masks | None = None) -> Tensor:
    """The convolutional part of `lenet`, (instances, flat); the number of filters is that of the parameters."""
    for name in ("conv1", "conv2"):
        x = conv_relu_pool(x, params[f"{name}.weight"], params[f"{name}.bias"])
    return x.flatten(1)


def lenet_wide_init(rng: np.random.Generator, shape: tuple[int, int, int], width: int) -> Params:
    """`lenet_init` with twice the filters."""
    return lenet_init(rng, shape, width, (2 * _FILTERS[0], 2 * _FILTERS[1]))
