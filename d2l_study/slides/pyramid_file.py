"""Writes a picture as a tiled, pyramidal TIFF, in bounded memory: as Aperio's scanners do, as OME-TIFF, or plain.

    write_pyramid(Path("a.svs"), pixels, mpp=0.25)                            # an array
    write_pyramid(Path("b.ome.tif"), bands(), size=(100_000, 80_000), mpp=0.25, layout="ome", step=2)

OpenSlide, QuPath and tifffile read all of them.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.slides.packages import wsi_package

LAYOUTS = ("aperio", "ome", "generic")
"""aperio: each level is a page, resolution and magnification stand in the description; ome: levels are SubIFDs,
resolution stands in OME-XML; generic: each level is a page, resolution is in TIFF's tags."""

COMPRESSIONS = ("jpeg", "jpeg2000", "lossless")
"""jpeg: YCbCr, chroma at half the resolution, as scanners write it; jpeg2000: RGB, irreversible; lossless: deflate."""

_APERIO_JPEG2000_RGB = 33005
_BAND_BYTES = 16 * 2**20
_REDUCED = 1
"""NewSubfileType of a smaller copy."""
_LABEL, _MACRO = 1, 9
"""NewSubfileType of Aperio's pictures of label and glass."""


def write_pyramid(
    path: Path,
    pixels: np.ndarray | Iterable[np.ndarray],
    *,
    mpp: float | tuple[float, float] | None,
    size: tuple[int, int] | None = None,
    layout: str = "aperio",
    compression: str = "jpeg",
    quality: int | None = None,
    tile: int = 256,
    step: int = 4,
    least: int = 512,
    pictures: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a slide; a file of that name is replaced, once all is written.

    pixels: (height, width, 3) or (height, width) uint8, or its rows from above in bands of any height, then with
    size (width, height); mpp: µm per pixel, one number or (x, y), None to leave it out; quality: of JPEG 1 to 100,
    of JPEG 2000 its signal-to-noise ratio in dB, by default 90 and 42; tile: its side in pixels, a multiple of
    16; step: each level has 1/step of the pixels a side of the one before, what is left over is cut off; least: a level
    with no side longer than that is the last; pictures: of an Aperio slide, `label` and `macro`, (h, w, 3) uint8 each.

    `ValueError` for an unknown layout or compression, or bands that do not make up the size.
    """
    if layout not in LAYOUTS or compression not in COMPRESSIONS:
        raise ValueError(f"layout {layout!r}, compression {compression!r}; expected of {LAYOUTS} and {COMPRESSIONS}")
    if isinstance(pixels, np.ndarray):
        size = pixels.shape[1], pixels.shape[0]
        pixels = _bands(pixels)
    if size is None:
        raise ValueError("bands without their size")
    resolution = (float(mpp), float(mpp)) if isinstance(mpp, int | float) else mpp
    if quality is None:
        quality = 42 if compression == "jpeg2000" else 90
    with atomic_write(path) as part:
        _Writer(path, size, resolution, layout, compression, quality, tile, step).write(part, pixels, least, pictures)


class _Writer:
    def __init__(
        self, path: Path, size: tuple[int, int], mpp: tuple[float, float] | None, layout: str, compression: str,
        quality: int, tile: int, step: int,
    ) -> None:  # fmt: skip
        self.path, self.size, self.mpp, self.layout, self.quality = path, size, mpp, layout, quality
        self.compression, self.tile, self.step = compression, tile, step

    def write(
        self, part: Path, bands: Iterable[np.ndarray], least: int, pictures: Mapping[str, np.ndarray] | None
    ) -> None:
        tifffile = wsi_package("tifffile", self.path)
        sizes = [self.size]
        while max(sizes[-1]) > least and min(sizes[-1]) >= self.step:
            sizes.append((sizes[-1][0] // self.step, sizes[-1][1] // self.step))
        large = 3 * self.size[0] * self.size[1] > 2**31
        with tifffile.TiffWriter(part, bigtiff=large, ome=self.layout == "ome") as tif:
            for level, size in enumerate(sizes):
                smaller = _Smaller(sizes[level + 1], self.step, part.parent) if level + 1 < len(sizes) else None
                self._write_level(tif, level, size, len(sizes) - 1, bands, smaller)
                if smaller is not None:
                    bands = smaller.bands()
                if level == 0 and self.layout == "aperio":
                    self._write_pictures(tif, smaller, pictures or {})

    def _write_level(
        self, tif: Any, level: int, size: tuple[int, int], below: int, bands: Iterable[np.ndarray],
        smaller: _Smaller | None,
    ) -> None:  # fmt: skip
        rows = _Rows(bands, size)
        channels = rows.first.shape[2:]
        options = self._options(level, size, below, bool(channels))
        tiles = _tiles(rows, self.tile, smaller)
        tif.write(tiles, shape=(size[1], size[0], *channels), dtype=np.uint8, tile=(self.tile, self.tile), **options)
        rows.check_end()

    def _options(self, level: int, size: tuple[int, int], below: int, rgb: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"photometric": "rgb" if rgb else "minisblack", "metadata": None}
        if self.compression == "jpeg":
            found |= {"compression": "jpeg", "compressionargs": {"level": self.quality}}
            if rgb:
                found["subsampling"] = (2, 2)
        elif self.compression == "jpeg2000":
            found["compression"] = _APERIO_JPEG2000_RGB
            found["compressionargs"] = {"level": self.quality, "codecformat": "J2K", "reversible": False}
        else:
            found |= {"compression": "deflate", "predictor": True}
        if self.layout == "ome":
            if level == 0:
                found["metadata"] = {"axes": "YXS" if rgb else "YX"} | self._ome_resolution()
                found["subifds"] = below
            else:
                found["subfiletype"] = _REDUCED
            return found
        if self.layout == "aperio":
            found["description"] = self._aperio_description(level, size)
            found["metadata"] = None
        elif level > 0:
            found["subfiletype"] = _REDUCED
        if self.layout == "generic" and self.mpp is not None:
            scale = [self.size[axis] / size[axis] for axis in (0, 1)]
            found["resolution"] = tuple(1e4 / (one * times) for one, times in zip(self.mpp, scale, strict=True))
            found["resolutionunit"] = "centimeter"
        return found

    def _ome_resolution(self) -> dict[str, Any]:
        if self.mpp is None:
            return {}
        return {
            "PhysicalSizeX": self.mpp[0], "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": self.mpp[1], "PhysicalSizeYUnit": "µm",
        }  # fmt: skip

    def _aperio_description(self, level: int, size: tuple[int, int]) -> str:
        whole = f"{self.size[0]}x{self.size[1]}"
        here = f" -> {size[0]}x{size[1]}" if level else ""
        kind = "J2K/YUV16" if self.compression == "jpeg2000" else "JPEG/RGB"
        text = f"Aperio Image Library v12.0.15\r\n{whole} [0,0 {whole}] ({self.tile}x{self.tile}){here} {kind} "
        text += f"Q={self.quality}"
        if self.mpp is not None:
            text += f"|AppMag = {10 / self.mpp[0]:.3g}|MPP = {self.mpp[0]:.6g}"
        return text

    def _write_pictures(self, tif: Any, smaller: _Smaller | None, pictures: Mapping[str, np.ndarray]) -> None:
        """The thumbnail, which Aperio has as its second page, then label and glass."""
        if smaller is not None:
            shown = smaller.thumbnail(1024)
            whole = f"{self.size[0]}x{self.size[1]}"
            text = f"Aperio Image Library v12.0.15\r\n{whole} -> {shown.shape[1]}x{shown.shape[0]} - "
            tif.write(shown, photometric="rgb" if shown.ndim == 3 else "minisblack", compression="jpeg",
                      rowsperstrip=16, description=text, metadata=None)  # fmt: skip
        for name, picture in pictures.items():
            text = f"Aperio Image Library v12.0.15\r\n{name} {picture.shape[1]}x{picture.shape[0]}"
            kind = {"label": _LABEL, "macro": _MACRO}[name]
            tif.write(picture, photometric="rgb", compression="lzw", description=text, metadata=None,
                      subfiletype=kind, rowsperstrip=64)  # fmt: skip


def _bands(pixels: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _BAND_BYTES // max(1, pixels[:1].nbytes))
    return (np.asarray(pixels[first : first + rows]) for first in range(0, len(pixels), rows))


class _Rows:
    """Bands of rows that are counted on their way, since tifffile takes no more than it needs, and misses none."""

    def __init__(self, bands: Iterable[np.ndarray], size: tuple[int, int]) -> None:
        self._bands, self.size, self._seen = iter(bands), size, 0
        self.first = next(self._bands)

    def __iter__(self) -> Iterator[np.ndarray]:
        for band in itertools.chain([self.first], self._bands):
            self._seen += len(band)
            if band.shape[1] != self.size[0] or self._seen > self.size[1]:
                raise ValueError(f"{self._seen} rows, {band.shape[1]} columns; expected {self.size[1]}, {self.size[0]}")
            yield band

    def check_end(self) -> None:
        """`ValueError` if rows were missing, or are left."""
        left = next(self._bands, None)
        if self._seen != self.size[1] or left is not None:
            raise ValueError(f"{self._seen} rows{' and more' if left is not None else ''}; expected {self.size[1]}")


def _tiles(rows: _Rows, tile: int, smaller: _Smaller | None) -> Iterator[np.ndarray]:
    """The tiles of a level, row by row, whole ones: white where they reach beyond it."""
    for band in _regrouped(rows, tile):
        if smaller is not None:
            smaller.add(band)
        for left in range(0, rows.size[0], tile):
            piece = band[:, left : left + tile]
            if piece.shape[:2] != (tile, tile):
                whole = np.full((tile, tile, *band.shape[2:]), 255, np.uint8)
                whole[: piece.shape[0], : piece.shape[1]] = piece
                piece = whole
            yield np.ascontiguousarray(piece)


def _regrouped(bands: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in bands of `rows`, the last one of what is left."""
    held: list[np.ndarray] = []
    count = 0
    for band in bands:
        held.append(band)
        count += len(band)
        if count >= rows:
            whole = np.concatenate(held) if len(held) > 1 else band
            used = count // rows * rows
            for first in range(0, used, rows):
                yield whole[first : first + rows]
            held, count = ([whole[used:]], count - used) if used < count else ([], 0)
    if count:
        yield np.concatenate(held)


class _Smaller:
    """The next level, in a file without a name, filled while the one above is written."""

    def __init__(self, size: tuple[int, int], step: int, folder: Path) -> None:
        self.size, self.step = size, step
        self._folder = folder
        self._pixels: np.ndarray | None = None
        self._left: list[np.ndarray] = []
        self._done = 0

    def add(self, rows: np.ndarray) -> None:
        from PIL import Image

        if self._pixels is None:
            shape = (self.size[1], self.size[0], *rows.shape[2:])
            with tempfile.TemporaryFile(dir=self._folder) as file:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # or a full disk would end the process
                self._pixels = np.memmap(file, np.uint8, "r+", shape=shape)
        held = np.concatenate([*self._left, rows]) if self._left else rows
        whole = min(len(held) // self.step, self.size[1] - self._done)
        if whole:
            box = (0, 0, self.size[0] * self.step, whole * self.step)
            reduced = Image.fromarray(np.ascontiguousarray(held[: box[3]])).reduce(self.step, box)
            self._pixels[self._done : self._done + whole] = np.asarray(reduced)
            self._done += whole
        left = held[whole * self.step :]
        self._left = [left.copy()] if len(left) else []

    def bands(self) -> Iterator[np.ndarray]:
        assert self._pixels is not None
        return _bands(self._pixels)

    def thumbnail(self, most: int) -> np.ndarray:
        """(h, w, …) uint8, of at most `most` pixels a side."""
        assert self._pixels is not None
        every = -(-max(self.size) // most)
        return np.ascontiguousarray(self._pixels[::every, ::every])
