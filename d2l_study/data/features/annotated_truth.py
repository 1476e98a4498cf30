"""The truth of feature vectors by annotations of their slides: shapes of QuPath or ASAP, or masks, over tiles' places.

Annotations are read once on a machine, and what they say is kept in the cache folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.annotation_keys import AnnotationKeys
from d2l_study.data.decoded_cache import (
    ADVICE,
    UNUSABLE,
    check_once,
    index_of,
    new_entry,
    one_at_a_time,
    read_index,
    read_meta,
    write_index,
    write_meta,
)
from d2l_study.data.features.feature_file import LEVEL_0, TOP_LEFT
from d2l_study.data.features.hdf5 import slide_size
from d2l_study.data.features.opening import kind_of
from d2l_study.data.features.store import Store
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import ALL_NEGATIVE
from d2l_study.data.memory_maps import disk_full_as_user_error
from d2l_study.data.pool import UNKNOWN
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError
from d2l_study.slides.annotation_classes import other_classes
from d2l_study.slides.annotations import ENDINGS, is_mask, read_annotation, tile_truth
from d2l_study.slides.region_annotation import RegionAnnotation

NAME, VALUES = "annotations", "truth.npy"
_VERSION = 2
"""Of what is read and refused."""


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide and what annotates it.

    slide: its number in the store; row: of the table; entry: a file, `ALL_NEGATIVE`, or None where nothing is known;
    required: whether something must be positive; files: of its vectors, and of its places where these stand apart,
    which may say how large it is.
    """

    slide: int
    row: int
    entry: Path | str | None
    required: bool
    files: tuple[Path, ...]


def is_annotation(entry: Path | str | None) -> bool:
    """Whether an entry of a column of truths is an annotation, rather than a file of numbers."""
    return entry == ALL_NEGATIVE or (isinstance(entry, Path) and entry.name.lower().endswith(ENDINGS))


def annotated_truth(
    slides: Sequence[AnnotatedSlide], store: Store, keys: AnnotationKeys, problems: Problems, column: str
) -> np.ndarray:  # fmt: skip
    """(N,) int8 the truth of each vector of the store, −1 unknown.

    problems: what is wrong with the table that names the annotations; column: in which it does. `UserError` says all of
    it with what is wrong with the annotations, or that the places of tiles are not known.
    """
    files = [path for slide in slides if isinstance(slide.entry, Path) for path in (slide.entry, *slide.files)]
    said = [(slide.slide, str(slide.entry), slide.required) for slide in slides]
    about = json.dumps([_VERSION, store.checksum, said, dataclasses.asdict(keys)])
    index = index_of(NAME, about, files)
    if problems.found:
        return _read(slides, store, keys, problems, column)
    with suppress(*UNUSABLE):
        return _kept(str(read_index(index)["entry"]))
    with disk_full_as_user_error(cache_dir(), ADVICE):
        index.parent.mkdir(parents=True, exist_ok=True)
    entry = f"{NAME}-{index.stem}"
    with one_at_a_time(index.with_suffix(".lock")) as alone:
        with suppress(*UNUSABLE):
            return _kept(entry)
        truth = _read(slides, store, keys, problems, column)
        with new_entry(cache_dir() / entry, alone) as place:
            np.save(place / VALUES, truth)
            write_meta(place, {})
    write_index(index, {"entry": entry})
    return truth


def _kept(entry: str) -> np.ndarray:
    folder = cache_dir() / entry
    check_once(folder, read_meta(folder))
    return np.asarray(np.load(folder / VALUES))


def _read(
    slides: Sequence[AnnotatedSlide], store: Store, keys: AnnotationKeys, problems: Problems, column: str
) -> np.ndarray:  # fmt: skip
    unit, anchor = store.about["unit"], store.about["anchor"]
    if store.places is None or unit != LEVEL_0 or anchor != TOP_LEFT:
        found = f"found the {anchor} in {unit}" if unit and anchor else "the feature files do not say it"
        raise UserError(
            f"{problems.file}: annotations need the upper left corner of each tile in level-0 pixels; {found}"
        )
    truth = np.full(len(store.instances), UNKNOWN, np.int8)
    taken: dict[Path, tuple[str, ...]] = {}
    for slide in slides:
        mine = slice(*store.begins[slide.slide : slide.slide + 2].tolist())
        if slide.entry is None:
            continue
        if not isinstance(slide.entry, Path):
            truth[mine] = 0
            continue
        try:
            truth[mine], taken[slide.entry] = _truth_of(
                slide, slide.entry, store.places[mine], float(store.side[slide.slide]), keys
            )
        except UserError as error:
            problems.add(f"row {slide.row}, column {column}", str(error), slide.row)
    if words := other_classes(taken):
        problems.add(f"column {column}", f"{words} (data.positive_classes)")
    problems.stop_if_any()
    return truth


def _truth_of(
    slide: AnnotatedSlide, entry: Path, xy: np.ndarray, side: float, keys: AnnotationKeys
) -> tuple[np.ndarray, tuple[str, ...]]:  # fmt: skip
    """(n,) int8 the truth of a slide's tiles at (n, 2) places, and `taken` of its annotation."""
    if np.isnan(side) or np.isnan(xy).any():
        what = "how large its tiles are" if np.isnan(side) else "where its tiles are"
        raise UserError(f"{entry.name}: the feature file does not say {what}")
    sizes = (slide_size(path) for path in slide.files if kind_of(path) == "hdf5")
    size = next((one for one in sizes if one is not None), None)
    if size is None and is_mask(entry):
        raise UserError(
            f"{entry}: a mask says nothing without the size of its slide, which {slide.files[0].name} does not say "
            "(attributes level0_width and level0_height of its coordinates, as TRIDENT writes them)"
        )
    annotation = read_annotation(entry, size, keys.classes(slide.required))
    truth = tile_truth(annotation, xy, side, keys.coverage)
    if size is None and slide.required and len(xy) and not (truth == 1).any():
        assert isinstance(annotation, RegionAnnotation)  # masks have a size
        _check_on_tiles(annotation, xy, side)
    return truth, annotation.taken


def _check_on_tiles(annotation: RegionAnnotation, xy: np.ndarray, side: float) -> None:
    """`UserError` if no shape is among the tiles: without the size of the slide nothing else shows that an annotation
    is of another one."""
    (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), (xy.max(axis=0) + side).tolist()
    if not annotation.meets(x0, y0, x1, y1):
        raise UserError(
            f"{annotation.path}: no shape is where the slide's tiles are, x {x0:,.0f} to {x1:,.0f}, y {y0:,.0f} to "
            f"{y1:,.0f} (drawn on another slide, or not in level-0 pixels?)"
        )
