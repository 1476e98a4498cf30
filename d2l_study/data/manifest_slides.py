"""A manifest of slides: tiles at one resolution, those of tissue, and what annotations say of them.

The tiles are those of `d2l tile`, by the same code (`slides.tiles`). All that is wrong with slides and annotations is
said at once, before tissue is looked for, which takes a second or two a slide.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from d2l_study.data.annotation_keys import AnnotationKeys
from d2l_study.data.cutting import BagSource, TileCut
from d2l_study.data.manifest_checks import check_all_negative, check_resolutions
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import ALL_NEGATIVE, Rows
from d2l_study.data.manifest_sources import MOST_INSTANCES, bag_sources
from d2l_study.data.pool import UNKNOWN
from d2l_study.data.slow_progress import said_slowly
from d2l_study.errors import UserError, counted
from d2l_study.slides.annotation_classes import other_classes
from d2l_study.slides.annotations import Annotation, is_geojson, read_annotation, tile_truth
from d2l_study.slides.mask_annotation import is_inverted
from d2l_study.slides.opening import open_slide
from d2l_study.slides.qupath_crop import qupath_crop_note
from d2l_study.slides.slide import Slide
from d2l_study.slides.tiles import SlideTiles, TileGrid, TileSettings, cut_tiles, why_no_tiles

VERSION = 1
"""Of what finds tissue, tiles and their truth; part of the checksum, and so of ids."""

_OPENED, _LOOKED_AT = 4, 2
"""Slides at a time that are opened, and whose tissue is looked for, which needs some 0.3 GB each."""

T = TypeVar("T")


@dataclass(frozen=True)
class SlideKeys:
    """The keys of a manifest of slides, as of `ManifestBags`."""

    mpp: float
    size: int
    stride: int
    tissue: bool
    least_tissue: float
    annotations: AnnotationKeys

    @property
    def tiles(self) -> TileSettings:
        return TileSettings(self.mpp, self.size, self.size - self.stride, self.tissue, self.least_tissue)

    def settings(self) -> dict[str, Any]:
        """What the patches depend on, beside the files."""
        return {"cut": "tiles", "version": VERSION, **dataclasses.asdict(self)}


def content_files(rows: Rows) -> list[Path]:
    """All files that the patches depend on: the slides, what belongs to them, and the annotations."""
    companions = [
        part for path in rows.files if path.suffix.lower() == ".mrxs" and (folder := path.with_suffix("")).is_dir()
        for part in sorted(folder.iterdir()) if part.is_file()
    ]  # fmt: skip
    annotations = dict.fromkeys(entry for entry in rows.annotation if isinstance(entry, Path))
    return [*rows.files, *companions, *annotations]


def inverted_masks(rows: Rows) -> dict[str, Any]:
    """What sets results apart from those of a version that read masks whose 0 is white as if it were black; nothing
    where there are none, so that all other results are found again."""
    annotations = dict.fromkeys(entry for entry in rows.annotation if isinstance(entry, Path))
    count = sum(is_inverted(entry) for entry in annotations)
    return {"masks of which 0 is white": count} if count else {}


def slide_sources(rows: Rows, keys: SlideKeys) -> list[BagSource]:
    """The bags before they are cut, as of `manifest_sources.sources`; the instances of a slide are its tiles, row by
    row. `UserError` says all that is wrong with slides and annotations."""
    problems = Problems(rows.file)
    check_resolutions(rows, problems)
    check_all_negative(rows, rows.annotation, problems, rows.columns.shown.get("annotation", "annotation"))
    shown, number = rows.columns.shown, rows.number
    every = range(len(rows))
    taken: dict[Path, tuple[str, ...]] = {}
    for i, (column, reason, found) in zip(every, _each(every, _OPENED, lambda i: _checked(rows, i, keys)), strict=True):
        if reason:
            problems.add(f"row {number[i]}, column {shown[column]}", reason, int(number[i]))
        if found:
            taken[Path(rows.annotation[i])] = found
    if words := other_classes(taken):
        problems.add(f"column {shown['annotation']}", f"{words} (data.positive_classes)")
    problems.stop_if_any()
    order = np.argsort(rows.bag.codes, kind="stable").tolist()
    made = _each(order, _LOOKED_AT, lambda i: _cut_slide(rows, i, keys))
    cuts: dict[int, list[TileCut]] = {}
    why: dict[int, str] = {}
    corners: dict[str, tuple[int, int]] = {}
    looked_at = said_slowly(made, lambda k: f"data set manifest: tissue is found on {k:,} of {len(rows):,} slides")
    for i, (cut, empty, scanned_from) in zip(order, looked_at, strict=True):
        bag = int(rows.bag.codes[i])
        cuts.setdefault(bag, []).append(cut)
        why.setdefault(bag, empty)
        if isinstance(entry := rows.annotation[i], Path) and is_geojson(entry):
            corners[rows.files[rows.path[i]].name] = scanned_from
        if rows.label[i] == 0 and (positive := int((cut.label == 1).sum())):
            text = f"{counted(positive, 'tile')} positive, but bag {rows.bag.text(i)!r} has label 0"
            problems.add(f"row {number[i]}, column {shown['annotation']}", text, int(number[i]))
    for i in rows.first_of_bag().tolist():
        bag = int(rows.bag.codes[i])
        if not sum(len(cut.corners) for cut in cuts[bag]):
            text = f"bag {rows.bag.text(i)!r} has no tile: {why[bag]}"
            problems.add(f"row {number[i]}, column {shown['path']}", text, int(number[i]))
    problems.stop_if_any()
    if note := qupath_crop_note(corners):
        print(f"note: data set manifest: {note}", file=sys.stderr, flush=True)
    count = sum(len(cut.corners) for of_bag in cuts.values() for cut in of_bag)
    if count > MOST_INSTANCES:
        raise UserError(
            f"{rows.file}: {count:,} tiles in all; at most {MOST_INSTANCES:,} are held (a larger data.mpp makes fewer)"
        )
    return bag_sources(rows, cuts)


def _each(items: Sequence[int], at_a_time: int, call: Callable[[int], T]) -> Iterator[T]:
    """The results in order, several made at a time; what has not begun is left when the caller fails."""
    executor = ThreadPoolExecutor(at_a_time)
    try:
        yield from executor.map(call, items)
    finally:
        executor.shutdown(cancel_futures=True)


def _opened(rows: Rows, row: int) -> Slide:
    mpp = float(rows.mpp[row])
    return open_slide(rows.files[rows.path[row]], None if np.isnan(mpp) else mpp)


def _checked(rows: Rows, row: int, keys: SlideKeys) -> tuple[str, str, tuple[str, ...]]:
    """What is wrong with a slide or its annotation, as (column, words), empty words if nothing is; and `taken` of its
    annotation."""
    name = rows.files[rows.path[row]].name
    try:
        with _opened(rows, row) as slide:
            if slide.mpp is None:
                doubt = f" (it says {slide.doubt})" if slide.doubt else ""
                what = f"{name} does not say its resolution{doubt}, which data.mpp needs"
                return "path", f"{what}: give it in a column mpp, in µm per pixel of its full size", ()
            settings, size = keys.tiles, (slide.width, slide.height)
            grid = TileGrid.of_slide(slide, settings.mpp, settings.size, settings.overlap)
    except UserError as error:
        return "path", str(error), ()
    if not (len(grid.columns()) and len(grid.rows())):
        tile = f"{grid.side[0]:.4g}×{grid.side[1]:.4g} (data.patch_size: {keys.size}, of {keys.mpp:g} µm)"
        return "path", f"{name} has {size[0]}×{size[1]} pixels, smaller than a tile of {tile}", ()
    try:
        annotation = _annotation(rows, row, keys, size)
    except UserError as error:
        hint = " (data.positive_classes)" if str(error).endswith("say which are positive") else ""
        return "annotation", f"{error}{hint}", ()
    return "", "", () if annotation is None else annotation.taken


def _cut_slide(rows: Rows, row: int, keys: SlideKeys) -> tuple[TileCut, str, tuple[int, int]]:
    """The tiles of a slide, with their truth; why there are none, empty if there are some; and where its scanned part
    begins."""
    with _opened(rows, row) as slide:
        tiles, scanned_from = cut_tiles(slide, keys.tiles), slide.scanned_from
    assert tiles.slide_mpp is not None
    label = _truth(rows, row, keys, (tiles.width, tiles.height), tiles.xy, tiles.side)
    cut = TileCut(
        rows.files[rows.path[row]], tiles.centres(), label, corners=tiles.xy, side=tiles.side, mpp=keys.mpp,
        slide_mpp=tiles.slide_mpp,
    )  # fmt: skip
    return cut, _why_empty(tiles, keys), scanned_from


def _why_empty(tiles: SlideTiles, keys: SlideKeys) -> str:
    return "" if len(tiles) else f"{why_no_tiles(tiles, keys.least_tissue)} in {tiles.name}"


def _truth(
    rows: Rows, row: int, keys: SlideKeys, size: tuple[int, int], xy: np.ndarray, side: tuple[float, float]
) -> np.ndarray:
    """(n,) int8 truth of tiles by the slide's annotation."""
    entry = rows.annotation[row]
    if entry == ALL_NEGATIVE:
        return np.zeros(len(xy), np.int8)
    annotation = _annotation(rows, row, keys, size)
    if annotation is None:
        return np.full(len(xy), UNKNOWN, np.int8)
    return tile_truth(annotation, xy, side, keys.annotations.coverage)


def _annotation(rows: Rows, row: int, keys: SlideKeys, size: tuple[int, int]) -> Annotation | None:
    entry = rows.annotation[row]
    if not isinstance(entry, Path):
        return None
    # A slide of several in a bag may hold nothing positive, and so one of a negative bag.
    alone = int((rows.bag.codes == rows.bag.codes[row]).sum()) == 1
    classes = keys.annotations.classes(required=bool(alone and rows.label[row] == 1))
    return read_annotation(entry, size, classes)
