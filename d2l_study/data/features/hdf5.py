"""Features in HDF5 files, as TRIDENT, CLAM, STAMP and nnMIL write them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.damaged_files import open_hdf5, reading_errors
from d2l_study.data.features.feature_file import (
    LEVEL_0,
    MICRONS,
    TOP_LEFT,
    Tiles,
    shape_of,
)
from d2l_study.data.features.named_arrays import FEATURES, PLACES, NamedArraysFile, first_known, name_of_labels
from d2l_study.errors import UserError, listed
from d2l_study.slides.tile_attributes import level0_side, level0_size, number, text

MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Hdf5File(NamedArraysFile):
    """features: the name of the dataset of vectors."""

    features: str = ""

    def pieces(self) -> Iterator[np.ndarray]:
        with reading_errors(self.path), open_hdf5(self.path) as file:
            dataset = file[self.features]
            if (offsets := _stored_rows(self.path, dataset, self.count, self.width)) is not None:
                yield from self._direct(offsets)
                return
            whole = dataset.ndim == 3
            for first, found in self._buffers():
                rows = slice(first, first + len(found))
                dataset.read_direct(found, np.s_[0, rows] if whole else np.s_[rows])
                yield found

    def _direct(self, offsets: np.ndarray) -> Iterator[np.ndarray]:
        """The rows that lie at these bytes of the file: runs of them are read at once."""
        size = self.width * self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            for first, found in self._buffers():
                bytes_of, mine = memoryview(found.reshape(-1).view(np.uint8).data), offsets[first : first + len(found)]
                starts = np.flatnonzero(np.concatenate([[True], np.diff(mine) != size]))
                for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(mine)], strict=True):
                    wanted = (stop - start) * size
                    part = bytes_of[start * size : stop * size]
                    if os.preadv(file.fileno(), [part], int(mine[start])) != wanted:
                        raise EOFError("it is cut short")
                yield found

    def _buffers(self) -> Iterator[tuple[int, np.ndarray]]:
        """The first row of each piece, and an array for it; two arrays take turns."""
        rows = min(self.rows(), self.count)
        buffers = [np.empty((rows, self.width), self.dtype) for _ in range(min(2, -(-self.count // max(1, rows))))]
        for k, first in enumerate(range(0, self.count, max(1, rows))):
            yield first, buffers[k % 2][: min(rows, self.count - first)]

    def load(self, name: str) -> np.ndarray:
        with open_hdf5(self.path) as file:
            return file[name][()]


def describe(path: Path, truth: str | None = None) -> Hdf5File:
    """What an HDF5 file holds. truth: the dataset that labels each instance, where the user names one. `UserError` for
    a file without vectors of tiles."""
    with reading_errors(path), open_hdf5(path) as file:
        import h5py

        names = [name for name in file if isinstance(file.get(name), h5py.Dataset)]
        found, coords = first_known(names, FEATURES), first_known(names, PLACES)
        if not found:
            raise UserError(_without_features(path, names, coords, file))
        kind = text(file.attrs.get("feat_type", "tile"))
        if kind != "tile":
            raise UserError(f"{path}: feat_type is {kind!r}: one vector for a whole {kind}; the vectors of its tiles "
                            "are needed")  # fmt: skip
        dataset = file[found]
        count, width = shape_of(path, found, dataset.shape, dataset.dtype)
        if coords:
            _check_rows(path, coords, file[coords].shape, count)
            if count and file[coords].shape[-1:] != (2,):
                raise UserError(f"{path}: {coords} has the shape {file[coords].shape}; expected (N, 2): x and y of "
                                "each tile")  # fmt: skip
        labels = name_of_labels(path, names, truth, "dataset")
        if labels:
            _check_rows(path, labels, file[labels].shape, count)
        attributes = {**file.attrs, **(file[coords].attrs if coords else {})}
        extractor = next(
            (text(place.attrs[key]) for place in (dataset, file) for key in ("encoder", "extractor")
             if key in place.attrs), "",
        )  # fmt: skip
        tiles = _tiles(attributes)
        return Hdf5File(path, count, width, dataset.dtype, extractor, tiles, bool(coords), bool(labels), features=found,
                        coords=coords, labels=labels)  # fmt: skip


def tiles_of(path: Path) -> Tiles:
    """What an HDF5 file with places, and perhaps nothing else, says of the tiles."""
    return _tiles(_attributes(path))


def slide_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the slide in level-0 pixels, None where such a file does not say it."""
    return level0_size(_attributes(path))


