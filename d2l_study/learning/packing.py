"""Which replicates can share a stack, whether those of a configuration are trained packed or by turns, and how many
share a stack.

On a CPU patches are trained by turns: their convolutions fill a core. Vectors in small bags are packed: their products
are so small that calling them is what takes the time (`benchmarks/torchmil_peer.py` measures both). Large bags fill a
core by themselves, and a stack of them would take memory in vain. Neither choice changes a result beyond rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from d2l_study.data.pool import Pool, Replicate
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.prediction import Compute
from d2l_study.learning.unlabelled_bags import unlabelled_task

STACK_VALUES = 2**22
"""Most numbers that one step of a stack of vectors holds, instances times dimensions: 16 MB in float32, and some ten
times that with activations and gradients."""

_COMPARED = 4096
"""Instances of two pools that are compared at a time."""


def instance_kinds(replicates: Sequence[Replicate]) -> list[int]:
    """Of each replicate the kind, 0, 1, …, of its instances: replicates of one kind read the same pool, and turn it
    into normalised units by the same rule.

    A stack holds one pool and has one rule, so that replicates of one kind alone share it. A pool that was loaded twice
    is the same one.
    """
    kinds: list[tuple[Pool, bool]] = []
    of_pool: dict[tuple[int, bool], int] = {}  # kinds of the very pools, so that each is compared once
    for replicate in replicates:
        pool, unit_length = replicate.pool, replicate.unit_length
        if (id(pool), unit_length) in of_pool:
            continue
        alike = (i for i, (other, rule) in enumerate(kinds) if rule == unit_length and _same_instances(pool, other))
        of_pool[id(pool), unit_length] = kind = next(alike, len(kinds))
        if kind == len(kinds):
            kinds.append((pool, unit_length))
    return [of_pool[id(replicate.pool), replicate.unit_length] for replicate in replicates]


def _same_instances(one: Pool, other: Pool) -> bool:
    """Whether two pools hold the same. Pools that were made by hand may have one checksum and other instances."""
    a, b = one.instances, other.instances
    if a is b:
        return True
    if one.checksum != other.checksum or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(np.array_equal(a[i : i + _COMPARED], b[i : i + _COMPARED]) for i in range(0, len(a), _COMPARED))


def packed_or_by_turns(config: TeacherConfig, replicates: Sequence[Replicate], compute: Compute) -> Compute:
    """`compute` with the choice made, where it leaves it open: vectors on a CPU are packed, as many as
    `STACK_VALUES` allows."""
    shape = replicates[0].pool.shape
    if compute.packed is not None or len(shape) != 1 or not compute.device.startswith("cpu") or len(replicates) < 2:
        return compute
    one = 0
    tasks = [(config, replicate) for replicate in replicates]
    for some in (tasks, [task for own in tasks if (task := unlabelled_task(*own)) is not None]):
        if some:
            largest = max(int(replicate.train.sizes.max()) for _, replicate in some)
            if config.instances_per_bag is not None:
                largest = min(largest, config.instances_per_bag)
            one += some[0][0].batch_bags * largest * shape[0]
    most = min(STACK_VALUES // one, len(replicates), compute.pack or len(replicates))
    return dataclasses.replace(compute, packed=True, pack=most) if most > 1 else compute
