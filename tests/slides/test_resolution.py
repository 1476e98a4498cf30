"""A patch is the same tissue at every scale, to parts of a pixel."""

from itertools import pairwise

import numpy as np
import pytest
from make_slides import (
    aperio_slide,
    generic_slide,
    levels_file,
    marked_levels,
    noise,
    ome_slide,
    openslide_file,
    reduced,
    tissue,
)
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.slides.opening import open_slide
from d2l_study.slides.openslide_reader import OpenSlideReader
from d2l_study.slides.resolution import PatchReader, box_means
from d2l_study.slides.slide import Level


def weights(edges, count):
    """(boxes, count): the share of each pixel in a box, one by one."""
    found = np.zeros((len(edges) - 1, count))
    for i, (low, high) in enumerate(pairwise(edges)):
        for j in range(count):
            found[i, j] = max(0.0, min(high, j + 1) - max(low, j)) / (high - low)
    return found


def means_one_by_one(pixels, rows, columns):
    down, across = weights(rows, pixels.shape[0]), weights(columns, pixels.shape[1])
    return np.einsum("ih,hwc,jw->ijc", down, pixels.astype(float), across)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 1.5, 4.0001, 2.3, 0.7, 1.0001])
@pytest.mark.parametrize("begin", [0, 0.25, 0.9999])
def test_means_over_boxes(step, begin):
    pixels = noise(97, 113)
    edges = begin + step * np.arange(21)
    expected = means_one_by_one(pixels, edges, edges + 1)
    found = box_means(pixels, edges, edges + 1)
    assert found.shape == (20, 20, 3) and found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.6  # Pillow rounds so


@pytest.mark.parametrize(
    ("base", "size", "downsample"),
    [
        ((46_000, 32_914), (11_500, 8228), 4.0),
        ((46_000, 32_914), (2875, 2057), 16.0),
        ((46_000, 32_914), (718, 514), 64.0),
        ((46_000, 32_914), (719, 515), 64.0),  # filled up
        ((1000, 900), (333, 300), 3.0),
        ((3600, 2400), (837, 558), 3600 / 837),
        ((40_000, 40_000), (9990, 9990), 40_000 / 9990),
    ],
)
def test_a_downsample_is_whole_where_the_rest_was_cut_off(base, size, downsample):
    assert Level.below(base, size).downsample == pytest.approx(downsample, rel=1e-12)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A slide whose levels are 4.0040 and 16.32 times smaller, with marks about known places."""
    marks = [(200, 120, 96), (1500, 800, 96), (3333, 2111, 96), (3900, 2900, 64)]
    sizes = [(999, 749), (245, 184)]
    path = tmp_path_factory.mktemp("odd") / "a.tif"
    return levels_file(path, marked_levels(4000, 3000, sizes, marks)), marks


def centre(patch):
    """The middle of what is not white, in pixels of the patch, and its area."""
    mass = (255.0 - patch).max(axis=-1) / 255
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]] + 0.5
    return (mass * x).sum() / mass.sum(), (mass * y).sum() / mass.sum(), mass.sum()


@pytest.mark.parametrize("reader", [open_slide, OpenSlideReader])
@pytest.mark.parametrize(("mpp", "level"), [(0.25, 0), (0.5, 0), (1.0, 1), (1.1, 1), (3.0, 1), (4.081, 2), (6.0, 2)])
def test_marks_are_found_at_every_level_where_they_are(odd, reader, mpp, level):
    """To a tenth of a pixel of the level read, and an eighth of one of level 0 more where OpenSlide shifts."""
    path, marks = odd
    with reader(path) as slide:
        slide.mpp = (0.25, 0.25)
        patches = PatchReader(slide, mpp, 64)
        assert patches.level == level
        side = 64 * mpp / 0.25
        assert patches.side == pytest.approx((side, side))
        corners = [(x + edge / 2 - side / 2 + 3.3, y + edge / 2 - side / 2 - 1.7) for x, y, edge in marks]
        for (x, y, edge), corner, patch in zip(marks, corners, patches.read(corners), strict=True):
            others = [m for m in marks if m != (x, y, edge)]
            if any(abs(m[0] - x) < side and abs(m[1] - y) < side for m in others) or edge >= side - 10:
                continue
            found_x, found_y, area = centre(patch)
            scale = mpp / 0.25
            step = slide.levels[level].downsample
            assert abs(corner[0] + found_x * scale - (x + edge / 2)) < 0.1 * step + 0.5 * (level > 0)
            assert abs(corner[1] + found_y * scale - (y + edge / 2)) < 0.1 * step + 0.5 * (level > 0)
            assert area * scale**2 == pytest.approx(edge**2, rel=0.1)


@pytest.mark.parametrize("write", [aperio_slide, ome_slide, generic_slide])
def test_40x_and_20x_come_out_in_the_same_microns(tmp_path, write):
    """The same tissue scanned at 0.25 and at 0.5 µm gives the same patches at 0.5, 0.8 and 1 µm."""
    fine = tissue(2048, 1536)
    ending = {aperio_slide: ".svs", ome_slide: ".ome.tif", generic_slide: ".tif"}[write]
    slides = [
        open_slide(write(tmp_path / f"{name}{ending}", pixels, mpp, compression="lossless"))
        for name, pixels, mpp in (("40x", fine, 0.25), ("20x", reduced(fine, 2), 0.5))
    ]
    assert [slide.mpp for slide in slides] == [pytest.approx((0.25, 0.25)), pytest.approx((0.5, 0.5))]
    corners = np.array([[0, 0], [400, 300], [816, 504], [1100, 776], [1992, 1400]])
    for mpp in (0.5, 0.8, 1.0):
        forty, twenty = (PatchReader(slide, mpp, 96) for slide in slides)
        assert forty.side == pytest.approx((96 * mpp / 0.25,) * 2)
        assert twenty.side == pytest.approx((96 * mpp / 0.5,) * 2)
        one, other = forty.read(corners), twenty.read(corners / 2)
        # Each level was rounded; at 0.8 µm a pixel is 1.6 of one slide's, which were means before.
        difference = np.abs(one.astype(int) - other.astype(int))
        assert np.quantile(difference, 0.999) <= 1 if mpp != 0.8 else difference.mean() < 1


def test_patches_of_level_0_are_its_pixels(tmp_path):
    pixels = noise(300, 200)
    with open_slide(aperio_slide(tmp_path / "a.svs", pixels, None, compression="lossless")) as slide:
        assert slide.mpp is None
        found = PatchReader(slide, None, 32)
        assert (found.side, found.level) == ((32, 32), 0)
        patches = found.read([(10, 20), (280, 190), (-5, -6)])
    np.testing.assert_array_equal(patches[0], pixels[20:52, 10:42])
    np.testing.assert_array_equal(patches[1][:10, :20], pixels[190:, 280:])
    assert (patches[1][10:] == 255).all() and (patches[1][:, 20:] == 255).all()
    np.testing.assert_array_equal(patches[2][6:, 5:], pixels[:26, :27])


def test_a_patch_at_the_resolution_of_a_level_is_its_pixels(tmp_path):
    """Also where the sizes' ratio is 4.0003: what is left over was cut off, and nothing is blended."""
    pixels = noise(1203, 1002)
    with open_slide(generic_slide(tmp_path / "a.tif", pixels, 0.25, compression="lossless", step=4)) as slide:
        found = PatchReader(slide, 1.0, 50)
        assert found.level == 1
        np.testing.assert_array_equal(found.read([(400, 200)])[0], reduced(pixels, 4)[50:100, 100:150])


