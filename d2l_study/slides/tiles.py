"""Where the tiles of a slide lie: squares of a size in pixels at a resolution in µm per pixel, on a grid.

    tiles = cut_tiles(slide, TileSettings(mpp=0.5, size=224))
    tiles.xy                                       # (N, 2) int64, level-0 pixels

A tile's place is its upper left corner in pixels of level 0. The k-th column begins at k steps, rounded once to a whole
pixel, so that errors do not add up where a step is not whole: slides scanned at 40× and at 20× are cut at the same µm,
to within half a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.slide import Slide
from d2l_study.slides.tissue import TissueMask, tissue_mask

LEAST_TISSUE = 0.5
"""The share of a tile that is tissue at least, where nothing else is asked for: tiles of which more than half is
background are left out, as by Coudray et al., Nature Medicine 2018."""

MOST_TILES = 20_000_000
"""Of a grid: their places alone need 320 MB."""

_ROUNDING = 1e-9
"""By which a share may be wrong, as a difference of sums."""

_SLACK = 1e-6
"""Pixels by which a tile may reach beyond the slide: what rounding leaves."""


@dataclass(frozen=True)
class TileSettings:
    """What tiles are: `size` pixels a side at `mpp` µm per pixel (None: level-0 pixels as they are). `overlap` of these
    are shared with the next tile; below 0 there are gaps. With `tissue` only tiles are kept of which at least
    `least_tissue`, in [0, 1], is tissue."""

    mpp: float | None
    size: int
    overlap: int = 0
    tissue: bool = True
    least_tissue: float = LEAST_TISSUE


@dataclass(frozen=True)
class SlideTiles:
    """The tiles of a slide.

    name: of the slide; xy: (N, 2) int64 upper left corners in level-0 pixels; size: pixels of a tile's side as it is
    read; side: the same in level-0 pixels, as (x, y), not always whole; overlap: as of `TileSettings`; mpp, slide_mpp:
    µm per pixel of tiles and of level 0, None where it is not known; width, height: of the slide in level-0 pixels, 0
    where it is not known; tissue: where there is some, if it was looked for.
    """

    name: str
    xy: np.ndarray
    size: int
    side: tuple[float, float]
    overlap: int = 0
    mpp: float | None = None
    slide_mpp: tuple[float, float] | None = None
    width: int = 0
    height: int = 0
    tissue: TissueMask | None = None

    def __len__(self) -> int:
        return len(self.xy)

    def centres(self) -> np.ndarray:
        """(N, 2) float64: the middles of the tiles as 0-based level-0 pixels, so that a tile of one pixel lies at its
        corner."""
        return self.xy + (np.array(self.side) - 1) / 2


def cut_tiles(slide: Slide, settings: TileSettings) -> SlideTiles:
    """The tiles of a slide. `UserError` as of `TileGrid.of_slide` and `tissue_mask`."""
    grid = TileGrid.of_slide(slide, settings.mpp, settings.size, settings.overlap)
    tissue = tissue_mask(slide) if settings.tissue else None
    xy = tile_coordinates(grid, tissue, settings.least_tissue)
    return SlideTiles(
        slide.name, xy, settings.size, grid.side, settings.overlap, settings.mpp, slide.mpp, slide.width, slide.height,
        tissue,
    )  # fmt: skip


def why_no_tiles(tiles: SlideTiles, least_tissue: float) -> str:
    """Why a slide has no tiles, in words."""
    if tiles.width < tiles.side[0] or tiles.height < tiles.side[1]:
        side = f"{tiles.side[0]:.4g}×{tiles.side[1]:.4g}"
        return f"{tiles.width}×{tiles.height} pixels, smaller than a tile of {side}"
    if tiles.tissue is not None and not tiles.tissue.mask.any():
        return "no tissue found"
    return f"no tile of which at least {least_tissue:.0%} is tissue"


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a slide that lie wholly within it.

    size: pixels of a tile's side as it is read; overlap: how many of these it shares with the next; width, height: of
    the slide in level-0 pixels; side, step: level-0 pixels of a tile's side and from tile to tile, as (x, y), not
    always whole.
    """

    size: int
    overlap: int
    width: int
    height: int
    side: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def of_slide(cls, slide: Slide, mpp: float | None, size: int, overlap: int = 0) -> Self:
        """mpp: µm per pixel of the tiles, None for level-0 pixels as they are. `UserError` as of `PatchReader`, for a
        size or an overlap that cannot be, or a grid of more than `MOST_TILES`."""
        if size < 1:
            raise UserError(f"size: {size} is not allowed; expected 1 or more pixels")
        if overlap >= size:
            raise UserError(f"overlap: {overlap} is not allowed; expected less than the {size} pixels of a tile")
        side = PatchReader(slide, mpp, size).side
        step = side[0] * (size - overlap) / size, side[1] * (size - overlap) / size
        grid = cls(size, overlap, slide.width, slide.height, side, step)
        if (count := len(grid.columns()) * len(grid.rows())) > MOST_TILES:
            raise UserError(f"{slide.path}: {count:,} tiles of {size} pixels; at most {MOST_TILES:,} are held")
        return grid

    def columns(self) -> np.ndarray:
        """(columns,) int64: where each column begins, rising."""
        return _begins(self.width, self.side[0], self.step[0])

    def rows(self) -> np.ndarray:
        """(rows,) int64: where each row begins, rising."""
        return _begins(self.height, self.side[1], self.step[1])


