"""Images without levels: those that Pillow can only decode whole, and arrays, which are mapped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides import image_files
from d2l_study.slides.image_files import decode_errors, decoded
from d2l_study.slides.slide import Level, Region, Slide, beyond_is_white

if TYPE_CHECKING:
    from PIL import Image

LEAST_SIDE = 4
"""Pixels of an array's sides from which on it is taken for an image, and not for a few patches or colours."""


class WholeImage:
    """An image that is decoded when its first pixels are asked for, and held once, as Pillow decoded it.

    width, height: from its header; channels: 3 for RGB, 1 for grey.
    """

    def __init__(self, path: Path, channels: int) -> None:
        """`UserError` for what `image_files` does not read."""
        self.path, self.channels = path, channels
        self.width, self.height = image_files.image_size(path, channels)
        self._held: Image.Image | None = None
        self._once = threading.Lock()

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, channels) uint8 of a region within the image."""
        with self._once:
            if self._held is None:
                self._held = decoded(self.path, self.channels)
            held = self._held
        band = held.crop((x, y, x + width, y + height))
        if "transparency" in band.info:  # of a colour, found to be unused
            band = band.convert("RGBA")
        mode = "L" if self.channels == 1 else "RGB"
        return np.asarray(band.convert(mode)).reshape(height, width, self.channels)


def is_image_array(dims: tuple[int, ...], dtype: np.dtype, channels: int = 3) -> bool:
    """Whether an array is an image: uint8 (height, width, 3), which none of other channels is."""
    return dtype == np.uint8 and len(dims) == 3 and dims[2] == channels == 3 and min(dims[:2]) >= LEAST_SIDE


def map_image_array(path: Path, channels: int = 3) -> np.ndarray:
    """A `.npy` file of an image, mapped; `UserError` for one of another kind."""
    with decode_errors(path):
        pixels = np.load(path, mmap_mode="r")
    if not is_image_array(pixels.shape, pixels.dtype, channels):
        raise UserError(
            f"{path}: {pixels.dtype} with dimensions {pixels.shape}; as an image expected uint8 (height, width, 3)"
        )
    return pixels


class ImageReader(Slide):
    """A PNG, JPEG, BMP or plain TIFF file as a slide of one level, or a `.npy` array (height, width, 3) uint8."""

    def __init__(self, path: str | Path) -> None:
        """`UserError` for what is not 8-bit RGB, transparent, turned, or too large to be decoded whole."""
        self.path = Path(path)
        with decode_errors(self.path), self.path.open("rb") as file:
            kind = image_files.content_of(file.read(image_files.HEAD))
        if kind == image_files.NUMPY:
            self.reader = "NumPy"
            pixels = map_image_array(self.path)
            height, width, _ = pixels.shape
            self._region: Region = lambda x, y, w, h: np.array(pixels[y : y + h, x : x + w])
        else:
            self.reader = "Pillow"
            whole = WholeImage(self.path, 3)
            width, height, self._region = whole.width, whole.height, whole.region
        self.levels = (Level(width, height, 1.0),)
        # Resolution tags of plain images are defaults of programs far more often than they are meant.
        self.mpp = None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        found = self.levels[level]
        return beyond_is_white(self._region, (found.width, found.height), x, y, width, height)

    def close(self) -> None:
        def closed(*place: int) -> np.ndarray:
            raise UserError(f"{self.path}: was closed")

        self._region = closed
