"""Tiles lie where microns say, without errors that add up, wholly within the slide, and only on tissue."""

import math
from fractions import Fraction

import numpy as np
import pytest
from make_slides import GROUND, aperio_slide, noise, ome_slide, reduced, tissue
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.slides.opening import open_slide
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.tiles import TileGrid, TileSettings, cut_tiles, tile_coordinates
from d2l_study.slides.tissue import TissueMask


def grid(width, height, side, size=224, overlap=0):
    step = side * (size - overlap) / size
    return TileGrid(size, overlap, width, height, (side, side), (step, step))


@pytest.mark.parametrize(("mpp", "slide_mpp"), [("0.5", "0.25"), ("0.5", "0.2527"), ("0.5", "0.2273"), ("1", "0.3"),
                                                ("0.5", "0.499"), ("0.5", "0.55")])  # fmt: skip
@pytest.mark.parametrize("overlap", [0, 56, 223])
def test_columns_are_whole_pixels_nearest_to_exact_ones(mpp, slide_mpp, overlap):
    width, size = 20_000, 224
    side, step = (Fraction(mpp) / Fraction(slide_mpp) * pixels for pixels in (size, size - overlap))
    found = grid(width, 500, float(side), size, overlap).columns()
    assert found.dtype == np.int64 and found[0] == 0
    steps = np.diff(found)
    assert set(steps.tolist()) <= {math.floor(step), math.ceil(step)} - {0}
    assert max(abs(x - round(x / step) * step) for x in found.tolist()) <= Fraction(1, 2)
    if step >= 1:  # the k-th column, however many there are
        assert max(abs(x - k * step) for k, x in enumerate(found.tolist())) <= Fraction(1, 2)
    assert found[-1] + side <= width < found[-1] + math.ceil(step) + side


def test_slides_of_two_magnifications_are_cut_at_the_same_microns(tmp_path):
    pixels = tissue(4000, 3000)
    microns, counts = [], []
    for name, image, mpp in (("40", pixels, 0.25), ("20", reduced(pixels, 2), 0.5)):
        with open_slide(ome_slide(tmp_path / f"{name}.ome.tif", image, mpp=mpp, tile=256)) as slide:
            tiles = cut_tiles(slide, TileSettings(0.55, 32))
        microns.append({tuple(xy) for xy in np.rint(tiles.xy * mpp / (0.55 * 32)).astype(int).tolist()})
        off = tiles.xy * mpp - np.rint(tiles.xy * mpp / (0.55 * 32)) * 0.55 * 32
        assert np.abs(off).max() <= mpp / 2 + 1e-9  # half a pixel of level 0
        assert tiles.mpp == 0.55 and tiles.slide_mpp == (mpp, mpp)
        counts.append(len(tiles))
    assert min(counts) > 300
    assert len(microns[0] ^ microns[1]) <= 2  # tiles of just half tissue


def test_tiles_lie_wholly_within_and_leave_no_room_for_another():
    for side in (10, 10.5, 33.3, 64.0001):
        for width in (10, 64, 65, 100, 333, 1000):
            columns = grid(width, width, side).columns()
            assert (columns >= 0).all() and (columns + side <= width + 1e-5).all()
            assert len(columns) == 0 or columns[-1] + 2 * side > width - 1
            assert bool(len(columns)) == (side <= width + 1e-6)


def test_tiles_go_row_by_row():
    xy = tile_coordinates(grid(100, 50, 20.0))
    assert xy.dtype == np.int64
    assert xy.tolist() == [[x, y] for y in (0, 20) for x in (0, 20, 40, 60, 80)]


def test_a_slide_smaller_than_a_tile_has_none():
    xy = tile_coordinates(grid(100, 19, 20.0))
    assert xy.shape == (0, 2) and xy.dtype == np.int64


def share_one_by_one(mask, downsample, x, y, side):
    """The share of a tile that is tissue, by the overlap of each pixel of the mask with it."""
    total = 0.0
    for row, column in np.argwhere(mask):
        width = min((column + 1) * downsample[0], x + side) - max(column * downsample[0], x)
        height = min((row + 1) * downsample[1], y + side) - max(row * downsample[1], y)
        total += max(0, width) * max(0, height)
    return total / side**2


@pytest.mark.parametrize("side", [7.3, 16.0, 2.5])
def test_shares_of_tissue_are_exact(side):
    mask = np.random.default_rng(1).random((12, 16)) < 0.5
    downsample = (6.25, 6.0)
    of = grid(100, 72, side)
    everywhere = tile_coordinates(of)
    shares = np.array([share_one_by_one(mask, downsample, x, y, side) for x, y in everywhere.tolist()])
    for least in (0.25, 0.999, 0.5):
        found = tile_coordinates(of, TissueMask(mask, downsample), least)
        assert np.array_equal(found, everywhere[shares >= least - 1e-9])
    assert np.array_equal(tile_coordinates(of, TissueMask(mask, downsample), 0.0), everywhere[shares > 1e-9])
    assert 0 < len(found) < len(everywhere)


def test_only_tiles_of_tissue_are_kept(tmp_path):
    pixels = tissue(3000, 2000)
    with open_slide(aperio_slide(tmp_path / "a.svs", pixels)) as slide:
        some = cut_tiles(slide, TileSettings(0.5, 50))
        every = cut_tiles(slide, TileSettings(0.5, 50, tissue=False))
        fully = cut_tiles(slide, TileSettings(0.5, 50, least_tissue=1.0))
    stained = (pixels != GROUND).any(axis=2)
    shares = np.array([stained[y : y + 100, x : x + 100].mean() for x, y in every.xy.tolist()])
    assert len(every) == 600 and every.tissue is None
    kept = {tuple(xy) for xy in some.xy.tolist()}
    for share, xy in zip(shares, every.xy.tolist(), strict=True):
        if abs(share - 0.5) > 0.05:
            assert (tuple(xy) in kept) == (share > 0.5)
    assert 0 < len(fully) < len(some) < len(every)


def test_a_tile_read_at_its_place_is_the_tissue_there(tmp_path):
    pixels = noise(1000, 700)
    with open_slide(ome_slide(tmp_path / "a.ome.tif", pixels, mpp=0.25, compression="lossless")) as slide:
        tiles = cut_tiles(slide, TileSettings(0.5, 100, tissue=False))
        patches = PatchReader(slide, 0.5, 100).read(tiles.xy)
    assert len(tiles) == 15 and tiles.side == (200, 200)
    for (x, y), patch in zip(tiles.xy.tolist(), patches, strict=True):
        expected = np.asarray(Image.fromarray(pixels[y : y + 200, x : x + 200]).reduce(2))
        assert np.abs(patch.astype(int) - expected).max() <= 1
    assert tiles.centres()[0].tolist() == [99.5, 99.5]


def test_what_tiles_cannot_be_is_answered_in_a_line(tmp_path):
    with open_slide(ome_slide(tmp_path / "a.ome.tif", noise(300, 200), mpp=0.25)) as slide:
        for size, overlap, said in ((0, 0, "1 or more"), (10, 10, "less than the 10")):
            with pytest.raises(UserError, match=said):
                TileGrid.of_slide(slide, 0.5, size, overlap)
        with pytest.raises(UserError, match=r"too coarse for patches at 0.19 µm; expected at most 0.2375 µm"):
            TileGrid.of_slide(slide, 0.19, 10)
        assert TileGrid.of_slide(slide, 0.2, 10).side == (8, 8)  # a quarter finer is allowed
