"""The headers of array files: dimensions and type, read before the numbers."""

from __future__ import annotations

import struct
from typing import IO

import numpy as np


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Of an `.npy` file; `ValueError` for a format or an order that is not read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        dims, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        dims, by_column, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy format {version}, which holds no numbers")
    if by_column and len(dims) > 1:
        raise ValueError("stored in Fortran order; save numpy.ascontiguousarray(array)")
    return dims, dtype


IDX_TYPES = (8, 9, 11, 12, 13, 14)
"""Of numbers in IDX files; images that are not read begin with two zeros, too."""


def idx_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Of an IDX file; `ValueError` for one of other numbers than unsigned bytes."""
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
        raise ValueError(f"not an IDX file of unsigned bytes (it begins with {head.hex(' ')})")
    return struct.unpack(f">{head[3]}I", file.read(4 * head[3])), np.dtype(np.uint8)
