"""Small slides for tests: as scanners and programs write them, with known pixels, and wrong in known ways."""

import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from d2l_study.slides.pyramid_file import write_pyramid

OPENSLIDE_FILES = Path(__file__).parent / "openslide_python"
"""`small.svs` and DICOM files of openslide-python's own tests."""

GROUND = (244, 242, 244)
"""Glass, as scanners show it."""


def tissue(width=1200, height=900, seed=0):
    """(height, width, 3) uint8: two round pieces of stained tissue of smooth colours on glass."""
    return _tissue(width, height, seed).copy()


@lru_cache(maxsize=8)
def _tissue(width, height, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    # What becomes of each of 256 values, by channel: tables are far quicker than sums over all pixels.
    stain = np.clip([190, 90, 160] + (np.arange(256)[:, None] - 128) * [0.3, 0.3, 0.25], 0, 255).astype(np.uint8)
    y, x = np.ogrid[:height, :width]
    inside = ((x / width - 0.3) ** 2 + (y / height - 0.5) ** 2 < 0.06) | (
        (x / width - 0.75) ** 2 + (y / height - 0.4) ** 2 < 0.03
    )
    stained = np.stack([stain[smooth[..., channel], channel] for channel in range(3)], axis=2)
    return np.where(inside[..., None], stained, np.array(GROUND, np.uint8))


def noise(width, height, seed=0):
    """(height, width, 3) uint8 without any order, so that a shift by one pixel shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def reduced(pixels, factor):
    """The means of factor × factor pixels; what is left over is cut off."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    if factor == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(factor, (0, 0, width * factor, height * factor)))


def aperio_slide(path, pixels, mpp=0.25, **how):
    """As an Aperio scanner writes it, read by OpenSlide: levels of 4 times, thumbnail, perhaps label and macro."""
    write_pyramid(path, pixels, mpp=mpp, layout="aperio", **{"tile": 64, "least": 100} | how)
    return path


def ome_slide(path, pixels, mpp=0.25, **how):
    """OME-TIFF with levels of 2 times as SubIFDs, as QuPath and bioformats2raw write it."""
    write_pyramid(path, pixels, mpp=mpp, layout="ome", **{"tile": 64, "least": 100, "step": 2} | how)
    return path


def generic_slide(path, pixels, mpp=0.25, **how):
    """A pyramid whose levels are pages, as libvips writes it."""
    write_pyramid(path, pixels, mpp=mpp, layout="generic", **{"tile": 64, "least": 100, "step": 2} | how)
    return path


def levels_file(path, levels, *, pages=True, tile=64, **how):
    """A TIFF of these levels as they are, (h, w, 3) uint8 each, lossless: also of odd downsamples.

    pages: each level a page; else SubIFDs of the first; tile: None for strips.
    """
    how = {"photometric": "rgb", "compression": "deflate", "metadata": None} | how
    how |= {"tile": (tile, tile)} if tile else {"rowsperstrip": 50}
    with tifffile.TiffWriter(path) as tif:
        for i, pixels in enumerate(levels):
            below = {"subifds": len(levels) - 1} if not pages and i == 0 else {}
            smaller = {"subfiletype": 1} if i else {}
            tif.write(pixels, **how, **below, **smaller)
    return path


def marked_levels(width, height, sizes, marks):
    """Levels that are white but for marks: squares about places in pixels of level 0, in a colour of each level.

    sizes: (w, h) of the levels below; marks: (x, y, side) in pixels of level 0. A level's pixel holds the share of it
    that a mark covers.
    """
    found = []
    for i, (w, h) in enumerate([(width, height), *sizes]):
        cover = np.zeros((h, w))
        for x, y, side in marks:
            down, across = _shares(y, side, h, height / h), _shares(x, side, w, width / w)
            rows, columns = (slice(one[0], one[-1] + 1) for one in (down.nonzero()[0], across.nonzero()[0]))
            cover[rows, columns] += np.outer(down[rows], across[columns])
        cover = cover.clip(0, 1)
        values = [200 if channel == i % 3 else 0 for channel in range(3)]
        found.append(np.stack([np.rint(255 + cover * (value - 255)).astype(np.uint8) for value in values], axis=2))
    return found


def _shares(place, side, count, step):
    edges = np.arange(count + 1) * step
    return np.clip(np.minimum(edges[1:], place + side) - np.maximum(edges[:-1], place), 0, None) / step


def without_tiles(path, page, numbers):
    """Leave out tiles of a page, as scanners do where there was nothing: their length becomes 0."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tags = tif.pages[page].tags
        for name in ("TileByteCounts", "TileOffsets"):
            values = list(tags[name].value)
            for number in numbers:
                values[number] = 0
            tags[name].overwrite(values)
    return path


def cut_short(path, share=0.6):
    """The same file, of which the end is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def openslide_file(folder, name, as_name=None):
    """A copy of one of openslide-python's files in a folder."""
    path = folder / (as_name or name)
    shutil.copyfile(OPENSLIDE_FILES / name, path)
    return path


def leica_slide(path, pixels, glass, corner):
    """A Leica SCN slide: of a glass of (width, height) level-0 pixels of 0.5 µm only `pixels`, from `corner` on, were
    scanned."""

    def image(name, directory, shape, size, offset):
        sized, seen = (f'sizeX="{width}" sizeY="{height}"' for width, height in (shape[1::-1], size))
        return (
            f'<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2010-10-01T00:00:00Z</creationDate>'
            f'<device model="Leica SCN400" version="1"/><pixels {sized}><dimension {sized} r="0" ifd="{directory}"/>'
            f'</pixels><view {seen} offsetX="{offset[0]}" offsetY="{offset[1]}" spacingZ="0"/><scanSettings>'
            "<objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
            "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            "</illuminationSettings></scanSettings></image>"
        )

    def nanometres(numbers):
        return [500 * n for n in numbers]

    macro = np.full((glass[1] // 16, glass[0] // 16, 3), 220, np.uint8)
    size, scanned = nanometres(glass), nanometres(pixels.shape[1::-1])
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:a">'
        f'<collection name="c" uuid="urn:uuid:b" sizeX="{size[0]}" sizeY="{size[1]}"><barcode>YQ==</barcode>'
        + image("macro", 0, macro.shape, size, (0, 0))
        + image("main", 1, pixels.shape, scanned, nanometres(corner))
        + "</collection></scn>"
    )
    how = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(macro, description=xml, **how)
        file.write(pixels, **how)
    return path
