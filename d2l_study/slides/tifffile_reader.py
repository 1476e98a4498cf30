"""Slides and images in TIFF files of no scanner in particular, read by tifffile: pyramids whose levels are pages or
SubIFDs, OME-TIFF, and single pictures in tiles or strips. No picture is ever decoded whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError, counted
from d2l_study.slides.image_files import decode_errors
from d2l_study.slides.packages import wsi_package
from d2l_study.slides.physical_size import (
    COARSEST_TAG,
    believed,
    description_mpp,
    doubt,
    imagej_mpp,
    ome_mpp,
    tag_mpp,
)
from d2l_study.slides.segment_cache import SegmentCache
from d2l_study.slides.slide import CACHE_BYTES, Level, Slide, beyond_is_white
from d2l_study.slides.tiff_page import PlacedFile, TiffPage, check_part, check_segments

EXPECTED = "8-bit RGB (a brightfield slide)"

_RGB, _YCBCR, _GREY = 2, 6, (0, 1)
_JPEG, _APERIO_YCBCR = 7, 33003
_NAMES = {0: "greyscale", 1: "greyscale", 3: "a palette of colours", 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*"}
_ORIENTATION = 274
_MACRO = 9
"""NewSubfileType of a picture of the glass, as Aperio writes it."""

_PREMULTIPLIED, _ALPHA = 1, 2
"""ExtraSamples that say how opaque a pixel is."""


class TifffileReader(Slide):
    """A TIFF that tifffile reads. Labels, pictures of the glass and thumbnails in it are no levels."""

    reader = "tifffile"

    def __init__(self, path: str | Path) -> None:
        """`UserError` for a file that is damaged or cut short, or whose largest picture is not 8-bit RGB."""
        self.path = Path(path)
        tifffile = wsi_package("tifffile", self.path)
        wsi_package("imagecodecs", self.path)
        with decode_errors(self.path), tifffile.TiffFile(self.path) as tif:
            pages = _levels(self.path, tif)
            check_colours(self.path, pages[0])
            self.mpp, self.doubt = _resolution(tif, pages[0])
            self._file, self._cache = PlacedFile(self.path), SegmentCache(CACHE_BYTES)
            try:
                self._pages = [TiffPage(self._file, page, i, self._cache) for i, page in enumerate(pages)]
            except BaseException:
                self._file.close()
                raise
        base = self._pages[0]
        self._alpha = next((kind for kind in pages[0].extrasamples if kind in (_PREMULTIPLIED, _ALPHA)), None)
        self.levels = tuple(Level.below((base.width, base.height), (page.width, page.height)) for page in self._pages)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        page = self._pages[level]

        def region(x: int, y: int, width: int, height: int) -> np.ndarray:
            return self._rgb(page.region(x, y, width, height))

        return beyond_is_white(region, (page.width, page.height), x, y, width, height)

    def _rgb(self, pixels: np.ndarray) -> np.ndarray:
        """RGB on white, of RGB and perhaps a channel that says how opaque it is."""
        if pixels.shape[2] == 3:
            return pixels
        if self._alpha is None or pixels[..., 3].min() == 255:
            return np.ascontiguousarray(pixels[..., :3])
        alpha, rgb = pixels[..., 3:].astype(np.uint16), pixels[..., :3]
        white = 255 - alpha
        if self._alpha == _PREMULTIPLIED:
            return np.minimum(rgb + white, 255).astype(np.uint8)
        return ((rgb * alpha + 255 * white + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        self._file.close()
        self._cache.clear()


def _levels(path: Path, tif: Any) -> list[Any]:
    """tifffile's pages of the levels, from fine to coarse."""
    if tif.is_ome:
        series = max(tif.series, key=lambda one: one.shape[one.axes.find("X")] * one.shape[one.axes.find("Y")])
        extra = {axis: size for axis, size in zip(series.axes, series.shape, strict=True)
                 if axis not in "YXS" and size > 1}  # fmt: skip
        if extra:
            what = counted(extra["C"], "channel") if "C" in extra else counted(max(extra.values()), "picture")
            raise UserError(
                f"{path}: an OME-TIFF of {what} (axes {series.axes}; {_samples(series.keyframe)}: fluorescence, or a "
                f"stack?); expected one picture in {EXPECTED}"
            )
        return [level.keyframe for level in series.levels]
    pages = [page for page in tif.pages if page.imagewidth and page.imagelength]
    if not pages:
        raise UserError(f"{path}: holds no picture; expected {EXPECTED}")
    base = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    same = [page for page in pages if (page.imagewidth, page.imagelength) == (base.imagewidth, base.imagelength)]
    if len(same) > 1:
        raise UserError(
            f"{path}: holds {counted(len(same), 'picture')} of {base.imagewidth}×{base.imagelength} pixels (a stack?); "
            "expected one, and smaller copies of it"
        )
    smaller = [page for page in (*pages, *_below(base)) if page is not base and _is_level(page, base)]
    smaller.sort(key=lambda page: -page.imagewidth * page.imagelength)
    found = [base]
    for page in smaller:
        if page.imagewidth < found[-1].imagewidth:
            found.append(page)
    return found


