"""Dense prediction: an instance classifier slid over a whole image, which gives a map of its logits.

    grid = Grid.over(image.width, image.height, patch=(27, 27), stride=6)
    logits = score_map(stored, image, grid)              # (grid.rows, grid.columns) float32
    at = place_logits(stored, image, xy)                 # (k,) at places of one's own, such as nuclei

Element [i, j] of a map is the logit of the patch whose centre lies at column `x0 + j stride`, row `y0 + i stride`, in
0-based pixels of the image, a pixel's centre being at whole numbers. Patches are those that the loader of the training
data would cut there (`data.cutting.cut_patches`): what lies beyond the border is reflected without repeating the
border pixel, and the centre of an even side lies between its two middle pixels. An instance's logit is that of the bag
which holds it alone, for a teacher as for a student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2l_study.data.cutting import cut_patches
from d2l_study.errors import UserError
from d2l_study.inference.label import label_instances
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.tissue_image import TissueImage
from d2l_study.learning.prediction import Compute

BAND_BYTES = 16 * 2**20
"""Pixels that are held at a time."""
BATCH_BYTES, BATCH = 16 * 2**20, 2000
"""Patches that are held at a time."""


@dataclass(frozen=True)
class Grid:
    """Where the patches of a map lie: patch (h, w) in pixels; (x0, y0) the first centre; rows × columns of them."""

    patch: tuple[int, int]
    stride: int
    x0: float
    y0: float
    rows: int
    columns: int

    @classmethod
    def over(cls, width: int, height: int, patch: tuple[int, int], stride: int) -> Grid:
        """The grid of centres within an image, each in the middle of its stride × stride pixels (where patch and stride
        are not both odd or both even, half a pixel past it). With an odd patch and stride 1 these are all pixels.

        `UserError` if the image is smaller than a patch, or the stride is not from 1 to the image's shorter side.
        """
        h, w = patch
        if height < h or width < w:
            raise UserError(f"{width}×{height} pixels (width×height), smaller than the model's patch of {w}×{h}")
        if not 1 <= stride <= min(width, height):
            raise UserError(f"--stride {stride} is not allowed; expected a whole number from 1 to {min(width, height)}")
        x0, y0 = (-((side - stride) // 2) + (side - 1) / 2 for side in (w, h))
        return cls(patch, stride, x0, y0, int((height - 1 - y0) // stride) + 1, int((width - 1 - x0) // stride) + 1)

    @property
    def x(self) -> np.ndarray:
        """(columns,) float64 centres in pixels."""
        return self.x0 + self.stride * np.arange(self.columns)

    @property
    def y(self) -> np.ndarray:
        """(rows,) float64 centres in pixels."""
        return self.y0 + self.stride * np.arange(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: patch [h, w], stride, x0, y0, rows, columns."""
        return {"patch": list(self.patch), "stride": self.stride, "x0": self.x0, "y0": self.y0, "rows": self.rows,
                "columns": self.columns}  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Grid:
        return cls(**{**values, "patch": tuple(values["patch"])})


def default_stride(patch: tuple[int, int]) -> int:
    """A quarter of the patch: nuclei, which fill a patch, are seen by several."""
    return max(1, min(patch) // 4)


def score_map(
    stored: StoredModel,
    image: TissueImage,
    grid: Grid,
    compute: Compute | None = None,
    out: np.ndarray | None = None,
    done: Callable[[int], None] | None = None,
    begin: int = 0,
) -> np.ndarray:
    """The logits of all patches of a grid, (rows, columns) float32; some tens of megabytes are held beside them.

    out: written to if given, such as an array that is mapped to a file, C-contiguous; done: a callback, called with the
    number of patches that are ready, counted along the rows; begin: how many `out` holds already, a number that `done`
    was called with. What is scored
    together does not depend on it, so a map that was made in two parts is the same.
    """
    logits = np.empty((grid.rows, grid.columns), np.float32) if out is None else out
    flat = logits.reshape(-1)
    most = _batch(grid.patch, image.channels)
    for first, windows in bands(image, grid, begin // grid.columns):
        place, count = first * grid.columns, len(windows) * grid.columns
        for start in range(0, count, most):
            stop = min(start + most, count)
            if place + stop <= begin:
                continue
            row, column = np.divmod(np.arange(start, stop), grid.columns)
            flat[place + start : place + stop] = label_instances(stored, windows[row, column], compute).logit
            if done is not None:
                done(place + stop)
    return logits


def bands(image: TissueImage, grid: Grid, row: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """The patches of a grid in bands of its rows: the first row, and a view (rows, columns, C, h, w) uint8 of them.

    row: bands that end before it are left out, and not read.
    """
    h, w = grid.patch
    step = max(1, (BAND_BYTES // (image.width * image.channels) - h) // grid.stride)
    top, left = int(grid.y0 - (h - 1) / 2), int(grid.x0 - (w - 1) / 2)
    right = left + grid.stride * (grid.columns - 1) + w
    for first in range(0, grid.rows, step):
        last = min(grid.rows, first + step)
        if last <= row:
            continue
        begin, end = top + grid.stride * first, top + grid.stride * (last - 1) + h
        low, high = max(0, begin), min(image.height, end)
        pixels = image.rows(low, high)[:, max(0, left) : right]
        beyond = ((low - begin, end - high), (max(0, -left), max(0, right - image.width)), (0, 0))
        pixels = np.pad(pixels, beyond, mode="reflect")
        yield first, np.lib.stride_tricks.sliding_window_view(pixels, (h, w), (0, 1))[:: grid.stride, :: grid.stride]


def place_logits(stored: StoredModel, image: TissueImage, xy: np.ndarray, compute: Compute | None = None) -> np.ndarray:
    """The logits at places of one's own, (k,) float32. xy: (k, 2) centres (column, row) in 0-based pixels."""
    logits = np.empty(len(xy), np.float32)
    for chosen, patches in place_patches(image, xy, stored.model.patch_shape[1:]):
        logits[chosen] = label_instances(stored, patches, compute).logit
    return logits


def place_patches(
    image: TissueImage, xy: np.ndarray, patch: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The patches about places, some at a time: which of the k they are, and (n, C, h, w) uint8."""
    h, _ = patch
    order = np.argsort(xy[:, 1], kind="stable")
    most, step = _batch(patch, image.channels), max(h, BAND_BYTES // (image.width * image.channels))
    for start in range(0, len(order), most):
        left = order[start : start + most]
        while len(left):
            near = xy[left, 1] < xy[left[0], 1] + step
            chosen, left = left[near], left[~near]
            # An even number of rows are left out, so that centres between pixels round as they do in the whole image.
            low = max(0, 2 * int((xy[chosen[0], 1] - 2 * h) // 2))
            high = min(image.height, int(xy[chosen[-1], 1]) + 2 * h)
            low = max(0, min(low, 2 * ((image.height - 2 * h) // 2)))
            yield chosen, cut_patches(image.rows(low, high), xy[chosen] - [0, low], patch)


def _batch(patch: tuple[int, int], channels: int) -> int:
    return max(1, min(BATCH, BATCH_BYTES // (channels * patch[0] * patch[1])))
