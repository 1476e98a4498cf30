"""What the feature files of a data set must share, checked before any vector is copied."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.features.encoder_names import encoder_key
from d2l_study.data.features.feature_file import FeatureFile, Tiles, changed_said, not_finite_said
from d2l_study.data.features.hdf5 import tiles_of
from d2l_study.data.features.opening import kind_of, open_features, places
from d2l_study.data.manifest_problems import Problems
from d2l_study.errors import UserError, counted

_READERS = 4


def open_all(
    paths: Sequence[Path], problems: Problems, truth: str | None = None, beside: Sequence[Path | None] = (),
    skip_empty: bool = True,
) -> tuple[list[FeatureFile], dict[str, Any]]:  # fmt: skip
    """The files of a data set's slides, described, and what is said of all of them (plain values).

    problems: takes what is wrong; beside: of each, the file with its places, where these stand in files of their own;
    skip_empty: whether slides without vectors may be there. `UserError` says which cannot be read, and which differ
    from most others in dimensions, encoder or scale.
    """
    found = describe_files(paths, truth, beside)
    note_unreadable(problems, paths, found)
    files = [file for file in found if isinstance(file, FeatureFile)]
    full = [file for file in files if file.count]
    if not skip_empty:
        for file in files:
            if not file.count:
                problems.add_file(file.path, EMPTY)
    _alike(problems, full, lambda f: f.width, lambda f: f"vectors of {f.width:,} dimensions")
    check_encoders_alike(problems, full)
    _alike(problems, (f for f in full if f.tiles.scale), lambda f: f.tiles.scale, lambda f: f"tiles of {f.tiles.scale}")
    check_places_alike(problems, full)
    problems.stop_if_any()
    if not full:
        raise UserError(f"{problems.file}: {counted(len(files), 'feature file')}, all of them without a vector")
    return files, common_metadata(full)


def note_unreadable(problems: Problems, paths: Sequence[Path], found: Sequence[FeatureFile | str]) -> None:
    """Notes the files that cannot be read as features. found: of `describe_files`."""
    for path, text in zip(paths, found, strict=True):
        if isinstance(text, str):
            problems.add_file(path, text.removeprefix(f"{path}: "))


def describe_files(
    paths: Sequence[Path], truth: str | None = None, beside: Sequence[Path | None] = ()
) -> list[FeatureFile | str]:
    """Each file described, or what is wrong with it, in words. truth, beside: as of `open_all`."""

    def described(path: Path, other: Path | None) -> FeatureFile | str:
        try:
            file = open_features(path, truth)
            if other is not None and not file.has_places:
                said = tiles_of(other) if file.tiles == Tiles() and kind_of(other) == "hdf5" else file.tiles
                file = dataclasses.replace(file, has_places=True, places_file=other, tiles=said)
            elif other is not None and file.tiles == Tiles() and _same_places(file, other):
                file = dataclasses.replace(file, tiles=tiles_of(other))  # CLAM's `h5_files` say nothing of them
            if file.places_file is not None:
                places(file)
        except UserError as error:
            return str(error)
        return file

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(described, paths, beside or [None] * len(paths)))


def _same_places(file: FeatureFile, other: Path) -> bool:
    """Whether an HDF5 file holds the places of a file's tiles, too."""
    if kind_of(other) != "hdf5":
        return False
    try:
        theirs = places(dataclasses.replace(file, places_file=other))
    except UserError:  # of another number of tiles
        return False
    return np.array_equal(theirs, file.places())


def check_encoders_alike(problems: Problems, files: Iterable[FeatureFile]) -> None:
    """Notes the files that another encoder made than most others, however its name is written."""
    _alike(problems, (f for f in files if f.extractor), lambda f: encoder_key(f.extractor),
           lambda f: f"encoder {f.extractor!r}")  # fmt: skip


def check_places_alike(problems: Problems, files: Iterable[FeatureFile]) -> None:
    """Notes the files whose places are in another unit, or of another point of the tile, than most others'."""
    _alike(problems, (f for f in files if f.has_places), lambda f: (f.tiles.unit, f.tiles.anchor), lambda f: (
        f"places in {f.tiles.unit or 'an unknown unit'}"))  # fmt: skip


def check_vectors(files: Sequence[FeatureFile]) -> Iterator[str]:
    """What is wrong with the vectors of each file in turn, in words, "" if nothing is. Reads all of them, in pieces."""
    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(_wrong_vectors, files)


def _wrong_vectors(file: FeatureFile) -> str:
    read = strange = 0
    first = -1
    try:
        for piece in file.pieces():
            if not (finite := np.isfinite(piece)).all():
                rows = np.flatnonzero(~finite.all(axis=1))
                first = read + int(rows[0]) if first < 0 else first
                strange += len(rows)
            read += len(piece)
    except UserError as error:
        return str(error)
    if read != file.count:
        return changed_said(file, read)
    return f"{file.path}: {not_finite_said(strange, file.count, first)}" if strange else ""


def common_metadata(files: Sequence[FeatureFile]) -> dict[str, Any]:
    """What files that are alike say: the extractor, and of the tiles unit, anchor and scale."""
    tiles = next((file.tiles for file in files if file.tiles != Tiles()), Tiles())
    extractor = next((file.extractor for file in files if file.extractor), "")
    return {"extractor": extractor, "unit": tiles.unit, "anchor": tiles.anchor, "scale": tiles.scale}


EMPTY = "a slide without vectors (no tissue was found?); data.skip_empty: true leaves it out"


def _alike(
    problems: Problems, files: Iterable[FeatureFile], key: Callable[[FeatureFile], Hashable],
    tell: Callable[[FeatureFile], str],
) -> None:  # fmt: skip
    """Notes the files that differ from most others; of two equally common values the first is what the others are
    compared with."""
    files = list(files)
    counts = Counter(key(file) for file in files)
    if len(counts) < 2:
        return
    usual, most = counts.most_common(1)[0]
    example = next(file for file in files if key(file) == usual)
    for file in files:
        if key(file) != usual:
            problems.add_file(file.path, f"{tell(file)}; {most:,} of {len(files):,} files have {tell(example)} "
                         f"({example.path.name})")  # fmt: skip
