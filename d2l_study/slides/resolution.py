"""Patches of a size in pixels at a resolution in µm per pixel, whatever the slide was scanned at.

    reader = PatchReader(slide, mpp=0.5, size=224)
    reader.side                                    # (448.0, 448.0) pixels of level 0, for a slide of 0.25 µm
    reader.read([(0, 0), (448, 0)])                # (2, 224, 224, 3) uint8

A patch is read from the nearest finer level, and each of its pixels is the mean over its own footprint there, parts of
pixels by their share: so a patch covers the same tissue at every scale, also where a level is 4.0001 times smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides.slide import Slide

GIVE_MPP = "its resolution in the file, or given (--slide-mpp, or a column mpp of the table)"

SLACK = 1.01
"""A level this much coarser than a patch's pixels still counts as fine enough: a level of 4.0001 serves 4."""

MOST_ENLARGED = 1.25
"""A slide may be this much coarser than its patches, since scanners of one magnification differ so much; beyond that
they would show what no scanner saw."""


def slide_mpp(slide: Slide) -> tuple[float, float]:
    """µm per pixel of level 0 as (x, y); `UserError` if it is not known."""
    if slide.mpp is None:
        found = f"its resolution is given as {slide.doubt}" if slide.doubt else "it does not say"
        raise UserError(f"{slide.path}: how many µm a pixel is: {found}; expected {GIVE_MPP}")
    return slide.mpp


class PatchReader:
    """Reads patches of size × size pixels at a resolution.

    side: of a patch in pixels of level 0, as (x, y); level: the level that is read. Several threads may read.
    """

    side: tuple[float, float]
    level: int

    def __init__(self, slide: Slide, mpp: float | None, size: int) -> None:
        """mpp: µm per pixel of the patches; None for pixels of level 0 as they are.

        `UserError` where mpp is given and the slide's own is not known, or is coarser than `MOST_ENLARGED` times that.
        """
        self.slide, self.size = slide, size
        scale = (1.0, 1.0)
        if mpp is not None:
            own = slide_mpp(slide)
            scale = mpp / own[0], mpp / own[1]
            if MOST_ENLARGED * max(scale) < 1 / SLACK:
                raise UserError(
                    f"{slide.path}: its pixels are {own[0]:.4g} µm, too coarse for patches at {mpp:.4g} µm; expected "
                    f"at most {MOST_ENLARGED * mpp:.4g} µm"
                )
        self.side = size * scale[0], size * scale[1]
        fine = [i for i, level in enumerate(slide.levels) if level.downsample <= min(scale) * SLACK]
        self.level = max(fine, key=lambda i: slide.levels[i].downsample, default=0)
        level = slide.levels[self.level]
        step = (level.downsample, level.downsample)
        if not level.downsample.is_integer():  # made by resampling the whole slide, which each axis fills
            step = slide.width / level.width, slide.height / level.height
        self._step, self._pixel = np.array(step), (scale[0] / step[0], scale[1] / step[1])

    def read(self, xy: np.ndarray | Sequence[tuple[float, float]]) -> np.ndarray:
        """(n, size, size, 3) uint8. xy: (n, 2) upper left corners in pixels of level 0, whole or not.

        What lies beyond the slide is white.
        """
        corners = np.asarray(xy, np.float64).reshape(-1, 2) / self._step
        out = np.empty((len(corners), self.size, self.size, 3), np.uint8)
        for patch, (x, y) in zip(out, corners, strict=True):
            left, width, columns = self._footprint(x, self._pixel[0])
            top, height, rows = self._footprint(y, self._pixel[1])
            pixels = self.slide.read(self.level, left, top, width, height)
            patch[:] = box_means(pixels, rows, columns)
        return out

    def _footprint(self, place: float, pixel: float) -> tuple[int, int, np.ndarray]:
        """The first pixel of the level that a patch touches, how many it touches, and the edges of its own pixels,
        (size + 1,), counted from there."""
        edges = place + pixel * np.arange(self.size + 1)
        near = np.rint(edges)
        edges = np.where(np.abs(edges - near) < 1e-6, near, edges)  # what rounding left of a whole pixel
        first = math.floor(edges[0])
        return first, max(1, math.ceil(edges[-1]) - first), edges - first


def box_means(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The means of a picture over the boxes of a grid, (h, w, c) uint8; parts of pixels count by their share.

    pixels: (H, W, c) uint8; rows, columns: (h + 1,) and (w + 1,) rising edges of the boxes, from 0 to H and to W.
    """
    down, across = _whole_steps(rows), _whole_steps(columns)
    if down is not None and across is not None:
        if down == across == 1:
            return pixels[int(rows[0]) : int(rows[-1]), int(columns[0]) : int(columns[-1])]
        return _whole_means(pixels, int(rows[0]), int(columns[0]), down, across, (len(rows) - 1, len(columns) - 1))
    # First down the columns; then, turned so that the other axis comes first, along the rows.
    lower = _means_of_rows(pixels.astype(np.float32), rows)
    means = _means_of_rows(np.ascontiguousarray(lower.swapaxes(0, 1)), columns).swapaxes(0, 1)
    return (means + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _whole_steps(edges: np.ndarray) -> int | None:
    """The step between edges, if all of them are whole."""
    step = edges[1] - edges[0]
    if step < 1 or step != int(step) or edges[0] != int(edges[0]) or edges[-1] != edges[0] + step * (len(edges) - 1):
        return None
    return int(step)


def _whole_means(pixels: np.ndarray, top: int, left: int, down: int, across: int, shape: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    box = (left, top, left + across * shape[1], top + down * shape[0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce((across, down), box))


def _means_of_rows(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(k, …) float32 means over intervals of the rows (n, …) between k + 1 edges: each row by the share of it that
    lies in an interval, for as many rows as the widest one touches."""
    low, high = edges[:-1], edges[1:]
    first = low.astype(np.int64)
    out = np.zeros((len(first), *values.shape[1:]), np.float32)
    for after in range(int((np.ceil(high) - first).max())):
        row = first + after
        share = (np.minimum(high, row + 1) - np.maximum(low, row)).clip(0) / (high - low)
        picked = values[np.minimum(row, len(values) - 1)]
        picked *= share.astype(np.float32).reshape(-1, *([1] * (values.ndim - 1)))
        out += picked
    return out
