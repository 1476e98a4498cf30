"""The bags of one step of R replicates, from the arrays of a block: padded, or without padding (`packed.segments`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from d2l_study.learning.packed.batches import UNLABELLED
from d2l_study.learning.packed.instances import normalised, normalised_rows
from d2l_study.learning.packed.model import SEGMENTS
from d2l_study.learning.packed.objective import StackedBatch
from d2l_study.learning.packed.segments import segment_counts
from d2l_study.models import Masks

Arrays = dict[str, Tensor]


def stacked_batch(
    formulation: str, now: Arrays, scalars: Tensor, norm: Tensor, pool: Tensor, dtype: torch.dtype
) -> StackedBatch:
    """The bags of a step, with its unlabelled ones where there are some.

    now: arrays of `batches.empty_block` of one step, (R, …); scalars: (R, 2) ε and ξ; norm: of `means_and_stds`; pool:
    of `pool_on`; dtype: of the arithmetic.
    """
    made = _segments if formulation == SEGMENTS else _padded
    others = {n.removeprefix(UNLABELLED): values for n, values in now.items() if n.startswith(UNLABELLED)}
    batch = made(now, scalars, norm, pool, dtype)
    if others:
        others = {"weights": now["weights"], **others}
        batch = dataclasses.replace(batch, unlabelled=made(others, scalars, norm, pool, dtype))
    return batch


def _padded(now: Arrays, scalars: Tensor, norm: Tensor, pool: Tensor, dtype: torch.dtype) -> StackedBatch:
    seen = now["patches"].flatten(0, 1) if "patches" in now else pool[now["instance"].flatten()]
    bags = now["bag"]
    instances = bags.shape[1]

    def flat(name: str) -> Tensor | None:
        return now[name].flatten(0, 1).to(dtype) if name in now else None

    def masks(part: slice) -> Masks | None:
        found = {n: now[n][:, part].flatten(0, 1).to(dtype) for n in ("dropout", "depth") if n in now}
        return Masks(**found) if found else None

    x = normalised(seen, norm, torch.float32 if "instance_noise" in now else dtype)
    if "instance_noise" in now:
        x = (x + now["instance_noise"].flatten(0, 1)).to(dtype)
    return StackedBatch(
        x, bags.flatten(), now["label"].to(dtype), flat("start"), flat("noise"),
        now["noise_bag"].flatten() if "noise_bag" in now else None,
        now["keep"].flatten() if "keep" in now else None,
        masks(slice(instances)), masks(slice(instances, None)) if "noise" in now else None,
        (now["mix_weight"].to(dtype), now["mix_partner"]) if "mix_weight" in now else None,
        weights=now["weights"].to(dtype), epsilon=scalars[:, 0], xi=scalars[:, 1],
    )  # fmt: skip


def _segments(now: Arrays, scalars: Tensor, norm: Tensor, pool: Tensor, dtype: torch.dtype) -> StackedBatch:
    """The same without the padding: all replicates' instances one behind the other."""
    places, counts = segment_counts(now["bag"], now["label"].shape[1])
    width = now["bag"].shape[1]

    def taken(name: str, at: Tensor = places) -> Tensor | None:
        return now[name].flatten(0, 1)[at] if name in now else None

    def masks(at: Tensor, first: int, last: int | None) -> Masks | None:
        mask = now["dropout"][:, first:last].flatten(0, 1)[at].to(dtype) if "dropout" in now else None
        return None if mask is None else Masks(mask)

    replicate = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = normalised_rows(pool[taken("instance")], norm, replicate)
    if (moved := taken("instance_noise")) is not None:
        x = x + moved
    noise: dict[str, Any] = {}
    if "noise" in now:
        noise_places, noise_counts = segment_counts(now["noise_bag"], now["label"].shape[1])
        noise = {
            "noise": now["noise"].flatten(0, 1)[noise_places].to(dtype),
            "noise_bag": taken("noise_bag", noise_places), "noise_counts": noise_counts,
            "noise_masks": masks(noise_places, width, None),
        }  # fmt: skip
    start, bag = taken("start"), taken("bag")
    assert bag is not None
    return StackedBatch(
        x.to(dtype), bag, now["label"].to(dtype), None if start is None else start.to(dtype),
        keep=taken("keep"), masks=masks(places, 0, width),
        mix=(now["mix_weight"].to(dtype), now["mix_partner"]) if "mix_weight" in now else None,
        weights=now["weights"].to(dtype), epsilon=scalars[:, 0], xi=scalars[:, 1], counts=counts, **noise,
    )  # fmt: skip
