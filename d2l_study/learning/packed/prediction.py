"""Predictions of R replicates at once: each one's distinct instances go through the stacked extractor once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Bags
from d2l_study.learning.packed.instances import normalised
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.prediction import chunk_size
from d2l_study.models import Params, Terms
from d2l_study.models.pooling import classified, highest_of_bags

EVALUATED = {"cpu": 500, "cuda": 16_384}
"""Instances per extractor call, of all replicates together, by kind of device."""


class StackedSets:
    """Several sets of bags of each of R replicates, as index arrays on the device."""

    def __init__(self, sets: Sequence[Sequence[Bags]], device: torch.device) -> None:
        distinct, places, bag_of = [], [], []
        self._counts = [[len(bags) for bags in own] for own in sets]
        self._bags = 0
        for r, own in enumerate(sets):
            if len(own) == 1:  # as of validation, which is asked for again whenever a stack has others
                mine, inverse = own[0].distinct_instances
            else:
                mine, inverse = np.unique(np.concatenate([bags.instance for bags in own]), return_inverse=True)
            distinct.append(mine)
            places.append(inverse * len(sets) + r)  # in (positions, R)
            for bags in own:
                bag_of.append(bags.bag_of + self._bags)
                self._bags += len(bags)
        self._places = torch.from_numpy(np.concatenate(places)).to(device)
        self._bag_of = torch.from_numpy(np.concatenate(bag_of)).to(device)
        index = np.zeros((len(sets), max(map(len, distinct))), np.int64)
        for row, mine in zip(index, distinct, strict=True):
            row[: len(mine)] = mine
        self._index = torch.from_numpy(index).to(device)

    @torch.no_grad()
    def logits(self, model: StackedModel, params: Params, pool_instances: Tensor, norm: Tensor) -> list[list[Tensor]]:
        """The logits of each replicate's bags, set by set, (bags,) each, on the device.

        params: (R, …); pool_instances: of `pool_on`; norm: of `means_and_stds`.
        """
        replicates, dtype = model.replicates, next(iter(params.values())).dtype
        size = max(1, chunk_size(pool_instances.shape[1:], EVALUATED[pool_instances.device.type]) // replicates)

        def parts() -> Iterator[Terms]:
            """Of all replicates' instances at some positions: (positions, R, …)."""
            for index in self._index.split(size, 1):
                found = model.terms(params, normalised(pool_instances[index.flatten()], norm, dtype))
                yield Terms(*(None if t is None else t.unflatten(0, (replicates, -1)).transpose(0, 1) for t in found))  # type: ignore[arg-type]

        collected = Terms.collected(parts(), self._index.shape[1])
        flat = Terms(*(None if term is None else term.flatten(0, 1) for term in collected))  # type: ignore[arg-type]
        of_all = flat.at(self._places)
        if model.model.pooling == "embedding_max":  # whose bags have their replicate's layer behind the maximum
            return self._maxima(model, params, of_all)
        pooled = model.model.pool(params, of_all, self._bag_of, self._bags)
        return self._by_set(pooled)

    def _by_set(self, pooled: Tensor) -> list[list[Tensor]]:
        parts = iter(pooled.split([count for own in self._counts for count in own]))
        return [[next(parts) for _ in own] for own in self._counts]

    def _maxima(self, model: StackedModel, params: Params, terms: Terms) -> list[list[Tensor]]:
        assert terms.embedding is not None
        largest = highest_of_bags(terms.embedding, self._bag_of, self._bags)
        found = []
        for r, own in enumerate(self._by_set(largest)):
            layer = {name: value.detach()[r] for name, value in params.items()}
            found.append([classified(layer, z) for z in own])
        return found


def on_host(logits: Sequence[Sequence[Tensor]]) -> list[list[np.ndarray]]:
    """The same in numpy, by one transfer."""
    flat = [part for own in logits for part in own]
    rows = iter(np.split(torch.cat(flat).cpu().numpy(), np.cumsum([len(part) for part in flat])[:-1]))
    return [[next(rows) for _ in own] for own in logits]
