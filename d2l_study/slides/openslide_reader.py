"""Slides of the scanners' formats, read by OpenSlide: Aperio, Hamamatsu, MIRAX, Leica, Philips, Ventana, DICOM …

OpenSlide: Goode et al., Journal of Pathology Informatics 2013. Its handles are safe to read from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError, first_line
from d2l_study.slides.packages import wsi_package
from d2l_study.slides.physical_size import believed, doubt
from d2l_study.slides.slide import CACHE_BYTES, Level, Slide, beyond_is_white

GENERIC = "generic-tiff"
"""OpenSlide's name for tiled TIFF files of no scanner in particular."""

_DICOM_IMAGE_KIND = "dicom.ImageType[3]"
"""Of level 0: RESAMPLED for levels that were made from the finest one, which is NONE."""


def vendor_of(path: Path) -> str | None:
    """OpenSlide's name for the format of a file (`aperio`, `dicom`, …), or None if it does not read it."""
    try:
        return wsi_package("openslide", path).OpenSlide.detect_format(path)
    except wsi_package("openslide", path).OpenSlideError:
        return None


class OpenSlideReader(Slide):
    """A slide that OpenSlide reads. vendor: its name for the format.

    A level's pixels are exact where its downsample is whole. OpenSlide takes places in whole pixels of level 0 only,
    so that a region of a level of downsample d may be shifted by up to 0.5 / d of that level's pixels elsewhere.
    """

    reader = "OpenSlide"

    def __init__(self, path: str | Path) -> None:
        """`UserError` for a file that OpenSlide does not read, or that is damaged."""
        self.path = Path(path)
        openslide = wsi_package("openslide", self.path)
        self._error = openslide.OpenSlideError
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file")
        with self._in_words():
            self._open: Any = openslide.OpenSlide(self.path)
        with self._in_words():
            self._open.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
            said = self._open.properties
            self.properties = {name: value for name in said if (value := said.get(name)) is not None}
            sizes = self._open.level_dimensions
            self._steps = tuple(float(step) for step in self._open.level_downsamples)
        self.vendor = self.properties.get(openslide.PROPERTY_NAME_VENDOR, "")
        self.levels = tuple(Level.below(sizes[0], size) for size in sizes)
        if self.properties.get(_DICOM_IMAGE_KIND) == "RESAMPLED":
            self.close()
            raise UserError(
                f"{self.path}: a DICOM slide, but its finest level is not there: the largest file is RESAMPLED from "
                "another; expected all files of its series in one folder"
            )
        x, y = (self.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
        self.mpp = believed(x, y)
        self.doubt = "" if self.mpp else doubt(x, y)
        self.scanned_from = _scanned_from(self.properties)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        found, step = self.levels[level], self._steps[level]

        def region(x: int, y: int, width: int, height: int) -> np.ndarray:
            with self._in_words():
                image = self._open.read_region((round(x * step), round(y * step)), level, (width, height))
            return _on_white(np.asarray(image))

        return beyond_is_white(region, (found.width, found.height), x, y, width, height)

    def close(self) -> None:
        self._open.close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            said = first_line(error)
            raise UserError(
                f"{self.path}: cannot be read as a slide: {said}; expected a whole file of OpenSlide's formats"
            ) from None


def _scanned_from(properties: Mapping[str, str]) -> tuple[int, int]:
    """Where the scanned part begins in pixels of level 0, as MIRAX and Leica slides say it; (0, 0) for others."""
    texts = [properties.get(f"openslide.bounds-{name}", "") for name in ("x", "y", "width", "height")]
    if not all(text.isascii() and text.isdigit() for text in texts):
        return 0, 0
    return int(texts[0]), int(texts[1])


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 of (h, w, 4): what the file leaves out is transparent there."""
    if rgba[..., 3].min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
