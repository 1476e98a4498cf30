"""The mosaic holds the colon images where it says, and their nuclei where they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from d2l_study.data import colon
from d2l_study.data.colon_mosaic import MARGIN, MPP, write_colon_mosaic
from d2l_study.data.cutting import cut_patches
from d2l_study.data.synthetic_tissue import write_colon
from d2l_study.environment import in_data_folder
from d2l_study.errors import UserError
from d2l_study.slides.image_files import read_image
from d2l_study.slides.opening import open_slide
from d2l_study.slides.resolution import PatchReader


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    write_colon(folder, 7, side=160, nuclei=12)
    return folder


def made(folder, root, **how):
    path, truth = folder / "a.svs", folder / "a.geojson"
    placed = write_colon_mosaic(path, truth, root=root, compression="lossless", **how)
    return (
        open_slide(path),
        json.loads(truth.read_text()),
        placed,
        {image.name: image for image in colon.find_images(root)},
    )


def assert_same(slide, truth, placed, images):
    """Each image, each nucleus with its class, and each patch about it, as the loader cuts it."""
    points = {}
    for feature in truth["features"]:
        assert feature["geometry"]["type"] == "Point"
        name, _ = feature["properties"]["name"].split()
        kind = feature["properties"]["classification"]["name"]
        points.setdefault(name, []).append((*feature["geometry"]["coordinates"], kind))
    assert len({feature["id"] for feature in truth["features"]}) == len(truth["features"])
    patches = PatchReader(slide, MPP, 27)
    assert patches.side == pytest.approx((27, 27)) and patches.level == 0
    for one in placed:
        image = images[one.name]
        pixels = read_image(image.image)
        np.testing.assert_array_equal(slide.read(0, one.x, one.y, one.width, one.height), pixels)
        expected = [
            (x, y, kind if kind == "epithelial" else "other nuclei")
            for kind in colon.CLASSES
            for x, y in colon.read_nuclei(image.nuclei[kind])
        ]
        found = [(x - one.x - 0.5, y - one.y - 0.5, kind) for x, y, kind in points.get(one.name, [])]
        assert sorted(found) == sorted(expected)
        xy = np.array([(x, y) for x, y, _ in points[one.name]])
        cut = cut_patches(pixels, xy - [one.x + 0.5, one.y + 0.5], (27, 27))
        np.testing.assert_array_equal(patches.read(xy - 13.5), cut.transpose(0, 2, 3, 1))


def test_a_mosaic_of_drawn_images(tmp_path, drawn):
    slide, truth, placed, images = made(tmp_path, drawn)
    assert (slide.vendor, slide.mpp) == ("aperio", (MPP, MPP))
    assert len(placed) == 7 and (slide.width, slide.height) == (3 * (160 + 2 * MARGIN),) * 2
    assert len({(one.x, one.y) for one in placed}) == 7
    assert_same(slide, truth, placed, images)
    assert (slide.read(0, slide.width - 50, slide.height - 50, 50, 50) == 255).all()


@pytest.mark.skipif(not in_data_folder(colon.ARCHIVE), reason="no colon images")
def test_a_mosaic_of_real_images(tmp_path):
    root = Path(in_data_folder(colon.ARCHIVE))
    slide, truth, placed, images = made(tmp_path, root, images=6, columns=2)
    assert (slide.width, slide.height) == (2 * (500 + 2 * MARGIN), 3 * (500 + 2 * MARGIN))
    assert_same(slide, truth, placed, images)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_compressed_mosaics_are_near(tmp_path, drawn, compression):
    placed = write_colon_mosaic(tmp_path / "a.svs", root=drawn, compression=compression)
    with open_slide(tmp_path / "a.svs") as slide:
        for image, one in zip(colon.find_images(drawn), placed, strict=True):
            found = slide.read(0, one.x, one.y, one.width, one.height).astype(int)
            assert np.abs(found - read_image(image.image)).mean() < 6


def test_where_there_is_no_archive_images_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_DATA", str(tmp_path))
    placed = write_colon_mosaic(tmp_path / "a.svs", tmp_path / "a.geojson", synthetic=2, compression="jpeg")
    assert [one.name for one in placed] == ["img1", "img2"]
    assert json.loads((tmp_path / "a.geojson").read_text())["features"]
    with pytest.raises(UserError, match="holds no colon images"):
        write_colon_mosaic(tmp_path / "b.svs", root=tmp_path)
