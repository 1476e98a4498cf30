"""An image larger than a patch, read by rows, so that one of any size can be labelled in bounded memory.

    image = open_tissue("region.tif", channels=3)
    image.rows(0, 512)                       # (512, width, 3) uint8

TIFF files of 8 bits a channel are decoded strip by strip or tile by tile where the extra `[wsi]` is installed, `.npy`
arrays (height, width, 3) are mapped; other images (PNG, JPEG, BMP, rarer TIFFs) Pillow can only decode whole, to 4
bytes a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.inference.array_headers import npy_header
from d2l_study.slides import image_files
from d2l_study.slides import tiff_tags as tiff
from d2l_study.slides.image_files import EXPECTED, NUMPY, content_of, decode_errors, quiet_pillow
from d2l_study.slides.image_reader import WholeImage, is_image_array, map_image_array
from d2l_study.slides.packages import PACKAGES, has_wsi
from d2l_study.slides.tiff_page import open_single_page


@dataclass(frozen=True)
class TissueImage:
    """rows(first, last): the rows first … last − 1, (last − first, width, channels) uint8; `UserError` where the file
    turns out to be damaged."""

    source: str
    width: int
    height: int
    channels: int
    rows: Callable[[int, int], np.ndarray]

    @classmethod
    def of_array(cls, source: str, pixels: np.ndarray) -> TissueImage:
        """pixels: (height, width, channels) uint8, possibly mapped from a file."""
        height, width, channels = pixels.shape
        return cls(source, width, height, channels, lambda first, last: np.asarray(pixels[first:last]))

    def reduced(self, most: int) -> tuple[np.ndarray, int]:
        """The image at a size of at most `most` pixels a side, (h, w, channels) uint8, and the whole factor f by which
        it was reduced: pixel (i, j) is the mean of the rows i f … (i + 1) f − 1 and the columns alike."""
        from PIL import Image

        factor = -(-max(self.width, self.height) // most)
        step = factor * max(1, 2**24 // (factor * self.width * self.channels))
        bands = []
        for first in range(0, self.height, step):
            band = self.rows(first, min(self.height, first + step))
            shown = Image.fromarray(band[..., 0] if self.channels == 1 else np.ascontiguousarray(band)).reduce(factor)
            bands.append(np.asarray(shown).reshape(shown.height, shown.width, self.channels))
        return np.concatenate(bands), factor


def open_tissue(path: str | Path, channels: int) -> TissueImage:
    """An image for a model of 1 (grey) or 3 (RGB) channels.

    `UserError` for a file that `image_files` does not read (only its limit on size does not hold for what is read in
    parts), or that is damaged. Damage within may only show when rows are read.
    """
    path = Path(path)
    with decode_errors(path), path.open("rb") as file:
        kind = content_of(file.read(image_files.HEAD))
    if kind == NUMPY:
        return TissueImage.of_array(str(path), map_image_array(path, channels))
    if kind == "TIFF":
        found = _open_tiff(path, channels)
        if found is not None:
            return found
    whole = WholeImage(path, channels)
    width = whole.width
    return TissueImage(
        str(path), width, whole.height, channels, lambda first, last: whole.region(0, first, width, last - first)
    )


def image_size(path: Path, channels: int) -> tuple[int, int] | None:
    """(width, height) of an image file, or of an array of (height, width, 3) levels, from its header; None if it is
    neither, or cannot be told. Never raises for damaged files: whoever reads them says what is wrong."""
    quiet_pillow()
    try:
        with path.open("rb") as file:
            kind = content_of(file.read(image_files.HEAD))
            file.seek(0)
            if kind == NUMPY:
                dims, dtype = npy_header(file)
                return (dims[1], dims[0]) if is_image_array(dims, dtype, channels) else None
            if kind == "TIFF":
                tags = tiff.read_tags(file)
                tiff.check_tiff(path, tags, channels, "")
                return tags.number(tiff.WIDTH, least=1), tags.number(tiff.LENGTH, least=1)
        return image_files.image_size(path, channels)
    except Exception:
        return None


def _open_tiff(path: Path, channels: int) -> TissueImage | None:
    """A TIFF that can be decoded in parts; None if it is of a kind that is left to Pillow."""
    quiet_pillow()
    with decode_errors(path), path.open("rb") as file:
        tags = tiff.read_tags(file)
        tiff.check_tiff(path, tags, channels, EXPECTED.get(channels, "an array (.npy)"))
        if not tiff.is_plain(tags, channels):
            return None
        if not has_wsi(*PACKAGES) and image_files.fits_whole(tags):
            return None
    page = open_single_page(path)
    return TissueImage(
        str(path), page.width, page.height, channels,
        lambda first, last: page.region(0, first, page.width, last - first),
    )  # fmt: skip