def tile_coordinates(
    grid: TileGrid, tissue: TissueMask | None = None, least_tissue: float = LEAST_TISSUE
) -> np.ndarray:
    """(N, 2) int64 upper left corners (x, y) in level-0 pixels, row by row.

    tissue: where there is some; None takes all tiles. least_tissue: the share of a tile, in [0, 1], that must be
    tissue; with 0 any tissue is enough.
    """
    columns, found = grid.columns(), []
    counts = None if tissue is None else _Counts(tissue)
    for y in grid.rows().tolist():
        kept = columns
        if counts is not None:
            share = counts.shares(columns, y, grid.side)
            kept = columns[share >= least_tissue - _ROUNDING if least_tissue > 0 else share > _ROUNDING]
        found.append(np.stack([kept, np.full(len(kept), y, np.int64)], axis=1))
    return np.concatenate([np.empty((0, 2), np.int64), *found])


def _begins(length: int, side: float, step: float) -> np.ndarray:
    count = max(0, int((length - side) / step + _SLACK) + 2)
    begins = np.unique(np.rint(np.arange(count) * step).astype(np.int64))  # steps may be below one pixel
    return begins[begins + side <= length + _SLACK]


class _Counts:
    """How much tissue there is in rectangles: the sums of the mask above and left of each of its corners, between
    which they are linear along a side, so that shares are exact for parts of its pixels, too."""

    def __init__(self, tissue: TissueMask) -> None:
        height, width = tissue.mask.shape
        self.downsample = tissue.downsample
        self.sums = np.zeros((height + 1, width + 1), np.float64)
        np.cumsum(tissue.mask, axis=0, out=self.sums[1:, 1:])
        np.cumsum(self.sums, axis=1, out=self.sums)

    def shares(self, columns: np.ndarray, y: int, side: Sequence[float]) -> np.ndarray:
        """(columns,) in [0, 1]: the share of tissue of tiles that begin at these columns and in the row y."""
        across, down = self.downsample
        band = self._above((y + side[1]) / down) - self._above(y / down)
        places = np.arange(len(band))
        area = np.interp((columns + side[0]) / across, places, band) - np.interp(columns / across, places, band)
        return area / (side[0] * side[1] / (across * down))

    def _above(self, row: float) -> np.ndarray:
        """The sums at a height between two rows of corners."""
        row = min(max(row, 0.0), len(self.sums) - 1.0)
        whole = min(int(row), len(self.sums) - 2)
        return self.sums[whole] + (row - whole) * (self.sums[whole + 1] - self.sums[whole])