def _below(page: Any) -> Sequence[Any]:
    """The pages that a page keeps below itself (SubIFDs)."""
    return list(page.pages) if page.subifds and page.pages else []


def _is_level(page: Any, base: Any) -> bool:
    """Whether a page is a smaller copy of the base: of its proportions within a pixel or two, its kind of pixels, and
    not called a picture of the glass."""
    if page.subfiletype == _MACRO or page.is_tiled != base.is_tiled:
        return False
    if (page.photometric, page.samplesperpixel, page.dtype) != (base.photometric, base.samplesperpixel, base.dtype):
        return False
    ratio = base.imagewidth / page.imagewidth, base.imagelength / page.imagelength
    lower = max(base.imagewidth / (page.imagewidth + 2), base.imagelength / (page.imagelength + 2))
    upper = min(base.imagewidth / max(page.imagewidth - 2, 0.5), base.imagelength / max(page.imagelength - 2, 0.5))
    return lower <= upper and min(ratio) > 1


def _samples(page: Any) -> str:
    colours = _NAMES.get(int(page.photometric), "RGB" if page.photometric == _RGB else "colours of an unknown kind")
    return f"{page.bitspersample} bits, {colours}"


def check_colours(path: Path, page: Any) -> None:
    """`UserError` if a page is not upright 8-bit RGB, or YCbCr that its decoder turns into RGB."""
    colours, samples = int(page.photometric), int(page.samplesperpixel)
    as_rgb = colours == _RGB or (colours == _YCBCR and int(page.compression) in (_JPEG, _APERIO_YCBCR))
    if page.dtype != np.uint8 or page.bitspersample != 8:
        kind = {"f": "floating point numbers", "i": "signed numbers"}.get(getattr(page.dtype, "kind", ""), "")
        raise UserError(f"{path}: {_samples(page)}{f' ({kind})' if kind else ''}; expected {EXPECTED}")
    if not as_rgb or samples < 3:
        hint = " (fluorescence, or a mask?)" if colours in _GREY else ""
        raise UserError(f"{path}: {counted(samples, 'channel')}, {_samples(page)}{hint}; expected {EXPECTED}")
    if samples > 4 or (samples == 4 and not set(page.extrasamples) & {_PREMULTIPLIED, _ALPHA}):
        raise UserError(f"{path}: {samples} channels (RGB, and others of unknown meaning); expected {EXPECTED}")
    orientation = getattr(page.tags.get(_ORIENTATION), "value", 1)
    if orientation in range(2, 9):
        raise UserError(
            f"{path}: its tag Orientation ({int(orientation)}) turns or flips it, which programs do or do not follow; "
            "expected an upright slide"
        )


def check_pages(path: Path) -> None:
    """What OpenSlide does not say of a TIFF before it comes there: `UserError` if it is cut short, or its largest
    picture is not 8-bit RGB."""
    tifffile = wsi_package("tifffile", path)
    with decode_errors(path), tifffile.TiffFile(path) as tif:
        pages = [page for page in tif.pages if page.imagewidth and page.imagelength]
        if not pages:
            raise UserError(f"{path}: holds no picture; expected {EXPECTED}")
        check_colours(path, max(pages, key=lambda page: page.imagewidth * page.imagelength))
        for page in pages:
            check_segments(path, page, path.stat().st_size)
            if page.is_tiled:  # OpenSlide ends the process where a tile needs more memory than there is
                check_part(path, page.tilewidth, page.tilelength)


def _resolution(tif: Any, page: Any) -> tuple[tuple[float, float] | None, str]:
    """µm per pixel, and what is said instead where that is not believed."""
    if tif.is_ome:
        x, y = ome_mpp(tif.ome_metadata, page.imagewidth, page.imagelength)
        found = believed(x, y)
        if found is not None or x is not None or y is not None:
            return found, "" if found else doubt(x, y)
    said = description_mpp(page.description)
    if said is not None:
        found = believed(said, said)
        return found, "" if found else doubt(said, said)
    if tif.is_imagej:
        x, y = imagej_mpp(page.tags, (tif.imagej_metadata or {}).get("unit"))
    else:
        x, y = tag_mpp(page.tags)
    found = believed(x, y, COARSEST_TAG)
    return found, "" if found or x is None else f"{doubt(x, y)} µm in its tags, as programs write that know none"
