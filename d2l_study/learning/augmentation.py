"""Augmentation of patches in training: small motions; of tissue flips, quarter turns, and another H&E stain.

Tissue has no up and no handedness, so all eight symmetries of the square are drawn alike, for each instance on its own.
Stain varies from slide to slide, so its change is drawn once for each bag of a step. Stains are told apart by colour
deconvolution (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001): in optical density, OD = −log10((I + 1)/256),
light absorption adds up, and a pixel is a sum of amounts of stains. Jittering the amounts, c → (1 + a) c + b, follows
Tellez et al., IEEE Transactions on Medical Imaging 2018.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training_noise import shift_and_rotate

HEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.07, 0.99, 0.11)
"""Optical density of the stains in red, green and blue (Ruifrok and Johnston 2001)."""

OFFSET_SHARE = 0.05
"""The largest b, in optical density, as a share of the largest a: it tints what holds no stain, too, of which a scanner
shows little."""


def augmented(
    config: TeacherConfig | StudentConfig, patches: np.ndarray, bag_of: np.ndarray, streams: Streams, step: int
) -> np.ndarray:
    """The patches as `config.augment` lets training see them in this step; those given if it asks for nothing here
    (a student's shift and affine come after the normalisation).

    patches: (instances, C, H, W) uint8; bag_of: (instances,) bag of each, 0, 1, …. Returns the same shape, uint8. The
    draws come from the stream `augment`, addressed by the step. `UserError` where histology meets other than colour.
    """
    if isinstance(config, TeacherConfig) and is_moved(config):
        draws = motion_draws(streams.rng("augment", step), len(patches))
        return moved(config, torch.from_numpy(patches), torch.from_numpy(draws)).numpy()
    if config.augment not in ("dihedral", "histology"):
        return patches
    rng = streams.rng("augment", step)
    symmetry = rng.integers(0, 8, len(patches))
    if config.augment == "histology":
        if patches.shape[1] != 3:
            raise UserError(f"augment: histology needs colour patches (3 channels); found {patches.shape[1]}")
        draws = rng.uniform(-1.0, 1.0, (int(bag_of.max(initial=-1)) + 1, 2, 2))
        patches = jitter_stains(patches, bag_of, config.stain_jitter * draws)
    return apply_symmetry(patches, symmetry)


def is_moved(config: TeacherConfig) -> bool:
    """Whether training sees each patch shifted, and perhaps rotated."""
    return config.augment in ("shift", "affine")


def motion_draws(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) float32 on [−1, 1): of each patch what `moved` takes, drawn from the stream `augment` of a step."""
    return rng.uniform(-1, 1, (count, 3)).astype(np.float32)


def moved(config: TeacherConfig, patches: Tensor, draws: Tensor) -> Tensor:
    """Each patch shifted and, of `augment: affine`, rotated, by draws of its own; rounded to whole grey values.

    patches: (instances, C, H, W) uint8; draws: (instances, 3) of `motion_draws`, on the device of the patches.
    """
    degrees = config.rotation_degrees if config.augment == "affine" else 0.0
    return shift_and_rotate(patches.float(), draws, config.shift_pixels, degrees).round_().to(torch.uint8)


def apply_symmetry(patches: np.ndarray, symmetry: np.ndarray) -> np.ndarray:
    """Each patch under one of the eight symmetries of the square; no pixel changes its value.

    patches: (instances, C, H, W); symmetry: (instances,) 0 … 7: + 4 flips columns, + 2 turns by a half, + 1 by a
    quarter, which patches that are not square leave out.
    """
    turned = np.empty_like(patches)
    square = patches.shape[2] == patches.shape[3]
    for kind in range(8):
        mine = np.flatnonzero(symmetry == kind)
        quarters = kind % 4 if square else kind % 4 // 2 * 2
        found = patches[mine, :, :, ::-1] if kind >= 4 else patches[mine]
        turned[mine] = np.rot90(found, quarters, axes=(2, 3))
    return turned


def jitter_stains(patches: np.ndarray, bag_of: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Patches with other amounts of hematoxylin and eosin.

    patches: (instances, 3, H, W) uint8 RGB; bag_of: (instances,); change: (bags, 2, 2) of hematoxylin and eosin (the
    relative change of the amount, and what is added to it, in optical density over `OFFSET_SHARE`). Returns uint8. The
    part of the colour that is neither stain stays.
    """
    stains = _stains()
    scale = np.concatenate([1 + change[:, :, 0], np.ones((len(change), 1))], axis=1)
    matrix = np.einsum("sc,bs,sd->bcd", stains, scale, np.linalg.inv(stains).T)
    shift = np.einsum("sc,bs->bc", stains[:2], OFFSET_SHARE * change[:, :, 1])
    density = _DENSITY[patches].reshape(len(patches), 3, -1)
    density = matrix.astype(np.float32)[bag_of] @ density + shift.astype(np.float32)[bag_of, :, None]
    light = np.float32(256) * np.exp(density * np.float32(-np.log(10))) - 1
    return np.rint(np.clip(light, 0, 255)).astype(np.uint8).reshape(patches.shape)


def stain_amounts(patches: np.ndarray) -> np.ndarray:
    """patches: (instances, 3, H, W) uint8 -> (instances, 3, H, W) the amounts of hematoxylin, eosin and the rest, in
    optical density."""
    return np.einsum("sc,ncyx->nsyx", np.linalg.inv(_stains()).T, _DENSITY[patches])


def _stains() -> np.ndarray:
    """(3, 3) rows of unit length: hematoxylin, eosin, and the direction at right angles to both."""
    rows = np.array([HEMATOXYLIN, EOSIN, np.cross(HEMATOXYLIN, EOSIN)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


_DENSITY = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)
"""Optical density of each value of a channel."""
