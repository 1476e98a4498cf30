"""Patches that are shifted and rotated on the device, a block at a time: there it takes no time to speak of, while the
host takes some 50 µs for each, many times longer than a GPU trains on it.

The draws are the host's, and the formula is that of `augmentation.moved`; only rounding differs between devices, by
which a grey value comes out one higher or lower here and there.
"""

from __future__ import annotations

from torch import Tensor

from d2l_study.learning.augmentation import moved
from d2l_study.learning.config import TeacherConfig

AT_ONCE = 16384
"""Patches that are moved together; each takes some 20 kB for a moment, where it has 28 × 28 pixels."""


def move_patches(config: TeacherConfig, pool: Tensor, instance: Tensor, motion: Tensor, into: Tensor) -> None:
    """Write the patches of a block as its steps see them.

    pool: (N, C, H, W) uint8; instance: (T, R, I) into it; motion: (T, R, I, 3) of `augmentation.motion_draws`; into:
    (T, R, I, C, H, W) uint8 at least, where they go.
    """
    found, instances, draws = into[: len(instance)].flatten(0, 2), instance.flatten(), motion.flatten(0, 2)
    for start in range(0, len(instances), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found[part] = moved(config, pool[instances[part]], draws[part])
