"""Slides with flipped, overwritten and missing bytes are read or refused in a line: no traceback, no other message."""

import numpy as np
import pytest
from damage import damaged
from make_slides import OPENSLIDE_FILES, aperio_slide, generic_slide, levels_file, ome_slide, tissue

from d2l_study.errors import UserError
from d2l_study.slides.opening import is_slide, open_slide


def aperio(compression):
    return lambda folder: aperio_slide(folder / "a.svs", tissue(200, 150), compression=compression, least=60)


def ome(compression):
    return lambda folder: ome_slide(folder / "a.ome.tif", tissue(200, 150), compression=compression)


KINDS = {
    "Aperio, JPEG": aperio("jpeg"),
    "Aperio, JPEG 2000": aperio("jpeg2000"),
    "Aperio, lossless": aperio("lossless"),
    "OME, JPEG": ome("jpeg"),
    "OME, JPEG 2000": ome("jpeg2000"),
    "generic": lambda folder: generic_slide(folder / "a.tif", tissue(200, 150)),
    "strips": lambda folder: levels_file(folder / "a.tif", [tissue(200, 150)], tile=None, compression="lzw"),
    "SVS": lambda folder: OPENSLIDE_FILES / "small.svs",
    "DICOM": lambda folder: OPENSLIDE_FILES / "boxes_0.dcm",
}


def look(path):
    is_slide(path)
    with open_slide(path) as slide:
        for level, one in enumerate(slide.levels[:3]):
            width, height = min(one.width, 300), min(one.height, 300)
            assert slide.read(level, 0, 0, width, height).shape == (height, width, 3)


def look_at_damaged(folder, kind, seeds):
    written = KINDS[kind](folder)
    path, data = folder / f"damaged{written.suffix}", written.read_bytes()
    refused = 0
    for seed in seeds:
        path.write_bytes(damaged(data, np.random.default_rng(seed), 600))
        try:
            look(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error), seed
    assert len(seeds) / 20 < refused < len(seeds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_slide_is_read_or_refused_in_a_line(tmp_path, kind, capfd):
    look_at_damaged(tmp_path, kind, range(40))
    assert capfd.readouterr() == ("", "")


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_slides(tmp_path, kind, capfd):
    look_at_damaged(tmp_path, kind, range(1000, 3000))
    assert capfd.readouterr() == ("", "")
