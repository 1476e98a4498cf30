"""The bag classifier: extractor, pooling and linear classifier (Ilse, Tomczak, Welling, ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from d2l_study.models.extractors import Params, lenet, lenet_init
from d2l_study.models.pooling import Terms, pool, pooling_init, terms


@dataclass(frozen=True)
class MilModel:
    """Says how parameters are used; holds none. `shape` is (C, H, W) of an instance."""

    shape: tuple[int, int, int]
    pooling: str = "attention"
    feature_width: int = 500
    attention_width: int = 128

    def init(self, rng: np.random.Generator) -> Params:
        """Fresh parameters; the extractor and the classifier are the same whatever the pooling."""
        params = lenet_init(rng, self.shape, self.feature_width)
        return params | pooling_init(rng, self.pooling, self.feature_width, self.attention_width)

    def terms(self, params: Params, x: Tensor) -> Terms:
        """x: (instances, C, H, W) in normalised units -> what each instance contributes to its bag."""
        return terms(params, self.pooling, lenet(params, x))

    def pool(self, params: Params, terms: Terms, bag_index: Tensor, bags: int, keep: Tensor | None = None) -> Tensor:
        """The bags' logits, (bags,) float32; see `pooling.pool`."""
        return pool(params, self.pooling, terms, bag_index, bags, keep)

    def logits(self, params: Params, x: Tensor, bag_index: Tensor, bags: int) -> Tensor:
        """x: (instances, C, H, W), bag_index: (instances,) -> (bags,)."""
        return self.pool(params, self.terms(params, x), bag_index, bags)