def _attributes(path: Path) -> dict[str, Any]:
    with reading_errors(path), open_hdf5(path) as file:
        attributes = dict(file.attrs)
        for name in (name for name in PLACES if name in file):
            attributes |= file[name].attrs
        return attributes


def _without_features(path: Path, names: list[str], coords: str, file: Any) -> str:
    if coords:
        made = " (as CLAM and TRIDENT write to `patches`, before an encoder has seen the slide)"
        return (f"{path}: coordinates of tiles, but no features{made}; extract features first, and name the folder "
                "that they are in")  # fmt: skip
    groups = [name for name in file if name not in names]
    found = listed([*names, *(f"{group}/" for group in groups)]) or "nothing"
    return f"{path}: no dataset {' or '.join(FEATURES)} (found: {found})"


def _check_rows(path: Path, name: str, shape: tuple[int, ...] | None, count: int) -> None:
    if shape is None:
        raise UserError(f"{path}: {name} holds nothing, not even an array; leave it out, or give a row for each vector")
    rows = shape[1] if len(shape) == 3 and shape[0] == 1 else shape[0] if shape else 1
    if rows != count:
        raise UserError(f"{path}: {rows:,} rows in {name}, but {count:,} vectors")


def _tiles(attributes: dict[str, Any]) -> Tiles:
    """Of the attributes of TRIDENT (level-0 pixels), CLAM's (the same, of a level of the pyramid) or STAMP's (µm)."""
    if text(attributes.get("unit", "")) in ("um", "µm") or "tile_size_um" in attributes:
        side, pixels = number(attributes, "tile_size_um"), number(attributes, "tile_size_px")
        scale = "" if math.isnan(side) else f"{side:g} µm" + ("" if math.isnan(pixels) else f" of {pixels:g} px")
        return Tiles(MICRONS, TOP_LEFT, side, scale)
    size, magnification = number(attributes, "patch_size"), number(attributes, "target_magnification")
    side = level0_side(attributes)[0]
    if not math.isnan(magnification) and not math.isnan(size):
        return Tiles(LEVEL_0, TOP_LEFT, side, f"{size:g} px at {magnification:g}×")
    if "patch_level" in attributes and not math.isnan(size):
        return Tiles(LEVEL_0, TOP_LEFT, side, f"{size:g} px at level {attributes['patch_level']}")
    if not math.isnan(side):
        return Tiles(LEVEL_0, TOP_LEFT, side)
    return Tiles()


def _stored_rows(path: Path, dataset: Any, count: int, width: int) -> np.ndarray | None:
    """(N,) the byte in the file where each row lies, if rows lie there as they are; else None.

    HDF5 reads chunks of one row, as CLAM and TRIDENT write them, at a quarter of a gigabyte a second.
    """
    import h5py

    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):  # bfloat16, which h5py gives as float32
        return None
    stored = dataset.id.get_create_plist()
    apart = dataset.file.filename != os.fspath(path) or dataset.file.userblock_size  # a link into another file
    if apart or dataset.chunks is None or not dataset.dtype.isnative:
        return None
    rows, columns = dataset.chunks[-2:]
    if columns != width or dataset.chunks[:-2] not in ((), (1,)) or stored.get_nfilters() or count == 0:
        return None
    offsets = np.full(-(-count // rows), -1, np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[-2] // rows] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    if (offsets < 0).any():  # what was never written has no place in the file
        return None
    size = width * dataset.dtype.itemsize
    return (offsets[:, None] + np.arange(rows) * size).reshape(-1)[:count]
