"""Which patches of an image are white ground: those whose mean intensity is above `data.white_above`. Training leaves
them out, so that a model's scores of them mean nothing."""

from __future__ import annotations

import numpy as np

from d2l_study.inference.sliding_window import Grid


def white_patches(picture: np.ndarray, patch: tuple[int, int], scale: float, white_above: float | None) -> np.ndarray:
    """(h, w) bool: whether the patch about a pixel has a mean intensity above `white_above`; nowhere without one.

    picture: (h, w, 1 or 3) uint8, the image enlarged by `scale`; patch: (height, width) in the image. Beyond the border
    the picture is mirrored.
    """
    if white_above is None:
        return np.zeros(picture.shape[:2], bool)
    means = picture.mean(axis=2, dtype=np.float64) / 255
    for axis in (0, 1):
        side = max(1, round(patch[axis] * scale))
        around = [(0, 0), (0, 0)]
        around[axis] = (side // 2 + 1, side - side // 2 - 1)
        sums = np.moveaxis(np.pad(means, around, "symmetric").cumsum(axis), axis, 0)
        means = np.moveaxis(sums[side:] - sums[:-side], 0, axis) / side
    return np.asarray(means > white_above)


def white_on_grid(tissue: np.ndarray, shrink: int, grid: Grid, white_above: float | None) -> np.ndarray:
    """(rows, columns) bool: whether the patch of a grid is white ground; nowhere without `white_above`, in [0, 1].

    tissue: (h, w, 1 or 3) uint8, the image reduced by the whole factor `shrink` (`TissueImage.reduced`).
    """
    white = white_patches(tissue, grid.patch, 1 / shrink, white_above)
    rows = ((grid.y0 + grid.stride * np.arange(grid.rows)) // shrink).astype(np.int64)
    columns = ((grid.x0 + grid.stride * np.arange(grid.columns)) // shrink).astype(np.int64)
    return white[rows.clip(0, white.shape[0] - 1)[:, None], columns.clip(0, white.shape[1] - 1)]
