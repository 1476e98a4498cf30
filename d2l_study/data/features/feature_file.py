"""A file with the feature vectors of one slide: described first, read in pieces later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.pool import UNKNOWN
from d2l_study.errors import UserError, listed

PIECE = 8 * 2**20
"""Bytes of vectors that are read at a time."""

LEVEL_0 = "level-0 pixels"
MICRONS = "µm"
TOP_LEFT = "top-left"
CENTRE = "centre"


@dataclass(frozen=True)
class Tiles:
    """What is said of the tiles that the vectors were made of; empty or NaN where it is not said.

    unit: of their places, `LEVEL_0` or `MICRONS`; anchor: what of a tile the place is, `TOP_LEFT` or `CENTRE`; side: of
    a tile, in that unit; scale: size and magnification, in words, which all slides must share.
    """

    unit: str = ""
    anchor: str = ""
    side: float = math.nan
    scale: str = ""


@dataclass(frozen=True)
class FeatureFile:
    """count: N vectors of `width` D (0 where an empty slide has no width) as numbers of `dtype`; extractor: the encoder
    that made them, empty where it is not said; has_places: whether there are coordinates, in `places_file` if they
    stand in a file of their own; has_truth: whether there are labels of instances beside the vectors; slide_of: (N,)
    the number of each vector's slide, 0, 1 …, where the file has several."""

    path: Path
    count: int
    width: int
    dtype: np.dtype
    extractor: str = ""
    tiles: Tiles = Tiles()
    has_places: bool = False
    has_truth: bool = False
    places_file: Path | None = None
    slide_of: np.ndarray | None = None

    def pieces(self) -> Iterator[np.ndarray]:
        """The vectors in order, (n, D) at a time; one may be overwritten when the one after the next is asked for."""
        raise NotImplementedError(f"{type(self).__name__}.pieces")

    def places(self) -> np.ndarray:
        """(N, 2) float64 coordinates (x, y) of the tiles, NaN where there are none."""
        return np.full((self.count, 2), np.nan)

    def truth(self) -> np.ndarray:
        """(N,) int8 labels of the instances, −1 unknown."""
        return np.full(self.count, UNKNOWN, np.int8)

    def rows(self) -> int:
        """How many vectors make a piece."""
        return max(1, PIECE // max(1, self.width * self.dtype.itemsize))


def shape_of(path: Path, name: str, shape: tuple[int, ...] | None, dtype: np.dtype) -> tuple[int, int]:
    """(N, D) of an array of features, which may be (1, N, D), and (0,) for an empty slide; `UserError` for another.
    shape: None where HDF5 has a dataset without an array."""
    if dtype.kind != "f" or dtype.itemsize > 8:
        hint = " (pixels? features of them are needed)" if dtype == np.uint8 else ""
        raise UserError(f"{path}: {name} is of type {dtype}{hint}; expected float16, float32 or float64")
    if shape is None:  # HDF5's null dataspace
        raise UserError(f"{path}: {name} holds nothing, not even an array; expected (N, D): N tiles, D dimensions")
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if shape == (0,):
        return 0, 0
    if len(shape) != 2:
        hint = " (one vector of the whole slide?)" if len(shape) == 1 else ""
        raise UserError(f"{path}: {name} has the shape {shape}{hint}; expected (N, D): N tiles, D dimensions")
    if shape[0] and not shape[1]:
        raise UserError(f"{path}: {name} has the shape {shape}: vectors of no dimension")
    return int(shape[0]), int(shape[1])


def places_of(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) float64 from an array of coordinates; `UserError` for one of another length or kind."""
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.dtype.kind not in "iuf":
        raise UserError(f"{path}: {name} is of type {values.dtype}; expected numbers")
    if count == 0 and values.size == 0:
        return np.empty((0, 2))
    if values.ndim != 2 or values.shape[1] != 2:
        raise UserError(f"{path}: {name} has the shape {values.shape}; expected (N, 2): x and y of each tile")
    if len(values) != count:
        raise UserError(f"{path}: {len(values):,} rows in {name}, but {count:,} vectors")
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise UserError(f"{path}: {len(wrong):,} of {count:,} rows in {name} hold NaN or infinity, the first of them "
                        f"row {wrong[0]} (from 0)")  # fmt: skip
    return values.astype(np.float64)


def truth_of(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """(count,) int8 from an array of labels 0, 1 and −1 (unknown, NaN too); `UserError` for another."""
    if count == 0 and values.size == 0:
        return np.empty(0, np.int8)
    values = values.reshape(-1) if values.ndim != 1 and values.size == max(values.shape, default=0) else values
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} has the shape {values.shape} and type {values.dtype}; expected one number for "
                        "each vector")  # fmt: skip
    if len(values) != count:
        raise UserError(f"{path}: {len(values):,} labels in {name}, but {count:,} vectors")
    numbers = values.astype(np.float64)
    numbers = np.where(np.isnan(numbers), UNKNOWN, numbers)
    wrong = np.unique(numbers[~np.isin(numbers, (0, 1, UNKNOWN))])
    if len(wrong):
        raise UserError(f"{path}: {name} has {listed((f'{v:g}' for v in wrong), 4)}; expected 0, 1, or -1 where it is "
                        "not known")  # fmt: skip
    return numbers.astype(np.int8)


def changed_said(file: FeatureFile, read: int) -> str:
    """That a file held another number of vectors when it was read than when it was described."""
    return f"{file.path}: {read:,} vectors, but {file.count:,} when it was opened; it is being written, or damaged"


def not_finite_said(strange: int, count: int, first: int) -> str:
    """That `strange` of `count` vectors are no numbers, the first of them in row `first`."""
    return f"{strange:,} of {count:,} vectors hold NaN or infinity, the first of them row {first} (from 0)"
