"""The truth of feature vectors by annotations of their slides: QuPath's GeoJSON or ASAP's XML, over the tiles' places.

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
from d2l_study.data.features.store import Store
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import ALL_NEGATIVE
from d2l_study.data.memory_maps import disk_full_as_user_error
from d2l_study.data.pool import UNKNOWN
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError
from d2l_study.slides.annotations import ENDINGS, read_annotation, tile_truth

NAME, VALUES = "annotations", "truth.npy"
_VERSION = 1


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide and what annotates it. slide: its number in the store; entry: a file, `ALL_NEGATIVE`, or None where
    nothing is known; required: whether something must be positive."""

    slide: int
    entry: Path | str | None
    required: bool


def is_annotation(entry: Path | str | None) -> bool:
    """Whether an entry of a column of truths is an annotation, rather than a file of numbers."""
    return entry == ALL_NEGATIVE or (isinstance(entry, Path) and entry.name.lower().endswith(ENDINGS))


def annotated_truth(slides: Sequence[AnnotatedSlide], store: Store, keys: AnnotationKeys, table: Path) -> np.ndarray:
    """(N,) int8 the truth of each vector of the store, −1 unknown. table: which names the annotations, for messages.

    `UserError` says all that is wrong with the annotations, or that the places of tiles are not known.
    """
    files = [slide.entry for slide in slides if isinstance(slide.entry, Path)]
    said = [(slide.slide, str(slide.entry), slide.required) for slide in slides]
    about = json.dumps([_VERSION, store.checksum, said, dataclasses.asdict(keys)])
    index = index_of(NAME, about, files)
    with suppress(*UNUSABLE):
        return _kept(str(read_index(index)["entry"]))
    with disk_full_as_user_error(cache_dir(), ADVICE):
        index.parent.mkdir(parents=True, exist_ok=True)
    entry = f"{NAME}-{index.stem}"
    with one_at_a_time(index.with_suffix(".lock")) as alone:
        with suppress(*UNUSABLE):
            return _kept(entry)
        truth = _read(slides, store, keys, table)
        with new_entry(cache_dir() / entry, alone) as place:
            np.save(place / VALUES, truth)
            write_meta(place, {})
    write_index(index, {"entry": entry})
    return truth


def _kept(entry: str) -> np.ndarray:
    folder = cache_dir() / entry
    check_once(folder, read_meta(folder))
    return np.asarray(np.load(folder / VALUES))


def _read(slides: Sequence[AnnotatedSlide], store: Store, keys: AnnotationKeys, table: Path) -> np.ndarray:
    unit, anchor = store.about["unit"], store.about["anchor"]
    if store.places is None or unit != LEVEL_0 or anchor != TOP_LEFT:
        found = f"found the {anchor} in {unit}" if unit and anchor else "the feature files do not say it"
        raise UserError(f"{table}: annotations need the upper left corner of each tile in level-0 pixels; {found}")
    truth = np.full(len(store.instances), UNKNOWN, np.int8)
    problems = Problems(table)
    for slide in slides:
        mine = slice(*store.begins[slide.slide : slide.slide + 2].tolist())
        if slide.entry is None:
            continue
        if not isinstance(slide.entry, Path):
            truth[mine] = 0
            continue
        side = float(store.side[slide.slide])
        if np.isnan(side):
            problems.add_text(f"{slide.entry.name}: the feature file does not say how large its tiles are")
            continue
        try:
            annotation = read_annotation(slide.entry, classes=keys.classes(slide.required))
            truth[mine] = tile_truth(annotation, store.places[mine], side, keys.coverage)
        except UserError as error:
            problems.add_text(str(error))
    problems.stop_if_any()
    return truth
