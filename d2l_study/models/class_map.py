"""A small fully convolutional network whose output is a class map: one logit for each place of an image.

conv 24@5×5, pool, conv 32@3×3, pool, conv 64@3×3, conv 64@3×3, conv 1@1×1; ReLU between. A place sees 28×28 pixels of
what it is given, and stands for 4×4 of them. The image's logit comes from the map in one of two ways:
- `cam`: the mean over all places. Global average pooling and a linear classifier is the same as averaging the map
  that the classifier makes of every place (Zhou et al., CVPR 2016, "Learning deep features for discriminative
  localization").
- `peak`: the mean over the map's peaks, so that training sharpens what stands out (Zhou et al., CVPR 2018,
  "Weakly supervised instance segmentation using class peak response"). A peak is the largest of its 3×3 places, and not
  below the map's median. Their back-propagation of peaks to pixels, which finds outlines, is left out.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2l_study.models.extractors import Params

KINDS = ("cam", "peak")

SCALE = 4
"""Pixels of a side that one place of the map stands for."""

LEAST_SIDE = 16
"""Pixels a side of the smallest image."""

_LAYERS = ((24, 5), (32, 3), (64, 3), (64, 3))
"""(filters, side of the kernel); the first two are followed by pooling."""


def class_map_init(rng: np.random.Generator, channels: int = 3) -> Params:
    """Parameters, with He et al. 2015's normal weights and biases of 0; the map begins at 0 everywhere."""
    params: Params = {}
    inputs = channels
    for i, (filters, side) in enumerate(_LAYERS, 1):
        spread = (2 / (inputs * side**2)) ** 0.5
        weight = rng.normal(0.0, spread, (filters, inputs, side, side)).astype(np.float32)
        params[f"conv{i}.weight"], params[f"conv{i}.bias"] = torch.from_numpy(weight), torch.zeros(filters)
        inputs = filters
    return params | {"map.weight": torch.zeros(1, inputs, 1, 1), "map.bias": torch.zeros(1)}


def class_map(params: Params, image: Tensor) -> Tensor:
    """image: (images, C, H, W) in normalised units -> (images, H // 4, W // 4) float32, the logit of each place.

    Borders are reflected, so that none of them looks like the end of the tissue.
    """
    x = image
    for i, (_, side) in enumerate(_LAYERS, 1):
        x = F.pad(x, [side // 2] * 4, mode="reflect")
        x = F.conv2d(x, params[f"conv{i}.weight"], params[f"conv{i}.bias"])
        x = F.relu(F.max_pool2d(x, 2) if i <= 2 else x)
    return F.conv2d(x, params["map.weight"], params["map.bias"]).squeeze(1).float()


def image_logit(found: Tensor, kind: str) -> Tensor:
    """The images' logits, (images,), from their class maps, (images, rows, columns)."""
    if kind == "cam":
        return found.mean(dim=(1, 2))
    highest = F.max_pool2d(found[:, None], 3, stride=1, padding=1)[:, 0]
    median = found.flatten(1).median(dim=1).values[:, None, None]
    peak = (found == highest) & (found >= median)
    return torch.where(peak, found, torch.zeros_like(found)).sum(dim=(1, 2)) / peak.sum(dim=(1, 2))


def read_map(found: Tensor, xy: Tensor, pixels: int) -> Tensor:
    """The value of one class map at places of its image, (k,), bilinear between the centres of the map's places and
    constant beyond the outermost ones.

    found: (rows, columns); xy: (k, 2) places (column, row) in 0-based pixels of the image; pixels: pixels of the
    image's side that one place of the map stands for.
    """
    rows, columns = found.shape
    extent = torch.tensor([columns, rows], dtype=torch.float32, device=found.device) * pixels
    grid = (xy.to(found.device, torch.float32) + 0.5) / extent * 2 - 1
    at = F.grid_sample(found[None, None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False)
    return at[0, 0, 0]
