"""An annotation as a mask image: a PNG or TIFF of the slide's shape, of its size or smaller by a power of two.

A mask may have as many pixels as the slide itself. It is read a band of rows at a time, and bands are kept compressed,
so that a mask of 100,000 × 80,000 pixels needs some megabytes. How much of a tile is covered is exact, to parts of a
pixel.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.errors import UserError, counted, listed
from d2l_study.slides import tiff_tags
from d2l_study.slides.annotation_classes import NEGATIVE, POSITIVE, UNKNOWN, AnnotationClasses
from d2l_study.slides.image_files import decode_errors, quiet_pillow
from d2l_study.slides.packages import extra_package
from d2l_study.slides.regions import Side, both_sides

MOST_VALUES = 16
"""Different values of a mask whose values have no names; photographs and score maps have more."""
BAND_PIXELS = 2**22
"""Of a mask, that are summed up at a time."""
MOST_PIXELS = 2**30
"""Of a PNG, which is decoded whole."""
_MOST_HALVINGS = 12
_CODES = {NEGATIVE: 0, POSITIVE: 1, UNKNOWN: 2}
_TYPES = "black and white, or one channel of 8 or 16 bits"


@dataclass(frozen=True)
class _Band:
    """Some rows of a mask: the first, how many; codes: of its pixels, compressed; present: the codes that there are."""

    first: int
    rows: int
    codes: bytes
    present: frozenset[int]


@dataclass(frozen=True)
class MaskAnnotation:
    """What a mask says of a slide.

    downsample: level-0 pixels of a side of one of its pixels; shape: its (rows, columns); bands: of its rows, in order;
    points, point_label: none, (0, 2) and (0,); notes, taken: none.
    """

    path: Path
    downsample: int
    shape: tuple[int, int]
    bands: tuple[_Band, ...]
    points: np.ndarray
    point_label: np.ndarray
    notes: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    def coverage(self, xy: np.ndarray, side: Side) -> np.ndarray:
        """(n,) float64: the share of each tile that is positive. xy: (n, 2) upper left corners in level-0 pixels; side:
        of a tile. Beyond the mask nothing is."""
        return self._shares(xy, both_sides(side), _CODES[POSITIVE])

    def unknown_share(self, xy: np.ndarray, side: Side) -> np.ndarray:
        """(n,) float64: the share of each tile of which nothing is known."""
        return self._shares(xy, both_sides(side), _CODES[UNKNOWN])

    def labelled_points(self, xy: np.ndarray, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Two (n,) bool, all false: a mask has no points."""
        return np.zeros(len(xy), bool), np.zeros(len(xy), bool)

    def _shares(self, xy: np.ndarray, sides: np.ndarray, code: int) -> np.ndarray:
        order = np.argsort(xy[:, 1], kind="stable")
        begin = np.asarray(xy[order], np.float64) / self.downsample
        end = begin + sides / self.downsample
        columns = self.shape[1]
        x0, x1 = begin[:, 0].clip(0, columns), end[:, 0].clip(0, columns)
        found = np.zeros(len(order))
        for band in self.bands:
            if code not in band.present:
                continue
            last = band.first + band.rows
            some = slice(np.searchsorted(end[:, 1], band.first, "right"), np.searchsorted(begin[:, 1], last, "left"))
            if some.start >= some.stop:
                continue
            total = _summed(np.frombuffer(zlib.decompress(band.codes), np.uint8).reshape(band.rows, columns) == code)
            y0 = begin[some, 1].clip(band.first, last) - band.first
            y1 = end[some, 1].clip(band.first, last) - band.first
            found[some] += (_at(total, y1, x1[some]) - _at(total, y0, x1[some])) - (
                _at(total, y1, x0[some]) - _at(total, y0, x0[some])
            )
        out = np.empty(len(order))
        out[order] = found * self.downsample**2 / sides.prod()
        return out.clip(0, 1)


