"""One picture of a TIFF file, read by regions: only the tiles or strips that a region touches are decoded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides.image_files import MOST_PIXELS, decode_errors
from d2l_study.slides.packages import wsi_package
from d2l_study.slides.segment_cache import SegmentCache
from d2l_study.slides.slide import CACHE_BYTES

_JPEG = (6, 7, 34892, 33007)
"""TIFF's compressions whose tiles share tables that stand in a tag."""

_SEPARATE = 2
"""PlanarConfiguration: a plane for each channel."""


class PlacedFile:
    """A file that is read by places in it, without a common position: several threads may read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._end = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, place: int, count: int) -> bytes:
        """Bytes from a place on; `UserError` if the file ends before them, or is closed."""
        if not self._end.alive:
            raise UserError(f"{self.path}: was closed")
        found = os.pread(self._descriptor, count, place)
        if len(found) < count:
            raise UserError(f"{self.path}: cannot be read: the file ends before its pixels do; expected a whole file")
        return found

    def close(self) -> None:
        self._end()


class TiffPage:
    """The pixels of a page, (height, width, channels) uint8, whatever they mean. Several threads may read."""

    def __init__(self, file: PlacedFile, page: Any, key: Hashable, cache: SegmentCache) -> None:
        """page: tifffile's page of 8-bit samples, of that file; key: of this page in the cache.

        `UserError` if its tiles or strips are too large to be decoded at once, or lie beyond the file's end.
        """
        path = self.path = file.path
        self._file, self._page, self._key, self._cache = file, page, key, cache
        self.width, self.height, self.channels = page.imagewidth, page.imagelength, page.samplesperpixel
        if page.is_tiled:
            self._tile = page.tilewidth, page.tilelength
        else:
            self._tile = page.imagewidth, min(page.imagelength, page.rowsperstrip)
        check_part(path, *self._tile)
        self._across, self._down = -(-self.width // self._tile[0]), -(-self.height // self._tile[1])
        self._planes = self.channels if page.planarconfig == _SEPARATE else 1
        self._places, self._sizes = page.dataoffsets, page.databytecounts
        check_segments(path, page, file.size)
        if len(self._places) != self._across * self._down * self._planes or len(self._sizes) != len(self._places):
            raise UserError(
                f"{path}: cannot be read: {len(self._places)} tiles or strips; its size takes "
                f"{self._across * self._down * self._planes}"
            )
        self._tables = (
            {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in _JPEG else {}
        )
        self._decode = page.decode  # made now, since that is not safe in threads

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, channels) uint8 of a region within the page; tiles that the file leaves out are white."""
        out = np.empty((height, width, self.channels), np.uint8)
        wide, high = self._tile
        for down in range(y // high, -(-(y + height) // high)):
            top, bottom = max(y, down * high), min(y + height, (down + 1) * high)
            for across in range(x // wide, -(-(x + width) // wide)):
                left, right = max(x, across * wide), min(x + width, (across + 1) * wide)
                segment = self._segment(down * self._across + across)
                out[top - y : bottom - y, left - x : right - x] = segment[
                    top - down * high : bottom - down * high, left - across * wide : right - across * wide
                ]
        return out

    def _segment(self, number: int) -> np.ndarray:
        return self._cache.get((self._key, number), lambda: self._decoded(number))

    def _decoded(self, number: int) -> np.ndarray:
        """(rows, columns, channels): a tile is whole, also where it reaches beyond the page; a last strip is not."""
        planes = [self._plane(number + plane * self._across * self._down) for plane in range(self._planes)]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _plane(self, number: int) -> np.ndarray:
        wide, high = self._tile
        rows = high if self._page.is_tiled else min(high, self.height - number % (self._across * self._down) * high)
        shape = (rows, wide, self.channels // self._planes)
        size = self._sizes[number]
        if not size:
            return np.full(shape, 255, np.uint8)
        with decode_errors(self.path):
            data = self._file.read(self._places[number], size)
            segment = self._decode(data, number, **self._tables)[0]
            if segment is None:
                return np.full(shape, 255, np.uint8)
            found = segment.reshape(segment.shape[-3:])[:rows, :wide]
            if found.dtype != np.uint8 or found.shape[2] != shape[2]:
                raise ValueError(f"a tile of {found.dtype} with dimensions {found.shape}")
            if found.shape != shape:  # tifffile gives less of tiles at the border
                whole = np.full(shape, 255, np.uint8)
                whole[: found.shape[0], : found.shape[1]] = found
                return whole
            return found


def check_part(path: Path, width: int, height: int) -> None:
    """`UserError` if tiles or strips of that size are too large to be decoded at once."""
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{path}: strips or tiles of {width}×{height} pixels; at most {MOST_PIXELS:,} are decoded at once (save it "
            "in smaller tiles)"
        )


def check_segments(path: Path, page: Any, size: int) -> None:
    """`UserError` if a page's tiles or strips lie beyond the end of a file of that many bytes."""
    last = max((place + count for place, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if last > size:
        raise UserError(
            f"{path}: cannot be read: the file ends before its pixels do, which take {last:,} bytes; it has {size:,}; "
            "expected a whole file"
        )


def open_single_page(path: Path) -> TiffPage:
    """The one page of a TIFF whose header was checked (`tiff_tags.check_tiff`), open as long as it is in use."""
    tifffile = wsi_package("tifffile", path)
    with decode_errors(path), tifffile.TiffFile(path) as tif:
        return TiffPage(PlacedFile(path), tif.pages[0], 0, SegmentCache(CACHE_BYTES))
