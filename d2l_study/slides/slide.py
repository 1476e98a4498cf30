"""What every reader of slides offers: size, levels, resolution, and the pixels of a region at a level.

    with open_slide("S-001.svs") as slide:
        slide.read(level=1, x=512, y=0, width=256, height=256)      # (256, 256, 3) uint8

A slide is an image that may be far larger than memory, kept at several levels: level 0 is the finest, and a level of
downsample d has 1/d of its pixels a side. Coordinates are (x, y), column and row, from the upper left corner.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

CACHE_BYTES = 128 * 2**20
"""Of decoded pixels that an open slide keeps: neighbouring regions share the file's own tiles."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    width, height: in its own pixels; downsample: level-0 pixels for one of its pixels, not always whole.
    """

    width: int
    height: int
    downsample: float

    @classmethod
    def below(cls, base: tuple[int, int], size: tuple[int, int]) -> Level:
        """A level of a size below a level 0, (width, height) each.

        Where a whole number of pixels was reduced to one, the last ones that are left over are cut off or filled up, so
        the sizes' ratio is slightly off (46,000 × 32,914 to 11,500 × 8,228: 4.0001). That number is then the
        downsample, a power of two before others; else the mean of both axes' ratios is.
        """
        mean = (base[0] / size[0] + base[1] / size[1]) / 2
        for whole in (2 ** round(math.log2(mean)), round(mean)):
            if all(abs(side * whole - full) < whole for side, full in zip(size, base, strict=True)):
                return cls(*size, float(whole))
        return cls(*size, mean)


Region = Callable[[int, int, int, int], np.ndarray]
"""Reads (x, y, width, height) within a picture: (height, width, 3) uint8."""


def beyond_is_white(region: Region, size: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: a region of which parts may lie beyond a picture of a size (width, height)."""
    left, top, right, bottom = max(0, x), max(0, y), min(size[0], x + width), min(size[1], y + height)
    inside = right > left and bottom > top
    if inside and (right - left, bottom - top) == (width, height):
        return region(left, top, width, height)
    out = np.full((height, width, 3), 255, np.uint8)
    if inside:
        out[top - y : bottom - y, left - x : right - x] = region(left, top, right - left, bottom - top)
    return out


def slide_name(path: Path) -> str:
    """What a slide is called: its file's name without its ending, or that of its folder as it is, which has none (DICOM
    slides lie in folders called by their UIDs, 1.2.840 …)."""
    return path.name if path.is_dir() else path.stem


class Slide(abc.ABC):
    """A slide that is open for reading.

    path: its file; reader: the package that reads it; levels: from fine to coarse, at least one; mpp: µm for each pixel
    of level 0 as (x, y), None if the file does not say; doubt: what it says instead, where that cannot be meant (0, or
    72 dots an inch); scanned_from: where, in pixels of level 0, the part begins that was scanned, which is all that
    some programs show (`qupath_crop`); name: as of `slide_name`.
    """

    path: Path
    reader: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    doubt: str = ""
    scanned_from: tuple[int, int] = (0, 0)

    @property
    def width(self) -> int:
        """In pixels of level 0."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """In pixels of level 0."""
        return self.levels[0].height

    @property
    def name(self) -> str:
        return slide_name(self.path)

    @abc.abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB, a region of a level. x, y: its upper left corner in pixels of that level.

        What lies beyond the slide, and what the file leaves out as empty, is white. Threads may read at the same time.
        `UserError` where the file turns out to be damaged.
        """

    @abc.abstractmethod
    def close(self) -> None: ...

    def thumbnail(self, most: int) -> np.ndarray:
        """(h, w, 3) uint8: the whole slide, its longer side at most `most` pixels, from the nearest finer level."""
        from PIL import Image

        wanted = max(self.width, self.height) / most
        level = max((i for i, one in enumerate(self.levels) if one.downsample <= max(wanted, 1)), default=0)
        found = self.levels[level]
        scale = min(1.0, most / max(found.width, found.height))
        size = max(1, round(found.width * scale)), max(1, round(found.height * scale))
        out = np.empty((size[1], size[0], 3), np.uint8)
        # In bands, since the coarsest level of a slide without a pyramid may be larger than memory.
        rows = max(1, int(2**24 / (found.width * 3 / scale)))
        for first in range(0, size[1], rows):
            last = min(size[1], first + rows)
            top, bottom = first * found.height / size[1], last * found.height / size[1]
            begin, end = int(top), min(found.height, -int(-bottom // 1))
            band = Image.fromarray(self.read(level, 0, begin, found.width, end - begin))
            box = (0.0, top - begin, float(found.width), min(bottom - begin, float(end - begin)))
            out[first:last] = np.asarray(band.resize((size[0], last - first), Image.Resampling.BOX, box))
        return out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