def read_mask(
    path: Path, size: tuple[int, int], classes: AnnotationClasses, values: Mapping[int, str] | None = None
) -> MaskAnnotation:
    """The mask of a slide. size: (width, height) of the slide in level-0 pixels; values: the classes of the mask's
    values, by which `classes` tells what they mean; without them whatever is above 0 is positive.

    `UserError` for an image that is no mask, of another shape, of a value without a class, or without positive pixels.
    """
    codes_of = _codes(path, classes, values)
    shape, blocks = _pixels(path)
    downsample = _downsample(path, (shape[1], shape[0]), size)
    seen = np.zeros(len(codes_of), bool)
    bands = []
    first = 0
    for block in blocks:
        step = max(1, BAND_PIXELS // shape[1])
        for begin in range(0, len(block), step):
            rows = block[begin : begin + step]
            seen |= np.bincount(rows.reshape(-1), minlength=len(seen)) > 0
            if values is None and seen.sum() > MOST_VALUES:
                raise UserError(
                    f"{path}: more than {MOST_VALUES} different values: a photograph or a map of scores, not a mask"
                )
            codes = codes_of[rows]
            present = frozenset(np.flatnonzero(np.bincount(codes.reshape(-1))).tolist())
            bands.append(_Band(first, len(rows), zlib.compress(codes.tobytes(), 1), present))
            first += len(rows)
    if (strange := np.flatnonzero(seen & (codes_of == _NO_CLASS))).size:
        raise UserError(f"{path}: the value {strange[0]} has no class (classes: {listed((values or {}).items())})")
    if classes.required and not any(_CODES[POSITIVE] in band.present for band in bands):
        raise UserError(f"{path}: no pixel is positive (values found: {listed(np.flatnonzero(seen).tolist())})")
    return MaskAnnotation(path, downsample, shape, tuple(bands), np.empty((0, 2)), np.empty(0, np.int8))


def _white_is_zero(photometric: int, bits: int, software: object) -> bool:
    """Whether the values of a TIFF are those of ink, 0 for white (TIFF 6.0, PhotometricInterpretation).

    tifffile says so of every array of truth values, unless it is told otherwise, and reads them back as they were: what
    it wrote of one bit is meant as it is stored.
    """
    return photometric == 0 and not (bits == 1 and str(software).startswith("tifffile"))


def is_inverted(path: Path) -> bool:
    """Whether a mask is a TIFF whose 0 is white. Needs no package; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            tags = tiff_tags.read_tags(file)
        return _white_is_zero(
            tags.number(tiff_tags.PHOTOMETRIC, 1), tags.number(tiff_tags.BITS, 1), tags.get(tiff_tags.SOFTWARE)
        )
    except Exception:  # of another kind, or damaged, which whoever reads it says
        return False


_NO_CLASS = 255
"""The code of a value that nobody named."""


def _codes(path: Path, classes: AnnotationClasses, values: Mapping[int, str] | None) -> np.ndarray:
    """(65536,) uint8: the code of each value that a pixel can have."""
    if values is None:
        codes = np.full(2**16, _CODES[POSITIVE], np.uint8)
        codes[0] = _CODES[NEGATIVE]
        return codes
    rest = _CODES[UNKNOWN if classes.negative else NEGATIVE]
    kinds = classes.kinds(path, values.values())
    codes = np.full(2**16, _NO_CLASS, np.uint8)
    codes[0] = rest
    for value, name in values.items():
        kind = kinds[name]
        codes[value] = rest if kind is None else _CODES[kind]
    return codes


def _downsample(path: Path, mask: tuple[int, int], size: tuple[int, int]) -> int:
    """Level-0 pixels of a side of a mask's pixel. mask, size: (width, height) of mask and slide."""
    for halvings in range(_MOST_HALVINGS + 1):
        # A side that is no multiple was rounded, up or down.
        if all(abs(found - full / 2**halvings) < 1 for found, full in zip(mask, size, strict=True)):
            return 2**halvings
    across, down = size[0] / mask[0], size[1] / mask[1]
    said = f"{path}: a mask of {mask[0]:,}×{mask[1]:,} pixels for a slide of {size[0]:,}×{size[1]:,}"
    slack = 1 / mask[0] + 1 / mask[1]
    if abs(across / down - 1) > slack:
        raise UserError(f"{said}: another shape; expected the slide's, or one smaller by a power of two on both sides")
    raise UserError(f"{said}: smaller by {across:.4g}; expected a power of two (1, 2, 4 … {2**_MOST_HALVINGS:,})")


def _pixels(path: Path) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
    """The (rows, columns) of a mask, and its values in blocks of rows, (r, columns) of whole numbers."""
    with path.open("rb") as file:
        if file.read(4) == b"\x89PNG":
            return _png(path)
    return _tiff(path)


def _png(path: Path) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
    from PIL import Image

    quiet_pillow()
    with decode_errors(path), Image.open(path, formats=("PNG",)) as image:
        if image.mode not in ("1", "L", "P", "I;16", "I"):
            raise UserError(f"{path}: a mask of mode {image.mode}; expected {_TYPES}")
        if image.width * image.height > MOST_PIXELS:
            raise UserError(
                f"{path}: {image.width:,}×{image.height:,} pixels; a PNG of at most {MOST_PIXELS:,} is decoded "
                "(save the mask as a tiled TIFF, or smaller by a power of two)"
            )
        pixels = np.asarray(image)
    if pixels.dtype == np.int32:  # as Pillow opens 16 bits
        pixels = pixels.astype(np.uint16)
    return (pixels.shape[0], pixels.shape[1]), iter([_whole_numbers(pixels)])


def _tiff(path: Path) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
    """The finest page, whichever levels follow it."""
    tifffile = extra_package("tifffile", f"{path}: a mask as TIFF; reading these")
    with decode_errors(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        shape = (page.imagelength, page.imagewidth)
        found = f"{counted(page.samplesperpixel, 'channel')} of {page.dtype}"
        if page.samplesperpixel != 1 or page.imagedepth != 1 or page.dtype not in (bool, np.uint8, np.uint16):
            raise UserError(f"{path}: a mask of {found}; expected {_TYPES}")
    return shape, _tiff_rows(path)


def _tiff_rows(path: Path) -> Iterator[np.ndarray]:
    """The rows of the finest page in order, a row of its tiles or strips at a time, as a viewer shows them: where white
    is zero, 0 is the largest value. Tiles that a file leaves out as empty are what its 0 means."""
    tifffile = extra_package("tifffile", f"{path}: a mask as TIFF; reading these")
    with decode_errors(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        high = page.tilelength if page.is_tiled else page.rowsperstrip
        wide = page.tilewidth if page.is_tiled else page.imagewidth
        across = -(-page.imagewidth // wide)
        inverted = _white_is_zero(page.photometric, page.bitspersample, page.software)
        most = 2**page.bitspersample - 1
        for number, (pixels, place, _) in enumerate(page.segments(maxworkers=1)):
            y, x = place[-3:-1]
            if number % across == 0:
                rows = np.zeros((min(high, page.imagelength - y), page.imagewidth), page.dtype)
            if pixels is not None:
                part = pixels.reshape(pixels.shape[-3:-1])[: len(rows), : page.imagewidth - x]
                rows[: part.shape[0], x : x + part.shape[1]] = part
            if number % across == across - 1:
                found = _whole_numbers(rows)
                yield found.dtype.type(most) - found if inverted else found


def _whole_numbers(pixels: np.ndarray) -> np.ndarray:
    """Black and white as 0 and 1."""
    return pixels.view(np.uint8) if pixels.dtype == bool else pixels


def _summed(inside: np.ndarray) -> np.ndarray:
    """(rows + 1, columns + 1) int32: [i, j] is the number of pixels inside above row i and left of column j (a summed
    area table: Crow, SIGGRAPH 1984)."""
    out = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1), np.int32)
    np.cumsum(inside, axis=0, dtype=np.int32, out=out[1:, 1:])
    np.cumsum(out[1:, 1:], axis=1, out=out[1:, 1:])
    return out


def _at(total: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A summed area table between pixels, where it is exactly linear along both axes. y, x: (n,) within the table."""
    row = np.minimum(y.astype(np.int64), total.shape[0] - 2)
    column = np.minimum(x.astype(np.int64), total.shape[1] - 2)
    down, right = y - row, x - column
    upper = total[row, column] * (1 - right) + total[row, column + 1] * right
    lower = total[row + 1, column] * (1 - right) + total[row + 1, column + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)
