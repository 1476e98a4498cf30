"""An image larger than a patch, read by rows, so that one of any size can be labelled in bounded memory.

    image = open_tissue("slide.tif", channels=3)
    image.rows(0, 512)                       # (512, width, 3) uint8

TIFF files of 8 bits a channel are decoded strip by strip or tile by tile, `.npy` arrays (height, width, 3) are mapped;
other images (PNG, JPEG, BMP, rarer TIFFs) Pillow can only decode whole, to 4 bytes a pixel.
"""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.errors import UserError
from d2l_study.inference.inputs import _npy_header
from d2l_study.slides import image_files
from d2l_study.slides import tiff_tags as tiff
from d2l_study.slides.image_files import EXPECTED, MOST_PIXELS, decode_errors, decoded, quiet_pillow

if TYPE_CHECKING:
    from PIL import Image

_CACHED_BYTES = 64 * 2**20
"""Decoded strips and tiles that are kept, since neighbouring bands of rows share some."""

_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}
"""struct codes of the TIFF field types that are written: BYTE, ASCII, SHORT, LONG, UNDEFINED."""

_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)
"""Decoded in parts: none, LZW, JPEG, deflate, PackBits, the older deflate."""

_TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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
        head = file.read(8)
    if head.startswith(b"\x93NUMPY"):
        return _open_npy(path, channels)
    if head.startswith(_TIFF_BEGINS):
        found = _open_tiff(path, channels)
        if found is not None:
            return found
    return _open_whole(path, channels)


def _open_whole(path: Path, channels: int) -> TissueImage:
    """An image that is decoded when its first rows are asked for, and held once, as Pillow decoded it."""
    held: list[Image.Image] = []
    mode = "L" if channels == 1 else "RGB"

    def rows(first: int, last: int) -> np.ndarray:
        if not held:
            held.append(decoded(path, channels))
        band = held[0].crop((0, first, width, last))
        if "transparency" in band.info:  # of a colour, found to be unused
            band = band.convert("RGBA")
        return np.asarray(band.convert(mode)).reshape(last - first, width, channels)

    width, height = image_files.image_size(path, channels)
    return TissueImage(str(path), width, height, channels, rows)


def image_size(path: Path, channels: int) -> tuple[int, int] | None:
    """(width, height) of an image file, or of an array of (height, width, 3) levels, from its header; None if it is
    neither, or cannot be told. Never raises for damaged files: whoever reads them says what is wrong."""
    quiet_pillow()
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head.startswith(b"\x93NUMPY"):
                file.seek(0)
                dims, dtype = _npy_header(file)
                return (dims[1], dims[0]) if _is_image(dims, dtype, channels) else None
            if head.startswith(_TIFF_BEGINS):
                tags = tiff.read_tags(file)
                tiff.check_tiff(path, tags, channels, "")
                return tags.number(tiff.WIDTH, least=1), tags.number(tiff.LENGTH, least=1)
        return image_files.image_size(path, channels)
    except Exception:
        return None


def _is_image(dims: tuple[int, ...], dtype: np.dtype, channels: int) -> bool:
    return dtype == np.uint8 and len(dims) == 3 and dims[2] == channels == 3 and min(dims[:2]) > 3


def _open_npy(path: Path, channels: int) -> TissueImage:
    with decode_errors(path):
        pixels = np.load(path, mmap_mode="r")
    if not _is_image(pixels.shape, pixels.dtype, channels):
        raise UserError(
            f"{path}: {pixels.dtype} with dimensions {pixels.shape}; as an image expected uint8 (height, width, 3)"
        )
    return TissueImage.of_array(str(path), pixels)


# ---- TIFF
def _open_tiff(path: Path, channels: int) -> TissueImage | None:
    """A TIFF that can be decoded in parts; None if it is of a kind that is left to Pillow."""
    quiet_pillow()
    with decode_errors(path), path.open("rb") as file:
        tags = tiff.read_tags(file)
        tiff.check_tiff(path, tags, channels, EXPECTED.get(channels, "an array (.npy)"))
        simple = (
            tags.number(tiff.COMPRESSION, 1) in _COMPRESSIONS
            and tags.number(tiff.PHOTOMETRIC) in ((1,) if channels == 1 else (2, 6))
            and tags.number(tiff.SAMPLES, 1) == channels
            and set(tags.numbers(tiff.BITS, (1,))) == {8}
            and tags.number(tiff.PLANAR, 1) == 1
        )
        if not simple:
            return None
        width, height = tags.number(tiff.WIDTH, least=1), tags.number(tiff.LENGTH, least=1)
        if tiff.TILE_OFFSETS in tags:
            part_width, part_height = tags.number(tiff.TILE_WIDTH, least=1), tags.number(tiff.TILE_LENGTH, least=1)
            offsets, counts = tags.numbers(tiff.TILE_OFFSETS), tags.numbers(tiff.TILE_COUNTS, (-1,))
        else:
            part_width, part_height = width, min(height, tags.number(tiff.PER_STRIP, height, least=1))
            offsets, counts = tags.numbers(tiff.OFFSETS), tags.numbers(tiff.COUNTS, (-1,))
        across = -(-width // part_width)
        if -1 in counts or len(offsets) != len(counts) or len(offsets) != across * -(-height // part_height):
            return None
        if part_width * part_height > MOST_PIXELS:
            raise UserError(
                f"{path}: strips or tiles of {part_width}×{part_height} pixels; at most {MOST_PIXELS:,} are decoded at "
                "once (save it in smaller tiles)"
            )
        size = file.seek(0, io.SEEK_END)
        if max(offset + count for offset, count in zip(offsets, counts, strict=True)) > size:
            raise UserError(f"{path}: cannot be read: the file ends before its rows do; expected a whole image")
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
        self, path: Path, tags: tiff.Tags, width: int, height: int, rows: int, offsets: Any, counts: Any, channels: int
    ) -> None:
        self.path, self.tags, self.width, self.height, self.rows = path, tags, width, height, rows
        self.offsets, self.counts, self.channels = offsets, counts, channels
        self.tiled = tiff.TILE_OFFSETS in tags
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
        with decode_errors(self.path), self.path.open("rb") as file:
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
        get, number = self.tags.get, self.tags.number
        fields: list[tuple[int, int, tuple[int, ...] | bytes]] = [
            (tiff.WIDTH, 4, (self.width,)), (tiff.LENGTH, 4, (height,)), (tiff.BITS, 3, (8,) * self.channels),
            (tiff.COMPRESSION, 3, (number(tiff.COMPRESSION, 1),)), (tiff.PHOTOMETRIC, 3, (number(tiff.PHOTOMETRIC),)),
            (tiff.OFFSETS, 4, (8,)), (tiff.SAMPLES, 3, (self.channels,)), (tiff.PER_STRIP, 4, (height,)),
            (tiff.COUNTS, 4, (len(data),)), (tiff.PLANAR, 3, (1,)),
        ]  # fmt: skip
        if get(tiff.PREDICTOR):
            fields.append((tiff.PREDICTOR, 3, (get(tiff.PREDICTOR),)))
        if get(tiff.TABLES):
            fields.append((tiff.TABLES, 7, bytes(get(tiff.TABLES))))
        if get(tiff.SUBSAMPLING):
            fields.append((tiff.SUBSAMPLING, 3, tuple(get(tiff.SUBSAMPLING))))
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
