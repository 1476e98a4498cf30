"""The draws that noise a training pass: dropout, stochastic depth, mixup, and noise on a student's input.

"Other alternatives" of slide 18. Every draw comes from its own stream, addressed by the step, and reaches the network
as an argument, so that a step stays a pure function of its draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2l_study.data.streams import Streams
from d2l_study.models import Masks
from d2l_study.models.resnet import survival


def draw_masks(
    streams: Streams,
    step: int,
    shape: tuple[int, int],
    dropout: float,
    stochastic_depth: float,
    device: torch.device,
) -> Masks | None:
    """The masks of one step for features h of `shape` (instances, width), or None if neither rate is positive.

    dropout: (instances, width), each feature of h dropped with that chance (Srivastava et al. 2014); depth:
    (instances, blocks), each block's branch kept with the chance of `resnet.survival` (Huang et al. 2016), drawn for
    each instance. Both are scaled so that the mean is that of the pass without them.
    """
    if dropout == 0 and stochastic_depth == 0:
        return None
    dropped = kept = None
    if dropout > 0:
        draws = streams.rng("dropout", step).random(shape, np.float32)
        dropped = torch.from_numpy((draws >= dropout) / np.float32(1.0 - dropout)).to(device)
    if stochastic_depth > 0:
        chance = survival(stochastic_depth)
        alive = streams.rng("depth", step).random((shape[0], len(chance))) < chance
        kept = torch.from_numpy((alive / chance).astype(np.float32)).to(device)
    return Masks(dropped, kept)


def input_noise(
    streams: Streams, step: int, shape: tuple[int, ...], deviation: float, stream: str = "instance_noise"
) -> np.ndarray:
    """Gaussian noise of that standard deviation on a step's instances, `shape` (instances, …), in normalised units."""
    return np.float32(deviation) * streams.rng(stream, step).standard_normal(shape, np.float32)


def split_masks(masks: Masks | None, first: int) -> tuple[Masks | None, Masks | None]:
    """The masks of the first instances and of those after them."""
    if masks is None:
        return None, None
    head = Masks(*(None if m is None else m[:first] for m in masks))
    return head, Masks(*(None if m is None else m[first:] for m in masks))


def join_masks(parts: Sequence[Masks | None]) -> Masks | None:
    """The masks of several sets of instances that go through the network together; all have some, or none has."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    rates = zip(*present, strict=True)
    return Masks(*(None if any(m is None for m in rate) else torch.cat(rate) for rate in rates))


def draw_mix(streams: Streams, step: int, label: np.ndarray, a: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mixup's draws (Verma et al. 2019): weight (count,) ~ Beta(a, a) and partner (count,), `partners` of the labels.

    label: (count,) 0 or 1, of the bags, or of the bags that instances stand in.
    """
    rng = streams.rng("mixup", step)
    weight = torch.from_numpy(rng.beta(a, a, len(label)).astype(np.float32)).to(device)
    return weight, torch.from_numpy(partners(rng.permutation(len(label)), label)).to(device)


def partners(order: np.ndarray, label: np.ndarray) -> np.ndarray:
    """A permutation without fixed points, (count,), which pairs as many as it can over the two classes: all of the
    smaller class, and as many of the larger. One alone is its own partner.

    order: (count,) a random order. In it the larger class comes first, then the smaller, and all are shifted by the
    size of the larger; with one class only, by one. A random permutation leaves two bags as they are half of the time.
    """
    smaller = int(np.count_nonzero(label) * 2 < len(label))
    first, last = order[label[order] != smaller], order[label[order] == smaller]
    found = np.empty(len(order), np.int64)
    row = np.concatenate([first, last])
    found[row] = np.roll(row, -(len(first) if len(last) else 1))
    return found


def mix(values: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """w_i v_i + (1 − w_i) v_partner(i) along the first dimension."""
    weight = weight.view(-1, *[1] * (values.dim() - 1)).to(values.dtype)
    return weight * values + (1 - weight) * values[partner]


def mix_bags(values: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """`mix` of the bags' values along the last dimension: (bags,), or (R, bags) of R replicates."""
    return weight * values + (1 - weight) * values.gather(-1, partner)


def shift_and_rotate(x: Tensor, draws: Tensor, pixels: float, degrees: float) -> Tensor:
    """Each instance shifted and rotated about its centre, with bilinear interpolation, its border repeated outside.

    x: (instances, C, H, W); draws: (instances, 3) on [−1, 1): the shift to the right and down as shares of `pixels`,
    and the angle as a share of `degrees`. Whole-pixel shifts without rotation move values unchanged.
    """
    height, width = x.shape[-2:]
    angle = draws[:, 2] * (degrees * torch.pi / 180)
    right, down = draws[:, 0] * pixels * 2 / width, draws[:, 1] * pixels * 2 / height
    cos, sin = torch.cos(angle), torch.sin(angle)
    # The grid maps places of the result to places of the source, in units of half the side: the inverse motion.
    aspect = height / width
    rotation = torch.stack([torch.stack([cos, sin * aspect], 1), torch.stack([-sin / aspect, cos], 1)], 1)
    shift = -(rotation @ torch.stack([right, down], 1)[:, :, None])
    # What `F.affine_grid` computes (align_corners=False), as one matrix product: a seventh of its time.
    columns, rows = ((2 * torch.arange(n, device=x.device, dtype=x.dtype) + 1) / n - 1 for n in (width, height))
    places = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width), torch.ones_like(x[0, 0])])
    grid = (torch.cat([rotation, shift], 2).view(-1, 3) @ places.view(3, -1)).view(-1, 2, height, width)
    grid = grid.permute(0, 2, 3, 1)
    moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)
