"""Patches that are shifted and rotated on the device, a block at a time: there it takes no time to speak of, while the
host takes some 50 µs for each, many times longer than a GPU trains on it.

The draws are the host's, and the formula is that of `augmentation.moved`; only rounding differs between devices, by
which a grey value comes out one higher or lower here and there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d2l_study.learning.augmentation import moved
from d2l_study.learning.config import TeacherConfig

AT_ONCE = 16384
"""Patches that are moved together; each takes some 20 kB for a moment, where it has 28 × 28 pixels."""


def move_patches(
    config: TeacherConfig, pool: Tensor, instance: Tensor, motion: Tensor, into: Tensor | None = None
) -> Tensor:
    """The patches of a block as its steps see them.

    pool: (N, C, H, W) uint8; instance: (T, R, I) into it; motion: (T, R, I, 3) of `augmentation.motion_draws`; into:
    where they go, for T steps at least. Returns (T, R, I, C, H, W) uint8, or `into`.
    """
    if into is None:
        into = torch.empty(*instance.shape, *pool.shape[1:], dtype=torch.uint8, device=pool.device)
    found, instances, draws = into[: len(instance)].flatten(0, 2), instance.flatten(), motion.flatten(0, 2)
    for start in range(0, len(instances), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found[part] = moved(config, pool[instances[part]], draws[part])
    return into
