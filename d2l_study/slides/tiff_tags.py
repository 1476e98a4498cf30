"""The header of a TIFF file: its tags, read without decoding anything, and the rule for what of TIFF is read.

Pillow alone does not tell: it opens 16 bits a channel as 8-bit RGB (the high byte), the first page of many, and the
largest level of a pyramid. Tags are those of TIFF 6.0 (Adobe, 1992) and its technical notes.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Any

from d2l_study.errors import UserError, counted

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, PER_STRIP, COUNTS, PLANAR = (
    256, 257, 258, 259, 262, 273, 277, 278, 279, 284,
)  # fmt: skip
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
SOFTWARE = 305
_ORIENTATION, _SUB_IMAGES, _EXTRA, _SAMPLE_FORMAT = 274, 330, 338, 339

_NAMES = {
    WIDTH: "ImageWidth", LENGTH: "ImageLength", BITS: "BitsPerSample", COMPRESSION: "Compression",
    PHOTOMETRIC: "PhotometricInterpretation", OFFSETS: "StripOffsets", SAMPLES: "SamplesPerPixel",
    PER_STRIP: "RowsPerStrip", COUNTS: "StripByteCounts", PLANAR: "PlanarConfiguration", TILE_WIDTH: "TileWidth",
    TILE_LENGTH: "TileLength", TILE_OFFSETS: "TileOffsets", TILE_COUNTS: "TileByteCounts",
    _ORIENTATION: "Orientation", _EXTRA: "ExtraSamples", _SAMPLE_FORMAT: "SampleFormat",
}  # fmt: skip

_JPEG = 7
_READ = (1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000)
"""Compressions that are read: none, fax, LZW, JPEG, deflate, PackBits, LZMA, Zstandard."""
_IN_PARTS = (1, 5, _JPEG, 8, 32773, 32946)
"""Decoded in parts: none, LZW, JPEG, deflate, PackBits, the older deflate."""
_NOT_READ = {
    6: "old-style JPEG", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34713: "NEF", 34887: "LERC", 34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
    50001: "WebP",
}  # fmt: skip

_GREY, _RGB, _YCBCR = (0, 1), 2, 6
_COLOURS = {
    0: "greyscale", 1: "greyscale", 2: "RGB", 3: "a palette of colours", 4: "a mask", 5: "CMYK, the colours of print",
    6: "YCbCr colours", 8: "L*a*b* colours", 9: "L*a*b* colours", 10: "L*a*b* colours", 32803: "raw sensor data",
    34892: "raw sensor data",
}  # fmt: skip
_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "floating point numbers", 5: "complex", 6: "complex"}
_ALPHA = (1, 2)

_MOST_PAGES = 10_000


class Tags:
    """The tags of a TIFF's first page. pages: how many pages there are (counted up to 10,000)."""

    def __init__(self, values: Any, pages: int) -> None:
        self.values, self.pages = values, pages

    def __contains__(self, tag: int) -> bool:
        return tag in self.values

    def get(self, tag: int) -> Any:
        """As it is in the file, or None."""
        return self.values.get(tag)

    def numbers(self, tag: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A tag's whole numbers; `ValueError` if it holds something else, or is missing and has no default."""
        found = self.values.get(tag)
        if found is None:
            if default is None:
                raise ValueError(f"its tag {_NAMES[tag]} is missing")
            return default
        found = found if isinstance(found, tuple) else (found,)
        if not found or not all(isinstance(value, int) for value in found):
            raise ValueError(f"its tag {_NAMES[tag]} holds {str(found[:4])[:60]}; expected whole numbers")
        return found

    def number(self, tag: int, default: int | None = None, least: int = 0) -> int:
        """A tag's one number, at least `least`; `ValueError` otherwise."""
        found = self.numbers(tag, None if default is None else (default,))
        if len(found) > 1 or found[0] < least:
            raise ValueError(f"its tag {_NAMES[tag]} is {', '.join(map(str, found[:4]))}; expected {least} or more")
        return found[0]


def read_tags(file: IO[bytes]) -> Tags:
    """The tags of a TIFF or BigTIFF that begins at the file's start; raises what Pillow does for a damaged one."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file.seek(0)
    head = file.read(8)
    big = 43 in head[2:4]  # BigTIFF has a longer header
    if big:
        head += file.read(8)
    directory: Any = ImageFileDirectory_v2(head)
    first = directory.next
    file.seek(first)
    directory.load(file)
    return Tags(directory, _count_pages(file, "<" if head.startswith(b"II") else ">", big, first))


def _count_pages(file: IO[bytes], order: str, big: bool, place: int) -> int:
    """How many directories follow each other from a place on; a chain that returns to itself or leaves the file
    ends there."""
    count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MOST_PAGES:
        file.seek(place)
        try:
            (entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
            file.seek(entries * entry, os.SEEK_CUR)
            (following,) = struct.unpack(order + link, file.read(struct.calcsize(order + link)))
        except (OSError, ValueError, OverflowError, struct.error):
            break
        seen.add(place)
        place = following if entries else 0
    return len(seen)


def needs_slide_reader(tags: Tags) -> bool:
    """Whether a TIFF holds levels, or several images, or is compressed as scanners do and Pillow does not read."""
    return tags.pages > 1 or _SUB_IMAGES in tags or tags.number(COMPRESSION, 1) in _NOT_READ


def is_plain(tags: Tags, channels: int) -> bool:
    """Whether a TIFF that `check_tiff` lets pass can be decoded in parts: of exactly these channels, interleaved, by a
    compression for strips and tiles, whose places and lengths are all there."""
    simple = (
        tags.number(COMPRESSION, 1) in _IN_PARTS
        and tags.number(PHOTOMETRIC) in ((1,) if channels == 1 else (_RGB, _YCBCR))
        and tags.number(SAMPLES, 1) == channels
        and set(tags.numbers(BITS, (1,))) == {8}
        and tags.number(PLANAR, 1) == 1
    )
    if not simple:
        return False
    width, height = tags.number(WIDTH, least=1), tags.number(LENGTH, least=1)
    if TILE_OFFSETS in tags:
        part = tags.number(TILE_WIDTH, least=1), tags.number(TILE_LENGTH, least=1)
        offsets, counts = tags.numbers(TILE_OFFSETS), tags.numbers(TILE_COUNTS, (-1,))
    else:
        part = width, min(height, tags.number(PER_STRIP, height, least=1))
        offsets, counts = tags.numbers(OFFSETS), tags.numbers(COUNTS, (-1,))
    return -1 not in counts and len(offsets) == len(counts) == -(-width // part[0]) * -(-height // part[1])


def check_tiff(path: Path, tags: Tags, channels: int, expected: str) -> None:
    """`UserError` for what is not read; channels: 3 for RGB, 1 for grey (or RGB); expected: words for that.
    `ValueError` for a damaged header."""

    def refuse(found: str) -> UserError:
        return UserError(f"{path}: {found}; expected {expected}")

    tags.number(WIDTH, least=1), tags.number(LENGTH, least=1)
    if tags.pages > 1:
        raise refuse(f"holds {counted(tags.pages, 'page')} (a pyramid, or several images)")
    if _SUB_IMAGES in tags:
        raise refuse("holds smaller copies of itself (a pyramid)")
    compression = tags.number(COMPRESSION, 1)
    if compression not in _READ:
        name = _NOT_READ.get(compression, "an unknown one")
        raise refuse(f"its compression, {name} ({compression}), is not read")
    colours, samples = tags.number(PHOTOMETRIC), tags.number(SAMPLES, 1, least=1)
    bits = tags.numbers(BITS, (1,))
    named = _COLOURS.get(colours, f"colours of an unknown kind ({colours})")
    kinds = tags.numbers(_SAMPLE_FORMAT, (1,))
    if set(kinds) - {1, 4}:
        strange = next(kind for kind in kinds if kind not in (1, 4))
        raise refuse(f"{max(bits)}-bit {_NUMBERS.get(strange, 'samples of an unknown kind')}")
    grey = colours in _GREY
    if max(bits) > 8 or (not grey and set(bits) != {8}):
        shown = str(bits[0]) if len(set(bits)) == 1 else ", ".join(map(str, bits[:4]))
        raise refuse(f"{shown} bits a channel ({named})")
    rgb = colours == _RGB or (colours == _YCBCR and compression == _JPEG)
    if not rgb and not (grey and channels == 1):
        raise refuse(named + (" (save it as RGB if grey is meant)" if grey else ""))
    extra = samples - (3 if rgb else 1)
    if extra < 0 or extra > 1 or (extra == 1 and tags.numbers(_EXTRA, (0,))[0] not in _ALPHA):
        raise refuse(f"{counted(samples, 'channel')} ({named}, and others of unknown meaning)")
    if (orientation := tags.number(_ORIENTATION, 1)) in range(2, 9):
        raise refuse(f"its tag Orientation ({orientation}) turns or flips it, which programs do or do not follow")
