"""A whole-slide image made of the colon images, with their nuclei as annotations: real tissue whose truth is known.

    placed = write_colon_mosaic(Path("colon.svs"), Path("colon.geojson"))     # 5,640 × 5,640 pixels of 0.55 µm
    placed[0]                                             # PlacedImage(name="img1", x=32, y=32, width=500, height=500)

The images lie side by side, row by row, each within a margin that mirrors it: a patch that reaches beyond an image's
border then holds what the loader of the colon images would give it. OpenSlide and QuPath read the slide; the truth is
GeoJSON as QuPath writes it.
"""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.data import colon
from d2l_study.environment import in_data_folder
from d2l_study.errors import UserError
from d2l_study.slides.image_files import image_size, read_image
from d2l_study.slides.pyramid_file import write_pyramid

MPP = 0.55
"""µm per pixel of the archive's images (Sirinukunwattana et al. 2016, section IV.A: 20×, 0.55 µm)."""

MARGIN = 32
"""Pixels around each image that mirror it: more than half a patch of 27."""

OTHER = "other nuclei"
"""Classification of nuclei that are not epithelial."""

_COLOURS = {colon.POSITIVE: [200, 0, 0], OTHER: [0, 90, 200]}


@dataclass(frozen=True)
class PlacedImage:
    """Where an image lies in the mosaic. x, y: pixels of level 0 of its upper left corner, without its margin."""

    name: str
    x: int
    y: int
    width: int
    height: int


def write_colon_mosaic(
    path: Path,
    truth: Path | None = None,
    *,
    root: Path | None = None,
    images: int | None = None,
    columns: int | None = None,
    margin: int = MARGIN,
    mpp: float = MPP,
    synthetic: int = 16,
    **how: Any,
) -> list[PlacedImage]:
    """Write the mosaic, and return where its images lie.

    path: of the slide, `.svs`; truth: of the GeoJSON file, if one is wanted; root: the folder that holds the archive,
    or is it, by default that of `D2L_DATA`, and where that has none, `synthetic` drawn images take their place; images:
    how many, the first ones by number, None for all; columns: images in a row, None for about a square; margin: at most
    an image's side less one; how: layout, compression, quality, tile, step, least of `write_pyramid`.

    `UserError` for a root without images, or a damaged one.
    """
    with ExitStack() as stack:
        folder = root if root is not None else _archive()
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _draw(folder, synthetic if images is None else images)
        found = colon.find_images(folder)[:images]
        if not found:
            raise UserError(f"{folder}: no colon images; expected at least one")
        placed, size = _places(found, columns or math.ceil(math.sqrt(len(found))), margin)
        write_pyramid(path, _bands(found, placed, margin, size[0]), mpp=mpp, size=size, **how)
        if truth is not None:
            _write_truth(truth, found, placed)
    return placed


def _archive() -> Path | None:
    found = in_data_folder(colon.ARCHIVE)
    folder = None if found is None else Path(found)
    return folder if folder is not None and colon.image_folder(folder) is not None else None


def _draw(folder: Path, count: int) -> None:
    from d2l_study.data.synthetic_tissue import write_colon

    write_colon(folder, max(1, count))


def _places(images: Sequence[colon.ColonImage], columns: int, margin: int) -> tuple[list[PlacedImage], tuple[int, int]]:
    """Where images lie in rows, each as high as its highest one, and the size of the whole."""
    placed: list[PlacedImage] = []
    top = width = 0
    for first in range(0, len(images), columns):
        left = high = 0
        for image in images[first : first + columns]:
            w, h = image_size(image.image)
            placed.append(PlacedImage(image.name, left + margin, top + margin, w, h))
            left, high = left + w + 2 * margin, max(high, h + 2 * margin)
        top, width = top + high, max(width, left)
    return placed, (width, top)


def _bands(
    images: Sequence[colon.ColonImage], placed: Sequence[PlacedImage], margin: int, width: int
) -> Iterator[np.ndarray]:
    """The rows of images, white where there is none."""
    rows = sorted({one.y for one in placed})
    for top in rows:
        members = [(image, one) for image, one in zip(images, placed, strict=True) if one.y == top]
        high = max(one.height for _, one in members) + 2 * margin
        band = np.full((high, width, 3), 255, np.uint8)
        for image, one in members:
            framed = np.pad(read_image(image.image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
            left = one.x - margin
            band[: framed.shape[0], left : left + framed.shape[1]] = framed
        yield band


def mosaic_nuclei(
    images: Sequence[colon.ColonImage], placed: Sequence[PlacedImage]
) -> Iterator[tuple[str, np.ndarray, PlacedImage]]:
    """(class of the archive, (k, 2) float64 places, image): centres of nuclei in pixels of level 0, where a pixel's
    middle is at its number and a half."""
    for image, one in zip(images, placed, strict=True):
        for kind in colon.CLASSES:
            yield kind, colon.read_nuclei(image.nuclei[kind]) + np.array([one.x + 0.5, one.y + 0.5]), one


def _write_truth(path: Path, images: Sequence[colon.ColonImage], placed: Sequence[PlacedImage]) -> None:
    """GeoJSON of a point for each nucleus: its class as `epithelial` or `other nuclei`, that of the archive as name."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for kind, centres, one in mosaic_nuclei(images, placed):
            name = kind if kind == colon.POSITIVE else OTHER
            for number, (x, y) in enumerate(centres.tolist()):
                feature = {
                    "type": "Feature",
                    "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{one.name}/{kind}/{number}")),
                    "geometry": {"type": "Point", "coordinates": [x, y]},
                    "properties": {
                        "objectType": "annotation",
                        "name": f"{one.name} {kind}",
                        "classification": {"name": name, "color": _COLOURS[name]},
                    },
                }
                file.write(separator + json.dumps(feature))
                separator = ",\n"
        file.write("\n]}\n")