def test_no_patches_have_the_right_shape(tmp_path):
    with open_slide(openslide_file(tmp_path, "small.svs")) as slide:
        assert PatchReader(slide, 0.499, 8).read(np.empty((0, 2))).shape == (0, 8, 8, 3)


def test_pixels_that_are_not_square(tmp_path):
    fine = tissue(1000, 800)
    flat = np.asarray(Image.fromarray(fine).resize((1000, 400), Image.Resampling.BOX))
    one = open_slide(ome_slide(tmp_path / "a.ome.tif", fine, 0.25, compression="lossless"))
    other = open_slide(ome_slide(tmp_path / "b.ome.tif", flat, (0.25, 0.5), compression="lossless"))
    assert other.mpp == (0.25, 0.5)
    squares, tall = PatchReader(one, 0.5, 64), PatchReader(other, 0.5, 64)
    assert (squares.side, tall.side) == ((128, 128), (128, 64))
    difference = squares.read([(200, 300)]).astype(int) - tall.read([(200, 150)])
    assert np.abs(difference).max() <= 1


def test_a_resolution_that_is_missing_or_too_coarse_is_answered_in_a_line(tmp_path):
    path = aperio_slide(tmp_path / "a.svs", tissue(), None)
    with pytest.raises(UserError) as caught:
        PatchReader(open_slide(path), 0.5, 224)
    assert str(caught.value).startswith(f"{path}: how many µm a pixel is: it does not say; expected ")
    patches = PatchReader(open_slide(path, mpp=0.25), 0.5, 224)
    assert patches.side == (448, 448)
    with pytest.raises(UserError) as caught:
        PatchReader(open_slide(path, mpp=2), 0.5, 224)
    assert "its pixels are 2 µm, too coarse for patches at 0.5 µm; expected at most 0.625 µm" in str(caught.value)
