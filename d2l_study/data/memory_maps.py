"""New `.npy` files that are written through a memory map, on a disk that may be full.

    scores = new_array(path, (4096, 4096), np.float32, "give --out on a disk with more room")

A page of a map that the disk has no room for ends the process (SIGBUS) when it is first written, where no `except`
helps. So the room is reserved before the file is mapped; a full disk is then an error like others.
"""

from __future__ import annotations

import errno
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from d2l_study.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_THERE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What `posix_fallocate` says where a file system, or the C library, cannot reserve."""


def new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype | type[np.generic], advice: str) -> np.memmap:
    """A new `.npy` file of zeros, mapped to be written; it takes the place of one that is there.

    The disk's room for all of it is reserved first. `UserError` if there is not enough: it names the folder, the size
    needed and what is free, and ends in `advice`, what the user can do; then no file is left.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    with disk_full_as_user_error(path.parent, advice, size):
        try:
            with path.open("wb") as file:
                file.write(npy_header(shape, kind))
                _reserve(file, file.tell() + size)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
    found = np.lib.format.open_memmap(path, "r+")
    assert isinstance(found, np.memmap)
    return found


def npy_header(shape: tuple[int, ...], kind: np.dtype) -> bytes:
    """The bytes of a `.npy` file before its values, which follow row by row."""
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, header)
    return made.getvalue()


def check_room(folder: Path, size: int, advice: str) -> None:
    """`UserError` if the disk of a folder has not so many bytes free: for files that are written, not mapped, so that
    what is missing after all is an error when it is written."""
    with disk_full_as_user_error(folder, advice, size), suppress(AttributeError):  # not on every system
        found = os.statvfs(folder)
        if found.f_bavail * found.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def disk_full_as_user_error(folder: Path, advice: str, needed: int | None = None) -> Iterator[None]:
    """Says in a line that a disk (or a quota) has no room for what is written below a folder; needed: its bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        size = "" if needed is None else f" for {human_bytes(needed)}"
        raise UserError(f"{folder}: no room{size}: {error.strerror}{_free(folder)}; {advice}") from None


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a file `size` bytes long, all of which the disk has room for; `OSError` if it has not."""
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # not on every system
        pass
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
    zeros = bytes(2**20)
    file.seek(0, os.SEEK_END)
    while (left := size - file.tell()) > 0:
        file.write(zeros[:left])
    file.flush()
    os.fsync(file.fileno())  # some file systems find room, or none, only now


def _free(folder: Path) -> str:
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    return f" ({human_bytes(found.f_bavail * found.f_frsize)} are free)"


def human_bytes(number: int) -> str:
    """An amount of bytes for people, in powers of 1000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"
