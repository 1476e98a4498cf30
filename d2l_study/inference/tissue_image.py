"""An image larger than a patch, read by rows, so that one of any size can be labelled in bounded memory.

    image = open_tissue("slide.tif", channels=3)
    image.rows(0, 512)                       # (512, width, 3) uint8

TIFF files of 8 bits a channel are decoded strip by strip or tile by tile, `.npy` arrays (height, width, 3) are mapped;
other images (PNG, JPEG, BMP, rarer TIFFs) Pillow can only decode whole, to 4 bytes a pixel.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.data.cutting import check_opaque, quiet_pillow
from d2l_study.errors import UserError
from d2l_study.inference.inputs import _image, _npy_header, _readable

if TYPE_CHECKING:
    from PIL import Image

_CACHED_BYTES = 64 * 2**20
"""Decoded strips and tiles that are kept, since neighbouring bands of rows share some."""

_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}
"""struct codes of the TIFF field types that are written: BYTE, ASCII, SHORT, LONG, UNDEFINED."""

(_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _PER_STRIP, _COUNTS, _PLANAR) = (
    256, 257, 258, 259, 262, 273, 277, 278, 279, 284,
)  # fmt: skip
_PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _TABLES, _SUBSAMPLING = (
    317, 322, 323, 324, 325, 347, 530,
)  # fmt: skip
_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)
"""None, LZW, JPEG, deflate, PackBits, the older deflate."""


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

    `UserError` for a file that is no such image: other channels, more than 8 bits, several pages, transparent pixels,
    unreadable. Damage within may only show when rows are read.
    """
    path = Path(path)
    with _readable(str(path)), path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x93NUMPY"):
        return _open_npy(path, channels)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        found = _open_tiff(path, channels)
        if found is not None:
            return found
    return _open_whole(path, channels)


def _open_whole(path: Path, channels: int) -> TissueImage:
    """An image that is decoded when its first rows are asked for, and held once, as Pillow decoded it."""
    decoded: list[Image.Image] = []
    mode = "L" if channels == 1 else "RGB"

    def rows(first: int, last: int) -> np.ndarray:
        if not decoded:
            with _large_is_fine(), _image(path, channels) as image:
                image.load()
                check_opaque(path, image)
            decoded.append(image)
        band = decoded[0].crop((0, first, width, last))
        if "transparency" in band.info:  # of a palette or a colour, found to be unused
            band = band.convert("RGBA")
        return np.asarray(band.convert(mode)).reshape(last - first, width, channels)

    with _large_is_fine(), _image(path, channels) as image:
        width, height = image.size
    return TissueImage(str(path), width, height, channels, rows)


@contextmanager
def _large_is_fine() -> Iterator[None]:
    """Without Pillow's warning of images from 89 million pixels; twice as many it refuses, which is an error."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def image_size(path: Path, channels: int) -> tuple[int, int] | None:
    """(width, height) of an image file, or of an array of (height, width, 3) levels, from its header; None if it is
    neither, or cannot be told. Never raises for damaged files: whoever reads them says what is wrong."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head.startswith(b"\x93NUMPY"):
                file.seek(0)
                dims, dtype = _npy_header(file)
                return (dims[1], dims[0]) if _is_image(dims, dtype, channels) else None
            if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                tags = _tags(path)
                return int(tags[_WIDTH]), int(tags[_LENGTH])
        with _large_is_fine(), _image(path, channels) as image:
            return image.size
    except Exception:
        return None


def _is_image(dims: tuple[int, ...], dtype: np.dtype, channels: int) -> bool:
    return dtype == np.uint8 and len(dims) == 3 and dims[2] == channels == 3 and min(dims[:2]) > 3


def _open_npy(path: Path, channels: int) -> TissueImage:
    with _readable(str(path)):
        pixels = np.load(path, mmap_mode="r")
    if not _is_image(pixels.shape, pixels.dtype, channels):
        raise UserError(
            f"{path}: {pixels.dtype} with dimensions {pixels.shape}; as an image expected uint8 (height, width, 3)"
        )
    return TissueImage.of_array(str(path), pixels)


