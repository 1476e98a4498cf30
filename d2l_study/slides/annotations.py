"""What annotations of a slide say about its tiles, whichever tool made them.

    annotation = read_annotation(Path("S-001.geojson"), (slide.width, slide.height), AnnotationClasses(("Tumor",)))
    truth = tile_truth(annotation, xy, side, coverage=0.5)          # (n,) int8: 1, 0, or −1 unknown

GeoJSON of QuPath, XML of ASAP, and mask images (PNG, TIFF) are read, told by their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides.annotated_shapes import AnnotatedShapes
from d2l_study.slides.annotation_classes import NEGATIVE, POSITIVE, UNKNOWN, AnnotationClasses
from d2l_study.slides.asap_annotations import read_asap
from d2l_study.slides.mask_annotation import MaskAnnotation, read_mask
from d2l_study.slides.qupath_annotations import GZIP, read_qupath
from d2l_study.slides.region_annotation import RegionAnnotation
from d2l_study.slides.regions import Side

Annotation = RegionAnnotation | MaskAnnotation
"""What is known of a slide: `coverage`, `unknown_share` and `labelled_points` of tiles, `points`, `notes`, and the
class `taken` for positive as the only one."""

ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz", ".xml", ".png", ".tif", ".tiff")
"""How names of annotation files end; what is looked for in folders."""
_MASKS = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = {
    b"PK\x03\x04": "a zip file; unpack it", b"\x89HDF": "an HDF5 file", b"<!DOCTYPE html": "a page of the web",
    b"\xff\xd8\xff": "a JPEG image, whose values are not those that were drawn",
}  # fmt: skip
_MASK, _GEOJSON, _XML = "mask", "GeoJSON", "XML"
"""Kinds of annotation files."""
_ROUNDING = 1e-9
"""Shares of tiles that are equal but for this are equal."""


def read_annotation(
    path: Path,
    size: tuple[int, int] | None = None,
    classes: AnnotationClasses | None = None,
    values: Mapping[int, str] | None = None,
) -> Annotation:
    """The annotation of one slide.

    size: (width, height) of the slide in level-0 pixels, which shapes are checked against and a mask cannot do without;
    classes: what its classes mean; values: the classes of a mask's values. `UserError` for a file that is none, is
    damaged, was made for another slide, or has nothing of a positive class.
    """
    classes = classes or AnnotationClasses()
    kind = _kind(path)
    if kind == _MASK:
        if size is None:
            raise UserError(f"{path}: a mask says nothing without the size of its slide; give the slide as well")
        return read_mask(path, size, classes, values)
    return RegionAnnotation.of_shapes(_shapes(path, kind), classes, size)


def class_taken(path: Path, classes: AnnotationClasses) -> tuple[str, ...]:
    """`taken` of the annotation in a file, without what else it says. `UserError` as of `read_annotation`."""
    if (kind := _kind(path)) == _MASK:
        return ()
    shapes = _shapes(path, kind)
    return classes.taken(path, [name for name, _ in (*shapes.regions, *shapes.points)])


def _shapes(path: Path, kind: str) -> AnnotatedShapes:
    return read_qupath(path) if kind == _GEOJSON else read_asap(path)


def is_mask(path: Path) -> bool:
    """Whether an annotation is a mask, by its beginning. `UserError` as of `check_annotation`."""
    return _kind(path) == _MASK


def is_geojson(path: Path) -> bool:
    """Whether an annotation is QuPath's, by its beginning. `UserError` as of `check_annotation`."""
    return _kind(path) == _GEOJSON


def check_annotation(path: Path) -> None:
    """`UserError` for a file that is none by its beginning; the rest of it is not read."""
    _kind(path)


def _kind(path: Path) -> str:
    begin = _begin(path)
    if begin.startswith(_MASKS):
        return _MASK
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(GZIP) or text[:1] in (b"{", b"["):
        return _GEOJSON
    if text[:1] == b"<" and not text.lower().startswith(b"<!doctype html"):
        return _XML
    found = next((what for mark, what in _OTHERS.items() if begin.startswith(mark)), None)
    found = found or f"no annotation (it begins with {begin[:12]!r})" if begin else "an empty file of 0 bytes"
    raise UserError(f"{path}: this is {found}; expected GeoJSON of QuPath, XML of ASAP, or a mask as PNG or TIFF")


def tile_truth(annotation: Annotation, xy: np.ndarray, side: Side, coverage: float = 0.5) -> np.ndarray:
    """(n,) int8: 1 for a tile of which at least the share `coverage` is positive, −1 where what is not known of it
    could make it positive, else 0.

    xy: (n, 2) upper left corners in level-0 pixels; side: of a tile; coverage: above 0, at most 1. A tile that holds a
    positive point is positive; one of unknown truth that holds negative points alone is negative.
    """
    if not 0 < coverage <= 1:
        raise UserError(f"coverage {coverage!r} is not allowed; expected a number above 0, at most 1")
    positive = annotation.coverage(xy, side)
    possible = positive + annotation.unknown_share(xy, side)
    truth = np.full(len(xy), NEGATIVE, np.int8)
    truth[possible >= coverage - _ROUNDING] = UNKNOWN
    truth[positive >= coverage - _ROUNDING] = POSITIVE
    holds_positive, holds_negative = annotation.labelled_points(xy, side)
    truth[(truth == UNKNOWN) & holds_negative] = NEGATIVE
    truth[holds_positive] = POSITIVE
    return truth


def _begin(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
