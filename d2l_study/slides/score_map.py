"""A map of scores over a slide, one pixel for each tile, as a tiled pyramidal OME-TIFF.

QuPath, ImageJ and napari open it. Its pixels are float32: the scores themselves, where 8 bits would round them to 1/255
and leave no value for what has none. Where there is no tile, a pixel is NaN, not 0: no tissue is no low score. A level
of the pyramid has the mean of what there is. PhysicalSizeX and PhysicalSizeY are the step between tiles in µm, and
PositionX and PositionY say where on the slide the first pixel has its centre.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.errors import UserError
from d2l_study.slides.packages import extra_package
from d2l_study.slides.regions import Side, both_sides
from d2l_study.slides.score_files import TileScores

TILE = 256
"""Pixels of a side of the file's own tiles; a level whose longer side has more has a coarser one below it."""
MOST_PIXELS = 250_000_000
"""Of a map, which is held whole: 1 GB."""


@dataclass(frozen=True)
class ScoreMap:
    """values: (rows, columns) float32, NaN where there is no tile; step: (2,) level-0 pixels that a pixel stands for,
    along x and y; origin: (2,) level-0 pixels, the upper left corner of the first pixel, less than a step above and to
    the left of the slide's own."""

    values: np.ndarray
    step: np.ndarray
    origin: np.ndarray


def score_map(blocks: Iterable[TileScores], size: tuple[int, int], side: Side, step: Side) -> ScoreMap:
    """The map of the scores of a slide's tiles.

    size: (width, height) of the slide; side: of a tile; step: between neighbouring tiles, less than the side where
    they overlap; all in level-0 pixels. Pixels lie so that the first tile has its centre in the middle of one. A tile
    counts for the pixel that its centre lies in; if several do, because a tool began a new grid for every piece of
    tissue, the pixel has their mean. `UserError` for a map of more than `MOST_PIXELS`.
    """
    sides, steps = both_sides(side), both_sides(step)
    some = (tiles for tiles in blocks if len(tiles))
    first = next(some, None)
    origin = np.zeros(2) if first is None else _origin(first.xy[0] + sides / 2, steps)
    columns, rows = np.maximum(1, np.ceil((np.asarray(size) - origin) / steps - 1e-9)).astype(np.int64).tolist()
    if rows * columns > MOST_PIXELS:
        raise UserError(
            f"a score map of {columns:,}×{rows:,} pixels, {rows * columns:,} in all; at most {MOST_PIXELS:,} are made"
        )
    total, count = np.zeros(rows * columns), np.zeros(rows * columns, np.int64)
    for tiles in chain([] if first is None else [first], some):
        column, row = np.floor((tiles.xy + sides / 2 - origin) / steps).astype(np.int64).T
        pixel = row.clip(0, rows - 1) * columns + column.clip(0, columns - 1)
        np.add.at(total, pixel, tiles.score)
        np.add.at(count, pixel, 1)
    mean = np.full(rows * columns, np.nan, np.float32)
    np.divide(total, count, out=mean, where=count > 0, casting="same_kind")
    return ScoreMap(mean.reshape(rows, columns), steps, origin)


def _origin(centre: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Where a grid of pixels begins, less than a step before the slide, with the centre in the middle of a pixel."""
    phase = np.remainder(centre - step / 2, step)
    aligned = np.isclose(phase, 0, atol=1e-6) | np.isclose(phase, step, atol=1e-6)
    return np.where(aligned, 0.0, phase - step)


def write_score_map(path: Path, found: ScoreMap, mpp: tuple[float, float] | None, name: str) -> None:
    """Write the map. The file appears whole or not at all.

    mpp: µm of a level-0 pixel of the slide, None leaves the physical size out; name: of the image, such as the slide's.
    `UserError` without the package tifffile.
    """
    tifffile = extra_package("tifffile", f"{path}: writing a score map")
    metadata: dict[str, Any] = {"axes": "YX", "Name": name, "Channel": {"Name": ["score"]}}
    resolution: dict[str, Any] = {}
    if mpp is not None:
        pixel = found.step * mpp
        centre = (found.origin + found.step / 2) * mpp
        metadata["Plane"] = {}
        for axis, place, size in zip("XY", centre.tolist(), pixel.tolist(), strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
            metadata["Plane"] |= {f"Position{axis}": place, f"Position{axis}Unit": "µm"}
        resolution = {"resolution": tuple((1e4 / pixel).tolist()), "resolutionunit": "CENTIMETER"}
    levels = list(pyramid(found.values))
    how = {"tile": (TILE, TILE), "compression": "zlib", "photometric": "minisblack"}
    with atomic_write(path) as temporary, tifffile.TiffWriter(temporary, ome=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **resolution, **how)
        for level in levels[1:]:
            file.write(level, subfiletype=1, metadata=None, **how)


def pyramid(values: np.ndarray) -> Iterator[np.ndarray]:
    """The levels from fine to coarse, each of half the pixels a side, rounded up. values: (rows, columns) float32."""
    yield values
    while max(values.shape) > TILE:
        values = _halved(values)
        yield values


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels, of those that are not NaN."""
    rows, columns = values.shape
    padded = np.pad(values, ((0, rows % 2), (0, columns % 2)), constant_values=np.nan)
    fours = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).swapaxes(1, 2).reshape(-1, 4)
    known = np.isfinite(fours)
    mean = np.full(len(fours), np.nan, np.float32)
    np.divide(np.where(known, fours, 0).sum(axis=1), known.sum(axis=1), out=mean, where=known.any(axis=1),
              casting="same_kind")  # fmt: skip
    return mean.reshape(padded.shape[0] // 2, padded.shape[1] // 2)
