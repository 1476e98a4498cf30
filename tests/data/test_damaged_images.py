"""Files with flipped, overwritten and missing bytes are read or refused in a line: no traceback, no guess at a size."""

import io
import os

import numpy as np
import pytest
from damage import damaged
from PIL import Image
from tiff_bytes import tiff_bytes

from d2l_study.errors import UserError
from d2l_study.inference.inputs import open_inputs, read_parts
from d2l_study.inference.tissue_image import open_tissue
from d2l_study.slides.image_files import image_size, read_image

SIDE = 16
KINDS = ("PNG", "BMP", "JPEG", "tiff", "tiff_lzw", "tiff_jpeg", "npy", "npz")


def whole(kind):
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    out = io.BytesIO()
    if kind == "tiff":
        return tiff_bytes(pixels)
    if kind == "npy":
        np.save(out, pixels)
    elif kind in ("tiff_lzw", "tiff_jpeg"):
        Image.fromarray(pixels).save(out, "TIFF", compression=kind.replace("tiff_jpeg", "jpeg"))
    elif kind == "npz":
        np.savez_compressed(out, x=pixels.transpose(2, 0, 1)[None])
    else:
        Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def patches(path):
    shape = (3, SIDE, SIDE)
    for part in read_parts(open_inputs([path], shape), shape):
        assert part.patches.shape[1:] == shape


def bands(path):
    image = open_tissue(path, 3)
    if image.width * image.height > 10**6:
        image.rows(0, 1)
        return
    assert image.rows(0, image.height).shape == (image.height, image.width, 3)


def look_at_damaged(folder, kind, seeds):
    path, data = folder / "a.bin", whole(kind)
    refused = 0
    for seed in seeds:
        path.write_bytes(damaged(data, np.random.default_rng(seed), 200))
        for door in (image_size, read_image, patches, bands):
            try:
                door(path)
            except UserError as error:
                refused += 1
                assert str(error).startswith(str(path)) and "\n" not in str(error), (seed, door.__name__)
    assert refused > len(seeds) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_in_a_line(tmp_path, kind, capfd):
    look_at_damaged(tmp_path, kind, range(60))


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_are_read_or_refused_in_a_line(tmp_path, kind, capfd):
    look_at_damaged(tmp_path, kind, range(1000, 6000))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(UserError, match="neither a file nor a folder"):
            open_inputs([path], (3, SIDE, SIDE))
