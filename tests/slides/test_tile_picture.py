"""The picture of tiles: blue where tiles are, a green outline of the tissue, the slide elsewhere."""

import io

import numpy as np
import pytest
from make_slides import GROUND, ome_slide, tissue
from PIL import Image

from d2l_study.slides.opening import open_slide
from d2l_study.slides.tile_picture import LINE, MARGIN, TILE, TISSUE, tile_picture
from d2l_study.slides.tiles import TileSettings, cut_tiles


@pytest.fixture
def slide(tmp_path):
    with open_slide(
        ome_slide(tmp_path / "größe.ome.tif", tissue(1600, 1200), mpp=0.5, compression="lossless")
    ) as opened:
        yield opened


def drawn(slide, settings):
    tiles = cut_tiles(slide, settings)
    picture = np.asarray(Image.open(io.BytesIO(tile_picture(slide, tiles, "größe µ"))))
    return tiles, picture[2 * LINE + MARGIN :]


@pytest.mark.parametrize("size", [80, 4])  # with outlines, and without
def test_tiles_are_tinted_and_all_else_is_not(slide, size):
    tiles, picture = drawn(slide, TileSettings(0.5, size))
    assert picture.shape == (1200, 1600, 3)  # a pixel of level 0 each
    covered = np.zeros(picture.shape[:2], bool)
    for x, y in tiles.xy.tolist():
        covered[y : y + size, x : x + size] = True
    outline = (picture == TISSUE).all(axis=2)
    plain = ~covered & ~outline
    assert np.array_equal(picture[plain], slide.thumbnail(1600)[plain])
    glass = covered & ~outline & (slide.thumbnail(1600) == GROUND).all(axis=2)
    assert glass.sum() > 100 and (picture[glass] != GROUND).any(axis=1).all()
    edges = (picture == TILE).all(axis=2)
    assert edges.any() == (size == 80) and not edges[~covered].any()


def test_the_outline_is_that_of_the_tissue(slide):
    _, picture = drawn(slide, TileSettings(0.5, 80))
    outline = (picture == TISSUE).all(axis=2)
    stained = (slide.thumbnail(1600) != GROUND).any(axis=2)
    moved = [np.roll(stained, s, a) for a in (0, 1) for s in (-6, 6)]
    rim = np.logical_or.reduce(moved) & ~np.logical_and.reduce(moved)
    assert outline.sum() > 500 and (outline & rim).sum() > 0.9 * outline.sum()


def test_a_slide_without_tiles_has_its_picture(slide):
    _, picture = drawn(slide, TileSettings(0.5, 5000, tissue=False))
    assert np.array_equal(picture, slide.thumbnail(1600))