# ---- TIFF
def _tags(path: Path) -> Any:
    """The tags of a TIFF's first page, which is found without decoding, whatever its size."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    quiet_pillow()
    with path.open("rb") as file:
        head = file.read(8)
        if head[2] == 43 or head[3] == 43:  # BigTIFF has a longer header
            head += file.read(8)
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        dict(tags)  # values are read from `file` at the latest here
        return tags


def _open_tiff(path: Path, channels: int) -> TissueImage | None:
    """A TIFF that can be decoded in parts; None if it is of a kind that is left to Pillow."""
    with _readable(str(path)):
        tags = _tags(path)
        simple = (
            tags.next == 0  # one page
            and tags.get(_COMPRESSION, 1) in _COMPRESSIONS
            and tags.get(_PHOTOMETRIC) in ((1,) if channels == 1 else (2, 6))
            and tags.get(_SAMPLES, 1) == channels
            and set(tags.get(_BITS, (1,))) == {8}
            and tags.get(_PLANAR, 1) == 1
        )
        if not simple:
            return None
        width, height = int(tags[_WIDTH]), int(tags[_LENGTH])
        if _TILE_OFFSETS in tags:
            part_width, part_height = int(tags[_TILE_WIDTH]), int(tags[_TILE_LENGTH])
            offsets, counts = tags[_TILE_OFFSETS], tags[_TILE_COUNTS]
        else:
            part_width, part_height = width, min(height, int(tags.get(_PER_STRIP, height)))
            offsets, counts = tags[_OFFSETS], tags.get(_COUNTS)
        if counts is None or len(offsets) != len(counts):
            return None
        across = -(-width // part_width)
        if len(offsets) != across * -(-height // part_height):
            return None
    parts = _TiffParts(path, tags, part_width, part_height, height, offsets, counts, channels)

    def rows(first: int, last: int) -> np.ndarray:
        out = np.empty((last - first, width, channels), np.uint8)
        for down in range(first // part_height, -(-last // part_height)):
            top = down * part_height
            lo, hi = max(first, top), min(last, top + part_height)
            for right in range(across):
                left = right * part_width
                piece = parts(down * across + right, down)[lo - top : hi - top, : width - left]
                out[lo - first : hi - first, left : left + piece.shape[1]] = piece
        return out

    return TissueImage(str(path), width, height, channels, rows)


class _TiffParts:
    """Strips or tiles of a TIFF, each decoded by Pillow as a TIFF of its own that holds this part alone."""

    def __init__(
        self, path: Path, tags: Any, width: int, height: int, rows: int, offsets: Any, counts: Any, channels: int
    ) -> None:
        self.path, self.tags, self.width, self.height, self.rows = path, tags, width, height, rows
        self.offsets, self.counts, self.channels = offsets, counts, channels
        self.tiled = _TILE_OFFSETS in tags
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self.most = max(1, _CACHED_BYTES // (width * height * channels))

    def __call__(self, number: int, down: int) -> np.ndarray:
        """(height, width, channels) uint8 of one part; the last strip has the rows that are left."""
        if number not in self.kept:
            self.kept[number] = self._decode(number, down)
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        return self.kept[number]

    def _decode(self, number: int, down: int) -> np.ndarray:
        from PIL import Image

        height = self.height if self.tiled else min(self.height, self.rows - down * self.height)
        with _readable(str(self.path)), self.path.open("rb") as file:
            file.seek(self.offsets[number])
            data = file.read(self.counts[number])
            if len(data) < self.counts[number]:
                raise UserError(
                    f"{self.path}: cannot be read: the file ends before its rows do; expected a whole image"
                )
            with Image.open(io.BytesIO(self._alone(data, height)), formats=("TIFF",)) as image:
                pixels = np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
        return pixels.reshape(height, self.width, self.channels)

    def _alone(self, data: bytes, height: int) -> bytes:
        """A little-endian TIFF of one strip."""
        get = self.tags.get
        fields: list[tuple[int, int, tuple[int, ...] | bytes]] = [
            (_WIDTH, 4, (self.width,)), (_LENGTH, 4, (height,)), (_BITS, 3, (8,) * self.channels),
            (_COMPRESSION, 3, (get(_COMPRESSION, 1),)), (_PHOTOMETRIC, 3, (get(_PHOTOMETRIC),)), (_OFFSETS, 4, (8,)),
            (_SAMPLES, 3, (self.channels,)), (_PER_STRIP, 4, (height,)), (_COUNTS, 4, (len(data),)),
            (_PLANAR, 3, (1,)),
        ]  # fmt: skip
        if get(_PREDICTOR):
            fields.append((_PREDICTOR, 3, (get(_PREDICTOR),)))
        if get(_TABLES):
            fields.append((_TABLES, 7, bytes(get(_TABLES))))
        if get(_SUBSAMPLING):
            fields.append((_SUBSAMPLING, 3, tuple(get(_SUBSAMPLING))))
        body, entries = bytearray(data), []
        for tag, kind, values in fields:
            packed = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_TYPES[kind]}", *values)
            if len(packed) > 4:
                body += b"\0" * (len(body) % 2)
                place = struct.pack("<I", 8 + len(body))
                body += packed
            else:
                place = packed.ljust(4, b"\0")
            entries.append(struct.pack("<HHI", tag, kind, len(values)) + place)
        body += b"\0" * (len(body) % 2)
        head = b"II*\0" + struct.pack("<I", 8 + len(body))
        return bytes(head + body + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0")
