"""Pyramids are written from arrays and from rows as they come, and other programs' readers find what was meant."""

import itertools

import numpy as np
import openslide
import pytest
import tifffile
from make_slides import noise, reduced, tissue

from d2l_study.slides.opening import open_slide
from d2l_study.slides.pyramid_file import COMPRESSIONS, LAYOUTS, write_pyramid


def bands(pixels, heights):
    first = 0
    for height in itertools.cycle(heights):
        if first >= len(pixels):
            return
        yield pixels[first : first + height]
        first += height


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heights", [(1,), (7, 300, 2), (64,), (1000,)])
def test_rows_in_bands_make_the_same_file_as_an_array(tmp_path, layout, heights):
    pixels = noise(333, 401)
    how = {"mpp": 0.25, "layout": layout, "compression": "lossless", "tile": 64, "step": 3, "least": 60}
    write_pyramid(tmp_path / "a.tif", pixels, **how)
    write_pyramid(tmp_path / "b.tif", bands(pixels, heights), size=(333, 401), **how)
    one, other = open_slide(tmp_path / "a.tif"), open_slide(tmp_path / "b.tif")
    assert [(level.width, level.height) for level in one.levels] == [(333, 401), (111, 133), (37, 44)]
    expected = pixels
    for i, level in enumerate(one.levels):
        found = one.read(i, 0, 0, level.width, level.height)
        np.testing.assert_array_equal(found, other.read(i, 0, 0, level.width, level.height))
        np.testing.assert_array_equal(found, expected)
        expected = reduced(expected, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tifffile_finds_one_series_of_levels(tmp_path, layout, compression):
    write_pyramid(tmp_path / "a.tif", tissue(640, 480), mpp=(0.25, 0.3), layout=layout, compression=compression,
                  tile=64, step=2, least=100)  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        series = tif.series[0]
        assert [level.shape for level in series.levels] == [(480, 640, 3), (240, 320, 3), (120, 160, 3), (60, 80, 3)]
        assert series.kind == {"aperio": "svs", "ome": "ome", "generic": "generic"}[layout]
        assert np.abs(series.asarray().astype(int) - tissue(640, 480)).mean() < 5
        if layout == "ome":
            assert 'PhysicalSizeX="0.25"' in tif.ome_metadata and 'PhysicalSizeY="0.3"' in tif.ome_metadata


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_openslide_finds_what_aperio_writes(tmp_path, compression):
    label, glass = noise(100, 120, 1), noise(300, 100, 2)
    write_pyramid(tmp_path / "a.svs", tissue(900, 600), mpp=0.499, compression=compression, tile=64, least=100,
                  pictures={"label": label, "macro": glass})  # fmt: skip
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert slide.level_dimensions == ((900, 600), (225, 150), (56, 37))
        assert set(slide.associated_images) == {"thumbnail", "label", "macro"}
        np.testing.assert_array_equal(np.asarray(slide.associated_images["label"])[..., :3], label)
        assert slide.associated_images["macro"].size == (300, 100)
        assert slide.properties["openslide.mpp-x"] == "0.499"
        assert slide.properties["aperio.AppMag"] == "20"


def test_a_map_of_one_channel_in_ome(tmp_path):
    values = noise(300, 200)[..., 0]
    write_pyramid(tmp_path / "a.ome.tif", values, mpp=112.0, layout="ome", compression="lossless", step=2, least=64)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        np.testing.assert_array_equal(tif.series[0].levels[0].asarray(), values)
        assert [level.shape for level in tif.series[0].levels] == [(200, 300), (100, 150), (50, 75), (25, 37)]


@pytest.mark.parametrize("heights", [(300,), (250, 10), (7,)])
@pytest.mark.parametrize("height", [199, 201])
def test_rows_that_do_not_make_up_the_size_leave_no_file(tmp_path, heights, height):
    with pytest.raises(ValueError, match="rows"):
        write_pyramid(tmp_path / "a.tif", bands(noise(100, height), heights), size=(100, 200), mpp=None, tile=64)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.tif"
    write_pyramid(path, noise(64, 64), mpp=1.0)
    before = path.read_bytes()

    def broken():
        yield noise(64, 32)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        write_pyramid(path, broken(), size=(64, 64), mpp=1.0)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]
