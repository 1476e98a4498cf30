"""Features in numpy files: `.npy`, `.npz`; never pickles."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from d2l_study.damaged_files import reading_errors
from d2l_study.data.features.feature_file import shape_of
from d2l_study.data.features.named_arrays import FEATURES, PLACES, NamedArraysFile, first_known, name_of_labels
from d2l_study.errors import UserError, listed, nearest

MAGIC = b"\x93NUMPY"

_HEADERS = threading.Lock()
"""One thread at a time: numpy reads a header as a Python literal, and in several threads of Python 3.11 that has failed
with "AST constructor recursion depth mismatch"."""


@dataclass(frozen=True)
class Header:
    """Of an array in a `.npy` file, or in a member of an `.npz` file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool


@dataclass(frozen=True)
class NumpyFile(NamedArraysFile):
    """member: the name of the vectors in an `.npz` file; empty where it is a `.npy` file."""

    member: str = ""

    def pieces(self) -> Iterator[np.ndarray]:
        with reading_errors(self.path):
            yield from array_pieces(self.path, self.member, self.width, self.rows())

    def load(self, name: str) -> np.ndarray:
        return load_array(self.path, name)


def describe_npy(path: Path) -> NumpyFile:
    """What a `.npy` file of vectors holds; `UserError` for anything else."""
    header = array_header(path, "")
    return NumpyFile(path, *shape_of(path, "the array", header.shape, header.dtype), header.dtype)


def describe_npz(path: Path, truth: str | None = None, member: str | None = None) -> NumpyFile:
    """What an `.npz` file with the vectors of one slide holds. member: the array with the vectors, where the user names
    one; then the file's other arrays are not of it. `UserError` for anything else."""
    names = member_names(path)
    if member is not None:
        if member not in names:
            raise UserError(f"{path}: no array {member!r}{nearest(member, names)} (found: {listed(names)})")
        header = array_header(path, member)
        return NumpyFile(path, *shape_of(path, member, header.shape, header.dtype), header.dtype, member=member)
    found = first_known(names, FEATURES) or (names[0] if len(names) == 1 else "")
    if not found:
        raise UserError(f"{path}: no array {' or '.join(FEATURES)} (found: {listed(names) or 'nothing'})")
    header = array_header(path, found)
    count, width = shape_of(path, found, header.shape, header.dtype)
    coords = first_known(names, PLACES)
    labels = name_of_labels(path, names, truth, "array")
    return NumpyFile(path, count, width, header.dtype, has_places=bool(coords), has_truth=bool(labels), member=found,
                     coords=coords, labels=labels)  # fmt: skip


def member_names(path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    with reading_errors(path, "as an .npz file"), zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


@contextmanager
def _stream(path: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """An array's bytes, and how many there are."""
    if not member:
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as inside:
        yield inside, archive.getinfo(f"{member}.npy").file_size


def _read_header(path: Path, member: str, file: IO[bytes], size: int) -> Header:
    """size: bytes of the array with its header. `UserError` for a pickle, or where some are missing."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with _HEADERS:
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UserError(f"{path}: {member or 'the array'} holds Python objects (a pickle), which is not read: it may "
                        "run code; save it as an array of numbers")  # fmt: skip
    if any(length < 0 for length in shape):
        raise ValueError(f"shape is not valid: {shape}")
    there, needed = size - file.tell(), math.prod(shape) * dtype.itemsize
    if there < needed:
        raise UserError(f"{path}: cut short: {there:,} of {needed:,} bytes{f' of {member}' if member else ''}")
    return Header(shape, dtype, fortran)


def array_header(path: Path, member: str) -> Header:
    """Shape and type of an array; member: "" for a `.npy` file. `UserError` for a damaged file, or for a pickle."""
    with reading_errors(path, "as an array of numpy"), _stream(path, member) as (file, size):
        return _read_header(path, member, file, size)


def load_array(path: Path, member: str = "") -> np.ndarray:
    """The whole array; for small ones. `UserError` as of `array_header`."""
    with reading_errors(path, "as an array of numpy"), _stream(path, member) as (file, size):
        header = _read_header(path, member, file, size)
        found = np.frombuffer(_exactly(file, math.prod(header.shape) * header.dtype.itemsize), header.dtype)
        return found.reshape(header.shape, order="F" if header.fortran else "C")


def array_pieces(path: Path, member: str, width: int, rows: int) -> Iterator[np.ndarray]:
    """An array of (N, width), or (1, N, width), `rows` at a time."""
    with _stream(path, member) as (file, size):
        header = _read_header(path, member, file, size)
        count = math.prod(header.shape) // max(1, width)
        if header.fortran:  # columns lie together: rarely written, and read whole
            whole = load_array(path, member).reshape(count, width)
            yield from (np.ascontiguousarray(whole[first : first + rows]) for first in range(0, count, rows))
            return
        for first in range(0, count, rows):
            wanted = min(rows, count - first)
            data = _exactly(file, wanted * width * header.dtype.itemsize)
            yield np.frombuffer(data, header.dtype).reshape(wanted, width)


def _exactly(file: IO[bytes], size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise EOFError(f"cut short: {len(found):,} of {size:,} bytes")
    return found
