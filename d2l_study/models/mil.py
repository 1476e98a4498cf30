"""The bag classifier: extractor, pooling and linear classifier (Ilse, Tomczak, Welling, ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from d2l_study.models.extractors import (
    Extractor,
    Masks,
    Params,
    feature_layer,
    lenet_init,
    lenet_maps,
    lenet_wide_init,
)
from d2l_study.models.lenet_histology import lenet_histology_init, lenet_histology_maps
from d2l_study.models.pooling import Terms, pool, pooling_init, terms
from d2l_study.models.resnet import CHANNELS, resnet_init, resnet_maps
from d2l_study.models.vectors import mlp_init, mlp_maps, none_init, none_maps

EXTRACTORS = {
    "lenet": Extractor(lenet_init, lenet_maps),
    "lenet_wide": Extractor(lenet_wide_init, lenet_maps),
    "lenet_histology": Extractor(lenet_histology_init, lenet_histology_maps),
    "resnet": Extractor(resnet_init, resnet_maps, len(CHANNELS)),
    "none": Extractor(none_init, none_maps, dims=1),
    "mlp": Extractor(mlp_init, mlp_maps, dims=1),
}
VECTOR_EXTRACTORS = tuple(name for name, extractor in EXTRACTORS.items() if extractor.dims == 1)
"""Those whose instances are vectors (D,)."""
PATCH_EXTRACTORS = tuple(name for name in EXTRACTORS if name not in VECTOR_EXTRACTORS)
"""Those whose instances are patches (C, H, W)."""


def hidden_width(extractor: str, feature_width: int, shape: tuple[int, ...]) -> int:
    """The length of h for instances of a shape: with the extractor `none`, that of the vectors themselves."""
    return shape[0] if extractor == "none" else feature_width


@dataclass(frozen=True)
class MilModel:
    """Says how parameters are used; holds none.

    shape: of an instance, (C, H, W) of patches or (D,) of vectors; feature_width: length of h, with the extractor
    `none` D itself; layers: linear layers of the extractor `mlp`.

    A student is one too: with the pooling `instance_max` or `noisy_or` its parameters are an instance classifier's
    (extractor and linear layer), and pooling the instances' scores gives its bags.
    """

    shape: tuple[int, ...]
    pooling: str = "attention"
    feature_width: int = 500
    attention_width: int = 128
    extractor: str = "lenet"
    layers: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_width", hidden_width(self.extractor, self.feature_width, self.shape))

    def init(self, rng: np.random.Generator) -> Params:
        """Fresh parameters; the extractor and the classifier are the same whatever the pooling."""
        more = {"layers": self.layers} if self.extractor == "mlp" else {}
        params = EXTRACTORS[self.extractor].init(rng, self.shape, self.feature_width, **more)
        return params | pooling_init(rng, self.pooling, self.feature_width, self.attention_width)

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an instance of a model of patches; `ValueError` for one of vectors."""
        channels, height, width = self.shape
        return channels, height, width

    @property
    def blocks(self) -> int:
        """Residual blocks, for stochastic depth."""
        return EXTRACTORS[self.extractor].blocks

    def maps(self, params: Params, x: Tensor, masks: Masks | None = None) -> Tensor:
        """x: (instances, *shape) in normalised units -> (instances, flat), the input of the extractor's last layer."""
        return EXTRACTORS[self.extractor].maps(params, x, masks)

    def terms_of_maps(self, params: Params, maps: Tensor, masks: Masks | None = None) -> Terms:
        """maps: (instances, flat) -> what each instance contributes to its bag."""
        return terms(params, self.pooling, feature_layer(params, maps, masks))

    def terms(self, params: Params, x: Tensor, masks: Masks | None = None) -> Terms:
        """x: (instances, *shape) in normalised units -> what each instance contributes to its bag."""
        return self.terms_of_maps(params, self.maps(params, x, masks), masks)

    def pool(self, params: Params, terms: Terms, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
        """The bags' logits, (bags,) float32; see `pooling.pool`."""
        return pool(params, self.pooling, terms, bag_index, bags, keep)

    def logits(self, params: Params, x: Tensor, bag_index: Tensor, bags: int, masks: Masks | None = None) -> Tensor:
        """x: (instances, *shape), bag_index: (instances,) -> (bags,)."""
        return self.pool(params, self.terms(params, x, masks), bag_index, bags)
